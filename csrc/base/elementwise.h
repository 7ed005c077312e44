// Elementwise functions that the N-d operators share, by the names that ONNX gives them.
#pragma once

namespace sepconv {

// Of one float x and up to two constants a, b.
enum class UnaryKind {
  relu,          // max(0, x)
  leaky_relu,    // x < 0 ? a·x : x
  clip,          // min(b, max(a, x)); NaN passes
  affine,        // a·x + b
  hard_sigmoid,  // min(1, max(0, a·x + b))
  hard_swish,    // x · min(1, max(0, x/6 + 1/2))
  sigmoid,
  swish,         // x · sigmoid(a·x)
  tanh,
  elu,           // x < 0 ? a·(e^x - 1) : x
  selu,          // b·elu(x; a)
  celu,          // x < 0 ? a·(e^(x/a) - 1) : x
  softplus,      // log(1 + e^x)
  mish,          // x · tanh(softplus(x))
  gelu,          // x/2 · (1 + erf(x/√2))
  gelu_tanh,     // x/2 · (1 + tanh(√(2/π)·(x + 0.044715·x³)))
  exp,
};

// Of two numbers. The first six have a vector kernel for floats.
enum class BinaryKind {
  add, sub, mul, div, max, prelu,  // max: NaN when either is; prelu: x < 0 ? b·x : x
  min, pow, mod, fmod, equal, less, less_equal, greater, greater_equal, logical_and, logical_or, logical_xor
};
inline constexpr int kVectorBinaryKinds = 6;

}  // namespace sepconv
