// Attributes that kernels rely on.
#pragma once

// static: internal linkage, so that the linker cannot merge a copy built with AVX-512 into code for older CPUs.
#define SEPCONV_INLINE [[gnu::always_inline]] static inline
