#include "allocation_watch.h"

#include <sys/syscall.h>

#include <atomic>
#include <cerrno>
#include <cstdint>
#include <cstdlib>

#if defined(__has_feature)
#define SEPCONV_HAS_FEATURE(x) __has_feature(x)
#else
#define SEPCONV_HAS_FEATURE(x) 0
#endif
#if defined(__GLIBC__) && defined(__LP64__) && !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__) && \
    !SEPCONV_HAS_FEATURE(address_sanitizer) && !SEPCONV_HAS_FEATURE(thread_sanitizer)
#define SEPCONV_OWN_MALLOC 1
#endif

namespace sepconv::test {
namespace {

std::atomic<bool> counting{false};
std::atomic<long> counted{0};

[[maybe_unused]] void count() {
  if (counting.load(std::memory_order_relaxed)) counted.fetch_add(1, std::memory_order_relaxed);
}

enum class Guard { off, head, tail };
std::atomic<Guard> guard{Guard::off};
std::atomic<int> guarded{0};

// What GuardedAllocations gave, for free(). No container: this runs inside malloc.
struct Region {
  std::atomic<void*> data{nullptr};
  void* mapping = nullptr;
  std::size_t length = 0;
};
Region regions[512];

[[maybe_unused]] void* allocate_guarded(std::size_t alignment, std::size_t size) {
  const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
  const std::size_t rounded = (size + alignment - 1) / alignment * alignment;
  const std::size_t inner = (rounded + page - 1) / page * page, length = inner + 2 * page;
  void* const mapping = mmap(nullptr, length, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (mapping == MAP_FAILED) return nullptr;
  std::byte* const begin = static_cast<std::byte*>(mapping) + page;
  if (mprotect(begin, inner, PROT_READ | PROT_WRITE) != 0) return nullptr;
  std::memset(begin, 0xff, inner);  // floats that are NaN
  std::byte* const data = guard == Guard::tail ? begin + inner - rounded : begin;
  for (Region& region : regions) {
    void* expected = nullptr;
    if (!region.data.compare_exchange_strong(expected, data)) continue;
    region.mapping = mapping;
    region.length = length;
    ++guarded;
    return data;
  }
  return nullptr;  // a test that needs more of them can have them above
}

// Whether the memory was one of those, which is then gone.
[[maybe_unused]] bool release_guarded(void* data) {
  if (data == nullptr || guarded.load(std::memory_order_relaxed) == 0) return false;
  for (Region& region : regions) {
    if (region.data.load(std::memory_order_relaxed) != data) continue;
    munmap(region.mapping, region.length);
    region.data = nullptr;
    return true;
  }
  return false;
}

}  // namespace

void start_counting() {
  counted = 0;
  counting = true;
}

long stop_counting() {
  counting = false;
  return counted;
}

GuardedAllocations::GuardedAllocations(Flush flush) {
  guarded = 0;
  guard = flush == Flush::head ? Guard::head : Guard::tail;
}
GuardedAllocations::~GuardedAllocations() { guard = Guard::off; }
int GuardedAllocations::count() const { return guarded; }

}  // namespace sepconv::test

#if defined(SEPCONV_OWN_MALLOC)

using namespace sepconv::test;

extern "C" {

void* __libc_malloc(std::size_t);
void* __libc_calloc(std::size_t, std::size_t);
void* __libc_realloc(void*, std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void __libc_free(void*);

void* malloc(std::size_t size) noexcept {
  count();
  return __libc_malloc(size);
}

void* calloc(std::size_t n, std::size_t size) noexcept {
  count();
  return __libc_calloc(n, size);
}

void* realloc(void* data, std::size_t size) noexcept {
  count();
  return __libc_realloc(data, size);
}

void* memalign(std::size_t alignment, std::size_t size) noexcept {
  count();
  return __libc_memalign(alignment, size);
}

void* aligned_alloc(std::size_t alignment, std::size_t size) noexcept { return memalign(alignment, size); }

int posix_memalign(void** data, std::size_t alignment, std::size_t size) noexcept {
  count();
  *data = guard == Guard::off ? __libc_memalign(alignment, size) : allocate_guarded(alignment, size);
  return *data == nullptr ? ENOMEM : 0;
}

void free(void* data) noexcept {
  if (!release_guarded(data)) __libc_free(data);
}

void* mmap(void* address, std::size_t length, int protection, int flags, int file, off_t offset) noexcept {
  count();
  return reinterpret_cast<void*>(syscall(SYS_mmap, address, length, protection, flags, file, offset));
}

}  // extern "C"

bool sepconv::test::allocations_watched() { return true; }

#else

bool sepconv::test::allocations_watched() { return false; }

#endif
