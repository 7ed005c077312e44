// Which ISAs this CPU runs, and which one was chosen.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "cpu/topology.h"
#include "kernels/table.h"

namespace sepconv {

// The ISAs that were built and that this CPU and OS run, the best last: "scalar", "avx2" (with FMA),
// "avx512" (F, BW, DQ, VL); "neon" on 64-bit Arm.
std::vector<std::string> supported_isas();

// The table everything runs on: chosen at the first call, from the environment variable SEPCONV_ISA or else the best.
// Throws std::runtime_error where SEPCONV_ISA names an ISA that is unknown or not supported here.
const KernelTable& kernels();

// The table of one ISA. Throws std::invalid_argument unless it is among supported_isas().
const KernelTable& kernels(std::string_view isa);

// What kernels() chooses, given SEPCONV_ISA's value; nullptr or "" for not set.
const KernelTable& choose_kernels(const char* sepconv_isa);

}  // namespace sepconv
