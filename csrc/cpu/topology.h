// What the machine and its container grant this process: CPUs and cache.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

namespace sepconv {

// Bytes of one core's L2; 1 MB where the system does not say.
std::size_t l2_bytes();
inline constexpr std::size_t kLargeL2 = 1 << 20;  // from here on; below, cores share a near L3, as those of Zen do

// The threads worth starting: CPUs in this process's affinity mask, or its cgroup's CPU quota rounded up, whichever
// is less; at least 1. Reads files; keep the answer.
int default_threads();

// The least CPU quota, in CPUs, of this process's cgroup and those above it (v2 and v1); none where there is no limit.
// `root` stands before /proc and /sys.
std::optional<double> cgroup_cpu_quota(const std::string& root = "");

}  // namespace sepconv
