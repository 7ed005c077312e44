// How a product of matrices is shared: some rows times some panels are a piece.
#pragma once

#include <algorithm>
#include <cstdint>

namespace sepconv::nd {

struct PieceOfProduct {
  std::int64_t row;
  int rows;
  int panel, end_panel;
};

class PiecesOfProduct {
 public:
  // `m` rows, `panels` panels of which each takes panel_macs multiply-adds a row, `wanted` pieces at least where there is as
  // much; by panels first, or by rows. A piece has at most so many panels, and lasts some milliseconds at most.
  PiecesOfProduct(std::int64_t m, int panels, std::int64_t panel_macs, std::int64_t wanted, bool panels_first, int most_panels)
      : m_(m), panels_(panels) {
    constexpr std::int64_t kMostMacs = 1 << 25, kFewRows = 16;
    const auto shares = [](std::int64_t n, std::int64_t parts) { return (n + parts - 1) / parts; };
    const std::int64_t row_parts = shares(m, kFewRows);
    std::int64_t by_panels = panels_first ? std::min<std::int64_t>(panels, wanted) : 1;
    const std::int64_t by_rows = std::min(row_parts, shares(wanted, by_panels));
    by_panels = std::min<std::int64_t>(panels, std::max(by_panels, shares(wanted, by_rows)));
    own_panels_ = std::min<std::int64_t>(most_panels, shares(panels, by_panels));
    own_rows_ = shares(m, by_rows);
    if (own_rows_ * panel_macs * own_panels_ > kMostMacs) {
      own_panels_ = std::clamp<std::int64_t>(kMostMacs / (std::min(own_rows_, 4 * kFewRows) * panel_macs), 1, own_panels_);
      own_rows_ = std::clamp(kMostMacs / (panel_macs * own_panels_), std::min(own_rows_, 4 * kFewRows), own_rows_);
    }
    rows_parts_ = shares(m, own_rows_);
    panel_parts_ = shares(panels, own_panels_);
  }

  std::int64_t count() const { return rows_parts_ * panel_parts_; }
  // Rows innermost: panels come from memory once.
  PieceOfProduct operator[](std::int64_t i) const {
    const std::int64_t row = i % rows_parts_ * own_rows_, panel = i / rows_parts_ * own_panels_;
    return {row, static_cast<int>(std::min(own_rows_, m_ - row)), static_cast<int>(panel),
            static_cast<int>(std::min<std::int64_t>(panel + own_panels_, panels_))};
  }

 private:
  std::int64_t m_, panels_, own_rows_, own_panels_, rows_parts_, panel_parts_;
};

}  // namespace sepconv::nd
