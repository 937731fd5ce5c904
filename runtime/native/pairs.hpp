// Outputs that are computed side by side, two and two, so that they share what they read.
//
// A weight that is met once loads all pixels of its tile, and a processor that multiplies as fast as it
// loads waits for that. Where two outputs both have a weight for the same pixels, one load does for both,
// and any two may be computed together: even of masks that know nothing of each other, the best of a few
// dozen candidates overlap far more than two at random.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace regrow {

// An output, and which places of a panel it has weights for.
struct Reader {
  std::uint32_t output;
  std::size_t kept = 0;
  std::vector<std::uint64_t> bits{};  // 64 places to each

  Reader(std::uint32_t output, std::size_t places) : output(output), bits((places + 63) / 64) {}
  void add(std::size_t place) {
    ++kept;
    bits[place / 64] |= std::uint64_t{1} << place % 64;
  }
  bool has(std::size_t place) const { return bits[place / 64] >> place % 64 & 1; }
};

// How many places two have in common.
std::size_t shared(const Reader& a, const Reader& b);

// The outputs, each two that share a step side by side, and pairs that are alike near each other; one is
// left at the end where their number is odd. Tiles have so many vectors.
std::vector<Reader> pair_up(std::vector<Reader> readers, std::size_t vectors);

}  // namespace regrow
