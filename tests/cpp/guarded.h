// A buffer between two pages that may not be touched: reading or writing one element outside of it faults, also
// where a sanitizer cannot look (inline assembly, masked and vector loads).
#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstring>
#include <new>
#include <span>
#include <type_traits>
#include <vector>

namespace sepconv::test {

// Which end of the buffer lies against its guard page; the other end is followed by slack up to the page's end.
enum class Flush { head, tail };
inline constexpr Flush kBothEnds[] = {Flush::head, Flush::tail};

template <class T>
class GuardedBuffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  GuardedBuffer(std::size_t count, Flush flush) : count_(count) {
    page_ = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    inner_ = (count * sizeof(T) + page_ - 1) / page_ * page_;
    void* mapping = mmap(nullptr, inner_ + 2 * page_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (mapping == MAP_FAILED) throw std::bad_alloc();
    mapping_ = static_cast<std::byte*>(mapping);
    if (inner_ && mprotect(mapping_ + page_, inner_, PROT_READ | PROT_WRITE)) throw std::bad_alloc();
    std::memset(mapping_ + page_, kSlack, inner_);
    data_ = mapping_ + page_ + (flush == Flush::tail ? inner_ - count * sizeof(T) : 0);
  }

  // Filled with values, then read-only: writing to it faults.
  GuardedBuffer(const std::vector<T>& values, Flush flush) : GuardedBuffer(values.size(), flush) {
    if (values.empty()) return;
    std::memcpy(data_, values.data(), values.size() * sizeof(T));
    if (mprotect(mapping_ + page_, inner_, PROT_READ)) throw std::bad_alloc();
  }

  GuardedBuffer(GuardedBuffer&& other) noexcept
      : mapping_(other.mapping_), data_(other.data_), page_(other.page_), inner_(other.inner_), count_(other.count_) {
    other.mapping_ = nullptr;
  }
  GuardedBuffer& operator=(GuardedBuffer&&) = delete;
  ~GuardedBuffer() {
    if (mapping_) munmap(mapping_, inner_ + 2 * page_);
  }

  T* data() { return reinterpret_cast<T*>(data_); }
  std::size_t size() const { return count_; }
  std::span<T> values() { return {data(), count_}; }
  // An address that can be neither read nor written.
  const void* forbidden() const { return mapping_; }

  // Whether nothing was written to the slack, which no page guards.
  bool slack_intact() const {
    for (const std::byte* p = mapping_ + page_; p != mapping_ + page_ + inner_; ++p)
      if ((p < data_ || p >= data_ + count_ * sizeof(T)) && *p != std::byte{kSlack}) return false;
    return true;
  }

 private:
  static constexpr unsigned char kSlack = 0xa5;
  std::byte* mapping_ = nullptr;
  std::byte* data_ = nullptr;
  std::size_t page_ = 0, inner_ = 0, count_ = 0;
};

}  // namespace sepconv::test
