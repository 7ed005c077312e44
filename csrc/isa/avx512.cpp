// The kernels compiled for avx512. No std:: containers or algorithms here: see docs/add-an-isa.md.
#include "simd/avx512.h"

#define SEPCONV_ISA avx512
#include "kernels/hard_swish.h"
#include "kernels/gemm.h"
#include "kernels/gemv.h"
#include "kernels/depthwise.h"
#include "kernels/depthwise_grad.h"
#include "kernels/depthwise_pixels.h"
#include "kernels/pool.h"
#include "kernels/elementwise.h"
#include "kernels/rows.h"
#include "kernels/channels.h"
#include "kernels/nd_elementwise.h"
#include "kernels/transpose.h"
#include "kernels/peaks.h"
#include "kernels/fill_table.h"
#include "kernels/gemm_pairs.h"

namespace sepconv {

namespace {
constexpr KernelTable kTable = avx512::with_pairs(avx512::make_table("avx512"));
}

const KernelTable& avx512_table() { return kTable; }

}  // namespace sepconv
