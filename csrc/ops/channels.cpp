// Channels put together from those of several inputs. A block of them that is a whole block of one input is copied; any
// other picks its lanes out of the blocks that have them.
#include <cstring>
#include <vector>

#include "ops/operators.h"

namespace sepconv {
namespace {

class Channels final : public RowOp {
 public:
  Channels(Shape shape, const std::vector<ChannelSource>& sources, const KernelTable& t) : table_(t) {
    kernel = std::string("channels_f32__") + t.isa;
    in = out = shape;
    parts = blocks_of(shape.c, t);
    macs = out.elements();
    for (int b = 0; b < parts; ++b) {
      blocks_.push_back(pick(sources, b));
      scratch_floats = std::max(scratch_floats, blocks_[b].from.size() * sizeof(float*) / sizeof(float));
    }
  }

  void run(const RowTask& task) const noexcept override {
    auto* const planes = reinterpret_cast<const float**>(task.scratch);
    for (int b = task.part0; b < task.part1; ++b) {
      const Block& block = blocks_[b];
      ChannelVectors c{planes, block.lanes.data(), static_cast<int>(block.from.size()), nullptr, out.w};
      for (int y = task.y0; y < task.y1; ++y) {
        for (int s = 0; s < c.source_count; ++s) {
          const Source& source = block.from[s];
          planes[s] = (source.input == 0 ? task.in : task.others[source.input - 1]).at(source.block, y);
        }
        c.out = task.out.at(b, y);
        if (block.whole) {
          std::memcpy(c.out, planes[0], sizeof(float) * out.w * table_.vector);
        } else {
          table_.channels_f32(c);
        }
      }
    }
  }

 private:
  struct Source {
    int input, block;
  };
  struct Block {
    std::vector<Source> from;
    std::vector<std::int32_t> lanes;  // [from][V]
    bool whole;                       // whether it is another block as it is
  };

  Block pick(const std::vector<ChannelSource>& sources, int b) const {
    const int v = table_.vector, first = b * v, count = std::min(v, out.c - first);
    Block block;
    for (int lane = 0; lane < count; ++lane) {
      const ChannelSource& wanted = sources[first + lane];
      const Source source{wanted.input, wanted.channel / v};
      std::size_t s = 0;
      while (s < block.from.size() && !(block.from[s].input == source.input && block.from[s].block == source.block)) ++s;
      if (s == block.from.size()) {
        block.from.push_back(source);
        block.lanes.resize(block.from.size() * v, -1);
      }
      block.lanes[s * v + lane] = wanted.channel % v;
    }
    block.whole = block.from.size() == 1;
    for (int lane = 0; lane < count; ++lane) block.whole = block.whole && block.lanes[lane] == lane;
    return block;
  }

  const KernelTable& table_;
  std::vector<Block> blocks_;
};

}  // namespace

RowOpPtr make_channels(Shape out, const std::vector<ChannelSource>& sources, const KernelTable& table) {
  return std::make_unique<Channels>(out, sources, table);
}

}  // namespace sepconv
