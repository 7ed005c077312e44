// Preloaded: makes one allocation of the extension fail, by number. Of all that asks for memory only calls from sepconv's
// own code count, or from the C++ library on its behalf (their return address says so): operator new, aligned blocks and
// maps; and every start of a thread. Python loads it again by ctypes to arm it and to ask how many there were.
#include <dlfcn.h>
#include <errno.h>
#include <link.h>
#include <pthread.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include <atomic>
#include <new>

namespace {

struct Region {
  uintptr_t begin = 0, end = 0;
};
Region extension, library;  // where the code of the two lies; set before anything is counted
std::atomic<long> counted{0}, failing{-1}, failed{0};
std::atomic<bool> counting{false};
bool with_library = true;

int find(dl_phdr_info* info, size_t, void*) {
  const char* const name = strrchr(info->dlpi_name, '/');
  if (name == nullptr) return 0;
  const bool core = strncmp(name, "/_core", 6) == 0 && strstr(info->dlpi_name, "sepconv") != nullptr;
  if (!core && strncmp(name, "/libstdc++", 10) != 0) return 0;
  Region& region = core ? extension : library;
  for (int i = 0; i < info->dlpi_phnum; ++i) {
    const ElfW(Phdr)& segment = info->dlpi_phdr[i];
    if (segment.p_type != PT_LOAD || (segment.p_flags & PF_X) == 0) continue;
    region.begin = info->dlpi_addr + segment.p_vaddr;
    region.end = region.begin + segment.p_memsz;
  }
  return 0;
}

bool ours(const void* caller) {
  const auto at = reinterpret_cast<uintptr_t>(caller);
  return (at >= extension.begin && at < extension.end) || (with_library && at >= library.begin && at < library.end);
}

// Whether this call is the one that fails. No caller: any counts.
bool fails(const void* caller) {
  if (!counting.load(std::memory_order_relaxed) || (caller != nullptr && !ours(caller))) return false;
  if (counted.fetch_add(1) != failing.load(std::memory_order_relaxed)) return false;
  failed.fetch_add(1);
  return true;
}

template <class F>
F next(const char* name) {
  return reinterpret_cast<F>(dlsym(RTLD_NEXT, name));
}

void* allocated(size_t size, const void* caller) {
  if (fails(caller)) throw std::bad_alloc();
  void* const data = malloc(size == 0 ? 1 : size);
  if (data == nullptr) throw std::bad_alloc();
  return data;
}

}  // namespace

extern "C" {

// Counts from 0; the allocation of this number fails, none for -1. `all`: the C++ library's too, which is everybody's. False
// where the extension is not loaded.
bool failing_start(long number, bool all) {
  with_library = all;
  if (extension.end == 0) dl_iterate_phdr(find, nullptr);
  counted = 0;
  failed = 0;
  failing = number;
  counting = extension.end != 0;
  return counting;
}

// How many there were, or -1 - that where one of them failed.
long failing_stop() {
  counting = false;
  return failed != 0 ? -1 - counted : counted.load();
}

int posix_memalign(void** data, size_t alignment, size_t size) noexcept {
  static const auto real = next<int (*)(void**, size_t, size_t)>("posix_memalign");
  return fails(__builtin_return_address(0)) ? ENOMEM : real(data, alignment, size);
}

void* mmap(void* address, size_t length, int protection, int flags, int file, off_t offset) noexcept {
  static const auto real = next<void* (*)(void*, size_t, int, int, int, off_t)>("mmap");
  if (!fails(__builtin_return_address(0))) return real(address, length, protection, flags, file, offset);
  errno = ENOMEM;
  return MAP_FAILED;
}

int pthread_create(pthread_t* thread, const pthread_attr_t* attributes, void* (*f)(void*), void* arg) noexcept {
  static const auto real = next<int (*)(pthread_t*, const pthread_attr_t*, void* (*)(void*), void*)>("pthread_create");
  return fails(nullptr) ? EAGAIN : real(thread, attributes, f, arg);
}

}  // extern "C"

void* operator new(size_t size) { return allocated(size, __builtin_return_address(0)); }
void* operator new[](size_t size) { return allocated(size, __builtin_return_address(0)); }
void* operator new(size_t size, const std::nothrow_t&) noexcept {
  return fails(__builtin_return_address(0)) ? nullptr : malloc(size == 0 ? 1 : size);
}
void* operator new(size_t size, std::align_val_t alignment) {
  void* data = nullptr;
  if (fails(__builtin_return_address(0)) || posix_memalign(&data, static_cast<size_t>(alignment), size) != 0) {
    throw std::bad_alloc();
  }
  return data;
}
void* operator new[](size_t size, std::align_val_t alignment) {
  void* data = nullptr;
  if (fails(__builtin_return_address(0)) || posix_memalign(&data, static_cast<size_t>(alignment), size) != 0) {
    throw std::bad_alloc();
  }
  return data;
}
void operator delete(void* data) noexcept { free(data); }
void operator delete[](void* data) noexcept { free(data); }
void operator delete(void* data, size_t) noexcept { free(data); }
void operator delete[](void* data, size_t) noexcept { free(data); }
void operator delete(void* data, std::align_val_t) noexcept { free(data); }
void operator delete[](void* data, std::align_val_t) noexcept { free(data); }
void operator delete(void* data, size_t, std::align_val_t) noexcept { free(data); }
void operator delete[](void* data, size_t, std::align_val_t) noexcept { free(data); }
