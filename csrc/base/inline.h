// Attributes that kernels rely on.
#pragma once

// static: internal linkage, so that the linker cannot merge a copy built with AVX-512 into code for older CPUs.
#define SEPCONV_INLINE [[gnu::always_inline]] static inline

namespace sepconv {

// Keeps an address in a register of its own. Else GCC adds the offset of every column to every row.
SEPCONV_INLINE const float* anchor(const float* p) {
  asm("" : "+r"(p));
  return p;
}

}  // namespace sepconv
