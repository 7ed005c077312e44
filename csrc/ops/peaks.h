// What this machine can do at most, measured: the roof that kernels are held against.
#pragma once

#include <cstddef>
#include <vector>

#include "kernels/table.h"

namespace sepconv {

// Floating-point operations a second (a multiply-add is two) of `threads` threads together, in many short bursts that
// take about `seconds` in all: one number a burst. Throws std::invalid_argument.
std::vector<double> measure_fma(const KernelTable& table, int threads, double seconds);

// Bytes a second of `threads` threads together, each reading `bytes` bytes of its own again and again. As above; also
// throws std::bad_alloc.
std::vector<double> measure_read(const KernelTable& table, std::size_t bytes, int threads, double seconds);

}  // namespace sepconv
