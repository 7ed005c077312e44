// Operators on hostile arguments, for libFuzzer: the first byte says whether the rest makes a graph, a call of an operator
// or gradients. Whatever is not run to its right end must be refused with std::invalid_argument.
#include <cstring>
#include <stdexcept>

#include "fuzzing.h"

namespace sepconv {
namespace {

struct Target {
  const char* name;
  bool (*attempt)(Bytes);
  long ran = 0, refused = 0;
} targets[] = {{"calls", &try_call}, {"graphs", &try_graph}, {"gradients", &try_gradient}};

struct Report {
  ~Report() {
    for (const Target& t : targets) std::fprintf(stderr, "of %s %ld ran, %ld were refused\n", t.name, t.ran, t.refused);
  }
} report;

}  // namespace
}  // namespace sepconv

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  sepconv::Target& target = sepconv::targets[data[0] % 8 < 5 ? 0 : data[0] % 8 < 7 ? 1 : 2];
  try {
    target.ran += target.attempt({data + 1, size - 1});
  } catch (const std::invalid_argument& error) {
    ++target.refused;
    if (std::strstr(error.what(), "must") == nullptr && std::strstr(error.what(), "does not") == nullptr) std::abort();
  }
  return 0;
}
