// Where each activation of a plan lies in one block of memory: those that are never needed at the same time share it.
#pragma once

#include <cstddef>
#include <span>
#include <vector>

namespace sepconv {

// A buffer that is written first at first_step and read last at last_step.
struct Lifetime {
  std::size_t bytes;
  int first_step;
  int last_step;
};

struct ArenaPlan {
  std::vector<std::size_t> offsets;  // in bytes, one a lifetime, multiples of 64
  std::size_t size = 0;              // in bytes
};

// Buffers whose steps overlap (both ends count) get memory that does not. Throws std::invalid_argument if
// last_step < first_step, std::bad_alloc if the sizes exceed the address space.
ArenaPlan plan_arena(std::span<const Lifetime> lifetimes);

}  // namespace sepconv
