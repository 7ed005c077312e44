#include "cpu/topology.h"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <initializer_list>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <cerrno>
#include <sched.h>
#include <unistd.h>
#endif

namespace sepconv {
namespace {

void keep_less(std::optional<double>& least, std::optional<double> quota) {
  if (quota && (!least || *quota < *least)) least = quota;
}

std::optional<double> in_cpus(long long quota, long long period) {
  if (quota <= 0 || period <= 0) return std::nullopt;
  return static_cast<double>(quota) / static_cast<double>(period);
}

// v2: "150000 100000", or "max 100000", which fails to read as a number.
std::optional<double> quota_v2(const std::string& folder) {
  long long quota = 0, period = 0;
  if (!(std::ifstream(folder + "/cpu.max") >> quota >> period)) return std::nullopt;
  return in_cpus(quota, period);
}

// v1: one file each; a quota of -1 is none.
std::optional<double> quota_v1(const std::string& folder) {
  long long quota = 0, period = 0;
  if (!(std::ifstream(folder + "/cpu.cfs_quota_us") >> quota)) return std::nullopt;
  if (!(std::ifstream(folder + "/cpu.cfs_period_us") >> period)) return std::nullopt;
  return in_cpus(quota, period);
}

// The least quota from `group` up to the mount. Folders that a container does not show read as no limit.
template <typename Quota>
std::optional<double> least_quota(const std::string& mount, std::string group, Quota quota) {
  std::optional<double> least;
  for (;;) {
    keep_less(least, quota(mount + group));
    const std::size_t slash = group.rfind('/');
    if (slash == std::string::npos) return least;
    group.resize(slash);
  }
}

// Whether `name` is among the comma-separated `names`.
bool lists(const std::string& names, const std::string& name) {
  return ("," + names + ",").find("," + name + ",") != std::string::npos;
}

#if defined(__linux__)
int affinity_count() {
  // The kernel refuses a set smaller than its own, whose size it does not tell.
  for (int cpus = 1024; cpus <= 1 << 20; cpus *= 2) {
    std::vector<unsigned long> mask(static_cast<std::size_t>(cpus) / (8 * sizeof(unsigned long)));
    auto* const set = reinterpret_cast<cpu_set_t*>(mask.data());
    const std::size_t bytes = mask.size() * sizeof(unsigned long);
    if (sched_getaffinity(0, bytes, set) == 0) return CPU_COUNT_S(bytes, set);
    if (errno != EINVAL) break;
  }
  return 0;
}

std::size_t sysfs_l2_bytes() {
  for (int index = 0; index < 8; ++index) {
    const std::string folder = "/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index);
    int level = 0;
    std::size_t size = 0;
    char unit = 0;
    if (!(std::ifstream(folder + "/level") >> level) || level != 2) continue;
    std::ifstream file(folder + "/size");
    if (!(file >> size)) continue;
    file >> unit;
    return unit == 'K' ? size << 10 : unit == 'M' ? size << 20 : size;
  }
  return 0;
}
#endif

}  // namespace

std::size_t l2_bytes() {
  std::size_t bytes = 0;
#if defined(__linux__)
#if defined(_SC_LEVEL2_CACHE_SIZE)
  bytes = static_cast<std::size_t>(std::max(sysconf(_SC_LEVEL2_CACHE_SIZE), 0L));
#endif
  if (bytes == 0) bytes = sysfs_l2_bytes();
#endif
  return bytes != 0 ? bytes : std::size_t{1} << 20;
}

std::optional<double> cgroup_cpu_quota(const std::string& root) {
  const std::string mounts = root + "/sys/fs/cgroup";
  std::optional<double> least;
  std::ifstream groups(root + "/proc/self/cgroup");
  // "0::/user.slice" is v2's, "4:cpu,cpuacct:/docker/12ab" one of v1's.
  for (std::string line; std::getline(groups, line);) {
    const std::size_t first = line.find(':');
    const std::size_t second = line.find(':', first == std::string::npos ? first : first + 1);
    if (second == std::string::npos) continue;
    const std::string controllers = line.substr(first + 1, second - first - 1);
    std::string group = line.substr(second + 1);
    // Above the namespace's root ("/../x") nothing is visible: only the mount itself can be asked.
    if (group.empty() || group.front() != '/' || group == "/" || group.find("/..") != std::string::npos) group.clear();
    if (controllers.empty()) {
      for (const char* mount : {"", "/unified"}) keep_less(least, least_quota(mounts + mount, group, quota_v2));
    } else if (lists(controllers, "cpu")) {
      for (const std::string& mount : {std::string("/cpu"), "/" + controllers}) {
        keep_less(least, least_quota(mounts + mount, group, quota_v1));
      }
    }
  }
  return least;
}

int default_threads() {
  int count = 0;
#if defined(__linux__)
  count = affinity_count();
#endif
  if (count == 0) count = static_cast<int>(std::thread::hardware_concurrency());
  if (const std::optional<double> quota = cgroup_cpu_quota()) {
    count = std::min(count, static_cast<int>(std::ceil(std::min(*quota, 1e6))));
  }
  return std::max(count, 1);
}

}  // namespace sepconv
