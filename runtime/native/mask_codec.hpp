// Positions of kept weights. A tensor is read as rows (output channels) of columns (input
// channels) of kernels of a few weights. A bit says whether a kernel keeps anything, in the context
// of how full its row and its column have been so far, since pruned networks are uneven in both;
// then the kernel's own bits follow, each in the context of its place and of those before it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "range_coder.hpp"

namespace regrow {

struct Grid {
  std::size_t rows, columns, inner;  // inner is at most kMostInner

  static constexpr std::size_t kMostInner = 64;
};

namespace mask_detail {

// log2(n) in 1/16, for n >= 1; integers only.
inline int log2_16(std::uint32_t n) {
  int whole = 0;
  for (const int step : {16, 8, 4, 2, 1}) {
    if (n >> (whole + step)) whole += step;
  }
  const std::uint32_t part = whole >= 5 ? (n >> (whole - 5)) & 31 : (n << (5 - whole)) & 31;
  // round(16 * log2(1 + part / 32))
  static constexpr std::uint8_t kTable[32] = {0,  1,  1,  2,  3,  3,  4,  5,  5,  6,  6,
                                              7,  7,  8,  8,  9,  9,  10, 10, 11, 11, 12,
                                              12, 13, 13, 13, 14, 14, 15, 15, 15, 16};
  return whole * 16 + kTable[part];
}

// How often something happened, with a prior, as 16 * log2 of a rate.
struct Rate {
  std::uint32_t hits = 0, tries = 0;
};

// The walk over a grid that encoder and decoder share: `code(bit, position)` codes the keep bit at
// a position, and returns it; `whole(bit)` codes whether a kernel keeps anything.
class Contexts {
 public:
  explicit Contexts(Grid grid)
      : grid_(grid), columns_(grid.rows < kFewestRows ? 0 : grid.columns) {}

  template <typename Kernel, typename Weight>
  void walk(Kernel kernel, Weight weight) {
    for (std::size_t row = 0; row < grid_.rows; ++row) {
      Rate own{};
      const int every = log2_16(all_.hits * 2 + 1) - log2_16(all_.tries * 2 + 2);
      for (std::size_t column = 0; column < grid_.columns; ++column) {
        const std::size_t start = (row * grid_.columns + column) * grid_.inner;
        int level = drawn(own, every);
        if (!columns_.empty()) {
          level += drawn({columns_[column], static_cast<std::uint32_t>(row)}, every) - every;
        }
        const bool any = kernel(any_[bucket(level)], start);
        count(own, any);
        count(all_, any);
        if (!columns_.empty()) columns_[column] += any;
        if (any && grid_.inner > 1) inside(start, level, weight);
      }
    }
  }

 private:
  static constexpr int kBuckets = 64;
  static constexpr std::uint32_t kPrior = 6;
  // Below this many rows a column's own rate tells little, and its counts would outweigh the mask.
  static constexpr std::size_t kFewestRows = 8;

  static void count(Rate& rate, bool hit) {
    rate.hits += hit;
    ++rate.tries;
  }

  // 16 * log2 of a rate that is drawn towards the rate of all by a few imagined tries. A kernel is
  // expected to keep something at its row's rate times its column's over the rate of all.
  static int drawn(const Rate& rate, int every) {
    const int shift = std::min(-every / 16, 20);
    const std::uint32_t part = static_cast<std::uint32_t>(std::max(0, every + 16 * shift + 16));
    const std::uint32_t imagined = ((kPrior * 64) * (16 + part) / 32) >> shift;
    const std::uint32_t scaled = std::min<std::uint32_t>(rate.hits, 1u << 24) * 64;
    return log2_16(scaled + imagined + 1) - log2_16(rate.tries + kPrior) - 6 * 16;
  }

  static int bucket(int level) { return std::clamp(-level / 3, 0, kBuckets - 1); }

  template <typename Weight>
  void inside(std::size_t start, int level, Weight weight) {
    const int fullness = std::clamp(-level / 16, 0, kFullness - 1);
    unsigned seen = 0;
    for (std::size_t i = 0; i < grid_.inner; ++i) {
      // Of a kernel that keeps something the last weight is known if all others are removed.
      const bool known = seen == 0 && i + 1 == grid_.inner;
      Bit& bit = weights_[fullness][std::min(seen, 3u)][i];
      const bool kept = weight(known ? nullptr : &bit, start + i);
      seen += kept;
    }
  }

  static constexpr int kFullness = 6;
  Grid grid_;
  std::vector<std::uint32_t> columns_;  // hits of each; its tries are the rows before this one
  Rate all_{};
  Bit any_[kBuckets];
  Bit weights_[kFullness][4][Grid::kMostInner];
};

}  // namespace mask_detail

inline std::vector<std::uint8_t> encode_mask(const std::uint8_t* keep, Grid grid) {
  Encoder coder;
  mask_detail::Contexts contexts(grid);
  contexts.walk(
      [&](Bit& bit, std::size_t start) {
        const std::uint8_t* kernel = keep + start;
        const bool any = std::any_of(kernel, kernel + grid.inner, [](auto k) { return k != 0; });
        coder.put(bit, any);
        return any;
      },
      [&](Bit* bit, std::size_t position) {
        if (bit) coder.put(*bit, keep[position] != 0);
        return keep[position] != 0;
      });
  return coder.finish();
}

// Writes 0 or 1 for every position and returns how many are kept.
inline std::size_t decode_mask(const std::uint8_t* data, std::size_t size, Grid grid,
                               std::uint8_t* keep) {
  Decoder coder(data, size);
  mask_detail::Contexts contexts(grid);
  std::size_t kept = 0;
  contexts.walk(
      [&](Bit& bit, std::size_t start) {
        const bool any = coder.get(bit);
        std::fill_n(keep + start, grid.inner, std::uint8_t{0});
        if (any && grid.inner == 1) keep[start] = 1, ++kept;
        return any;
      },
      [&](Bit* bit, std::size_t position) {
        const bool one = bit ? coder.get(*bit) : true;
        keep[position] = one;
        kept += one;
        return one;
      });
  coder.finish();
  return kept;
}

}  // namespace regrow
