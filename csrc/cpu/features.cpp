#include "cpu/features.h"

#include <atomic>
#include <cstdlib>
#include <stdexcept>

namespace sepconv {
namespace {

struct Isa {
  const char* name;
  bool (*supported)();
  const KernelTable& (*table)();
};

#if defined(__x86_64__) || defined(_M_X64)
#if defined(__GNUC__) || defined(__clang__)
// The builtins read XCR0 as well: a CPU whose OS does not save the wide registers does not count.
bool has_avx2() {
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl");
}
#else
bool has_avx2() { return false; }
bool has_avx512() { return false; }
#endif
#endif

// A row an ISA, the best last.
constexpr Isa kIsas[] = {
    {"scalar", [] { return true; }, scalar_table},
#if defined(__x86_64__) || defined(_M_X64)
    {"avx2", has_avx2, avx2_table},
    {"avx512", has_avx512, avx512_table},
#elif defined(__aarch64__) || defined(_M_ARM64)
    {"neon", [] { return true; }, neon_table},  // part of every AArch64 system's calling convention
#endif
};

const Isa* find_supported(std::string_view name) {
  for (const Isa& isa : kIsas) {
    if (name == isa.name && isa.supported()) return &isa;
  }
  return nullptr;
}

// "must be one of scalar, avx2 on this machine, got 'sse9'"
std::string refusal(std::string_view got) {
  std::string text = "must be one of ";
  const char* separator = "";
  for (const std::string& isa : supported_isas()) {
    text += separator + isa;
    separator = ", ";
  }
  return text + " on this machine, got '" + std::string(got) + "'";
}

}  // namespace

std::vector<std::string> supported_isas() {
  std::vector<std::string> names;
  for (const Isa& isa : kIsas) {
    if (isa.supported()) names.emplace_back(isa.name);
  }
  return names;
}

const KernelTable& kernels(std::string_view isa) {
  const Isa* const found = find_supported(isa);
  if (found == nullptr) throw std::invalid_argument("kernels: isa " + refusal(isa));
  return found->table();
}

const KernelTable& choose_kernels(const char* sepconv_isa) {
  if (sepconv_isa == nullptr || *sepconv_isa == '\0') return kernels(supported_isas().back());
  const Isa* const found = find_supported(sepconv_isa);
  if (found == nullptr) throw std::runtime_error("SEPCONV_ISA " + refusal(sepconv_isa));
  return found->table();
}

const KernelTable& kernels() {
  // Not a static local: its guard, held by another thread during a fork, would hang the child.
  static constinit std::atomic<const KernelTable*> chosen{nullptr};
  const KernelTable* table = chosen.load(std::memory_order_acquire);
  if (table == nullptr) {
    const KernelTable* const mine = &choose_kernels(std::getenv("SEPCONV_ISA"));
    table = chosen.compare_exchange_strong(table, mine, std::memory_order_acq_rel) ? mine : table;
  }
  return *table;
}

}  // namespace sepconv
