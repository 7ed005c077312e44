#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include <unistd.h>

#if defined(__linux__)
#include <sched.h>
#endif

#include "cpu/features.h"

namespace sepconv {
namespace {

namespace fs = std::filesystem;

TEST(Features, EverySupportedIsaHasItsTable) {
  const std::vector<std::string> isas = supported_isas();
  ASSERT_FALSE(isas.empty());
  EXPECT_EQ(isas.front(), "scalar");
  for (const std::string& isa : isas) {
    EXPECT_EQ(kernels(isa).isa, isa);
    EXPECT_EQ(choose_kernels(isa.c_str()).isa, isa);
  }
}

TEST(Features, TheBestUnlessForced) {
  EXPECT_EQ(choose_kernels(nullptr).isa, supported_isas().back());
  EXPECT_EQ(choose_kernels("").isa, supported_isas().back());
  EXPECT_EQ(&kernels(), &choose_kernels(std::getenv("SEPCONV_ISA")));
}

TEST(Features, AnIsaThatIsNotThereIsAnError) {
  for (const char* isa : {"sse9", "AVX2", "scalar ", "avx512,avx2"}) {
    try {
      choose_kernels(isa);
      ADD_FAILURE() << isa;
    } catch (const std::runtime_error& error) {
      const std::string message = error.what();
      EXPECT_NE(message.find("SEPCONV_ISA"), std::string::npos) << message;
      EXPECT_NE(message.find("'" + std::string(isa) + "'"), std::string::npos) << message;
      for (const std::string& supported : supported_isas()) {
        EXPECT_NE(message.find(supported), std::string::npos) << message;
      }
    }
    EXPECT_THROW(kernels(isa), std::invalid_argument);
  }
}

TEST(Topology, PlausibleAnswers) {
  EXPECT_GE(l2_bytes(), std::size_t{64} << 10);
  EXPECT_LE(l2_bytes(), std::size_t{1} << 30);
  EXPECT_GE(default_threads(), 1);
}

#if defined(__linux__)
TEST(Topology, DefaultThreadsFollowAffinity) {
  int count = 0;
  std::thread pinned([&] {  // a thread's mask is its own
    cpu_set_t all, one;
    ASSERT_EQ(sched_getaffinity(0, sizeof all, &all), 0);
    CPU_ZERO(&one);
    for (int cpu = 0; cpu < CPU_SETSIZE; ++cpu) {
      if (CPU_ISSET(cpu, &all)) {
        CPU_SET(cpu, &one);
        break;
      }
    }
    ASSERT_EQ(sched_setaffinity(0, sizeof one, &one), 0);
    count = default_threads();
  });
  pinned.join();
  EXPECT_EQ(count, 1);
}
#endif

class FakeCgroups : public ::testing::Test {
 protected:
  void SetUp() override {
    std::string name = (fs::temp_directory_path() / "sepconv-cgroup-XXXXXX").string();
    ASSERT_NE(mkdtemp(name.data()), nullptr);
    root_ = name;
  }
  void TearDown() override { fs::remove_all(root_); }

  void write(const std::string& path, const std::string& text) {
    const fs::path file = root_ + path;
    fs::create_directories(file.parent_path());
    std::ofstream(file) << text;
  }

  std::string root_;
};

TEST_F(FakeCgroups, NothingThere) { EXPECT_EQ(cgroup_cpu_quota(root_), std::nullopt); }

TEST_F(FakeCgroups, V2TakesTheLeastOnTheWayUp) {
  write("/proc/self/cgroup", "0::/a/b/c\n");
  write("/sys/fs/cgroup/a/b/c/cpu.max", "max 100000\n");
  EXPECT_EQ(cgroup_cpu_quota(root_), std::nullopt);
  write("/sys/fs/cgroup/a/cpu.max", "150000 100000\n");
  EXPECT_EQ(cgroup_cpu_quota(root_), 1.5);
  write("/sys/fs/cgroup/a/b/cpu.max", "400000 100000\n");
  EXPECT_EQ(cgroup_cpu_quota(root_), 1.5);
  write("/sys/fs/cgroup/a/b/c/cpu.max", "50000 100000\n");
  EXPECT_EQ(cgroup_cpu_quota(root_), 0.5);
  write("/sys/fs/cgroup/other/cpu.max", "1000 100000\n");
  EXPECT_EQ(cgroup_cpu_quota(root_), 0.5);
}

TEST_F(FakeCgroups, V2InAContainer) {
  // With a cgroup namespace the group is "/"; without, a path that the container does not show; from outside, "/../x".
  write("/sys/fs/cgroup/cpu.max", "200000 100000\n");
  for (const char* group : {"/", "/docker/0123", "/../elsewhere"}) {
    write("/proc/self/cgroup", std::string("0::") + group + "\n");
    EXPECT_EQ(cgroup_cpu_quota(root_), 2.0) << group;
  }
}

TEST_F(FakeCgroups, V1) {
  write("/proc/self/cgroup", "12:cpuset:/x\n4:cpu,cpuacct:/docker/12ab\n1:name=systemd:/y\n0::/\n");
  write("/sys/fs/cgroup/cpu,cpuacct/docker/12ab/cpu.cfs_period_us", "100000\n");
  write("/sys/fs/cgroup/cpu,cpuacct/docker/12ab/cpu.cfs_quota_us", "-1\n");
  EXPECT_EQ(cgroup_cpu_quota(root_), std::nullopt);
  write("/sys/fs/cgroup/cpu,cpuacct/docker/12ab/cpu.cfs_quota_us", "325000\n");
  EXPECT_EQ(cgroup_cpu_quota(root_), 3.25);
  write("/sys/fs/cgroup/cpu/cpu.cfs_quota_us", "100000\n");
  write("/sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
  EXPECT_EQ(cgroup_cpu_quota(root_), 1.0);
}

TEST_F(FakeCgroups, NonsenseIsNoLimit) {
  for (const char* groups : {"", "\n", "0", "0:", "0::", "::::\n", "garbage without colons\n", "0::relative\n"}) {
    write("/proc/self/cgroup", groups);
    for (const char* quota : {"", "max", "abc def", "0 0", "-5 100000", "100000 0", "1000", "99999999999999999999 1"}) {
      write("/sys/fs/cgroup/cpu.max", quota);
      EXPECT_EQ(cgroup_cpu_quota(root_), std::nullopt) << groups << " / " << quota;
    }
  }
}

}  // namespace
}  // namespace sepconv
