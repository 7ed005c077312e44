// What the code under test allocates: counted, and where wanted between guard pages. The test binary defines malloc and
// its family itself, in front of glibc's.
#pragma once

#include "guarded.h"

namespace sepconv::test {

// False where malloc is not ours to define: under sanitizers, or with another C library. Then nothing is counted.
bool allocations_watched();

// Starts to count allocations of all threads: calls of malloc's family and of mmap.
void start_counting();

// How many there were since start_counting().
long stop_counting();

// While it lives, what posix_memalign gives is full of NaN and lies against a page that may not be touched, so that
// reading or writing outside of an arena or scratch buffer faults, and reading before writing shows.
class GuardedAllocations {
 public:
  explicit GuardedAllocations(Flush flush);
  ~GuardedAllocations();
  GuardedAllocations(const GuardedAllocations&) = delete;
  GuardedAllocations& operator=(const GuardedAllocations&) = delete;
  int count() const;  // of such allocations so far
};

}  // namespace sepconv::test
