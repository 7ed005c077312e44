// Owned, aligned memory for weights, activations and the arena.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <utility>

#if defined(__linux__)
#include <sys/mman.h>
#include <unistd.h>
#elif defined(_WIN32)
#include <malloc.h>
#endif

namespace sepconv {

inline constexpr std::size_t kAlignment = 64;

inline constexpr std::size_t kHugePage = std::size_t{2} << 20;

// Asks for huge pages, which spare the TLB, wherever a whole one fits. Only for memory that will all be used: a huge page
// is resident as a whole. Advice, so failure is fine.
inline void advise_huge_pages([[maybe_unused]] void* data, [[maybe_unused]] std::size_t bytes) noexcept {
#if defined(__linux__)
  const auto begin = reinterpret_cast<std::uintptr_t>(data);
  const std::uintptr_t first = (begin + kHugePage - 1) / kHugePage * kHugePage;
  const std::uintptr_t last = (begin + bytes) / kHugePage * kHugePage;
  if (first < last) (void)madvise(reinterpret_cast<void*>(first), last - first, MADV_HUGEPAGE);
#endif
}

// Throws std::bad_alloc where they exceed the address space.
inline std::size_t float_bytes(std::size_t count) {
  if (count > SIZE_MAX / sizeof(float)) throw std::bad_alloc();
  return count * sizeof(float);
}

// Bytes that start on a 64-byte boundary, from 2 MB on at that of a huge page; their first content is unspecified. Pages
// that are never touched take no memory.
class AlignedBuffer {
 public:
  AlignedBuffer() noexcept = default;

  // Throws std::bad_alloc. No bytes: data is nullptr.
  explicit AlignedBuffer(std::size_t bytes) : data_(bytes == 0 ? nullptr : allocate(bytes)), size_(bytes) {}

  // Throws std::bad_alloc, also where count floats exceed the address space.
  static AlignedBuffer of_floats(std::size_t count) { return AlignedBuffer(float_bytes(count)); }

  AlignedBuffer(AlignedBuffer&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  AlignedBuffer& operator=(AlignedBuffer&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  AlignedBuffer(const AlignedBuffer&) = delete;
  AlignedBuffer& operator=(const AlignedBuffer&) = delete;
  ~AlignedBuffer() {
    if (data_ != nullptr) release(data_, size_);
  }

  std::byte* bytes() noexcept { return static_cast<std::byte*>(data_); }
  const std::byte* bytes() const noexcept { return static_cast<const std::byte*>(data_); }
  float* floats() noexcept { return static_cast<float*>(data_); }
  const float* floats() const noexcept { return static_cast<const float*>(data_); }
  std::size_t size() const noexcept { return size_; }  // in bytes

 private:
#if defined(__linux__)
  static std::size_t pages(std::size_t bytes) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    return (bytes + page - 1) / page * page;
  }
  static void* allocate_mapped(std::size_t bytes) {
    if (bytes > PTRDIFF_MAX - 2 * kHugePage) throw std::bad_alloc();
    const std::size_t length = pages(bytes), reserved = length + kHugePage;
    void* const raw = mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (raw == MAP_FAILED) throw std::bad_alloc();
    char* const begin = static_cast<char*>(raw);
    const std::size_t misaligned = reinterpret_cast<std::uintptr_t>(begin) % kHugePage;
    const std::size_t head = misaligned == 0 ? 0 : kHugePage - misaligned;
    if (head != 0) munmap(begin, head);
    if (reserved - head - length != 0) munmap(begin + head + length, reserved - head - length);
    return begin + head;
  }
#endif

  static void* allocate(std::size_t bytes) {
#if defined(__linux__)
    if (bytes >= kHugePage) return allocate_mapped(bytes);
#endif
#if defined(_WIN32)
    void* const data = _aligned_malloc(bytes, kAlignment);
#else
    void* data = nullptr;
    if (bytes > PTRDIFF_MAX || posix_memalign(&data, kAlignment, bytes) != 0) data = nullptr;
#endif
    if (data == nullptr) throw std::bad_alloc();
    return data;
  }

  static void release(void* data, [[maybe_unused]] std::size_t bytes) noexcept {
#if defined(_WIN32)
    _aligned_free(data);
#else
#if defined(__linux__)
    if (bytes >= kHugePage) {
      munmap(data, pages(bytes));
      return;
    }
#endif
    std::free(data);
#endif
  }

  void* data_ = nullptr;
  std::size_t size_ = 0;
};

}  // namespace sepconv
