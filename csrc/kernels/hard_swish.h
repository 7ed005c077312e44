// Hard sigmoid and hard swish of a vector: kernels apply the latter as they store, and elementwise.h has both.
#include "kernels/table.h"

namespace sepconv::SEPCONV_ISA {

// min(6, max(0, x + 3))/6. A division would take longer than all the rest of a small kernel.
SEPCONV_INLINE vf hard_sigmoid(vf x) {
  const vf zero = broadcast(0.0f), three = broadcast(3.0f), six = broadcast(6.0f), sixth = broadcast(1.0f / 6);
  return mul(min(six, max(zero, add(x, three))), sixth);
}

SEPCONV_INLINE vf hard_swish(vf x) { return mul(x, hard_sigmoid(x)); }

}  // namespace sepconv::SEPCONV_ISA
