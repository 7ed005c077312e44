// Denormals cost a hundred cycles an operation on many cores. They are off inside a run, and only there: a library
// that leaves them off changes the results of the program around it. Nor does that program's mode reach into a run:
// another rounding would give other bits on one thread than on two, and a trap would meet lanes that nobody reads.
#pragma once

#include <bit>
#include <cstdint>

#if defined(__x86_64__) || defined(_M_X64)
#include <xmmintrin.h>
#endif

namespace sepconv {

// x, but the zero of its sign where it is denormal: by its bits, so that no mode and no compiler has a say.
inline float without_denormal(float x) noexcept {
  const auto bits = std::bit_cast<std::uint32_t>(x);
  return std::bit_cast<float>((bits & 0x7f800000u) != 0 ? bits : bits & 0x80000000u);
}

// How a thread computes with floats: its control word.
class FloatMode {
 public:
  // Of the calling thread.
  static FloatMode current() noexcept { return FloatMode(read()); }
  // Rounds to nearest, traps nothing, and takes denormal floats for zero, in operands and results.
  static constexpr FloatMode flushing() noexcept { return FloatMode(kFlushing); }
  void set() const noexcept { write(word_); }

 private:
#if defined(__x86_64__) || defined(_M_X64)
  using Word = std::uint32_t;
  static constexpr Word kFlushing = 0x9fc0;  // MXCSR: FTZ (bit 15), all exceptions masked (7 to 12), DAZ (6)
  static Word read() noexcept { return _mm_getcsr(); }
  static void write(Word word) noexcept { _mm_setcsr(word); }
#elif defined(__aarch64__)
  using Word = std::uint64_t;
  static constexpr Word kFlushing = Word{1} << 24;  // FPCR: FZ
  static Word read() noexcept {
    Word word;
    asm volatile("mrs %0, fpcr" : "=r"(word) : : "memory");
    return word;
  }
  static void write(Word word) noexcept { asm volatile("msr fpcr, %0" : : "r"(word) : "memory"); }
#else
  using Word = std::uint32_t;
  static constexpr Word kFlushing = 0;
  static Word read() noexcept { return 0; }
  static void write(Word) noexcept {}
#endif

  explicit constexpr FloatMode(Word word) noexcept : word_(word) {}
  Word word_;
};

// While it lives, this thread has that mode. The destructor puts the control word back as it was, to the bit. It must end
// on the thread where it began.
class [[nodiscard]] WithFloatMode {
 public:
  explicit WithFloatMode(FloatMode mode) noexcept : saved_(FloatMode::current()) { mode.set(); }
  ~WithFloatMode() { saved_.set(); }
  WithFloatMode(const WithFloatMode&) = delete;
  WithFloatMode& operator=(const WithFloatMode&) = delete;

 private:
  FloatMode saved_;
};

class [[nodiscard]] FlushDenormals : WithFloatMode {
 public:
  FlushDenormals() noexcept : WithFloatMode(FloatMode::flushing()) {}
};

}  // namespace sepconv
