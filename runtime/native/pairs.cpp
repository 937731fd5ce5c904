#include "pairs.hpp"

#include <algorithm>
#include <bitset>
#include <limits>
#include <tuple>
#include <utility>

namespace regrow {

namespace {

// So many of about as many weights are looked at.
constexpr std::ptrdiff_t kCandidates = 32;

}  // namespace

std::size_t shared(const Reader& a, const Reader& b) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < a.bits.size(); ++i) {
    count += std::bitset<64>(a.bits[i] & b.bits[i]).count();
  }
  return count;
}

std::vector<Reader> pair_up(std::vector<Reader> readers, std::size_t vectors) {
  std::sort(readers.begin(), readers.end(), [](const Reader& a, const Reader& b) {
    return std::tie(a.kept, a.output) < std::tie(b.kept, b.output);
  });
  struct Pair {
    std::size_t shared, rest, one, other;
  };
  std::vector<Pair> pairs;
  std::vector<std::size_t> left;
  for (std::size_t i = 0; i < readers.size(); ++i) left.push_back(i);
  while (left.size() > 1) {
    const std::size_t one = left.back();
    left.pop_back();
    // In loads: a weight has those of a tile, an offset and a value. One that is shared saves a tile and an
    // offset, and zeros stand in for what the other has less.
    auto least = std::numeric_limits<std::ptrdiff_t>::max();
    std::size_t common = 0;
    auto best = left.end();
    for (auto other = left.end(); other > left.begin() && left.end() - other < kCandidates;) {
      --other;
      const std::size_t both = shared(readers[one], readers[*other]);
      const std::size_t zeros = readers[one].kept - readers[*other].kept;
      const std::ptrdiff_t cost = static_cast<std::ptrdiff_t>((vectors + 2) * zeros) -
                                  static_cast<std::ptrdiff_t>((vectors + 1) * both);
      if (cost < least) least = cost, best = other, common = both;
    }
    pairs.push_back({common, readers[one].kept - common, one, *best});
    left.erase(best);
  }
  std::sort(pairs.begin(), pairs.end(), [](const Pair& a, const Pair& b) {
    return std::tie(a.shared, a.rest, a.one) < std::tie(b.shared, b.rest, b.one);
  });
  std::vector<Reader> order;
  for (const Pair& pair : pairs) {
    order.push_back(std::move(readers[pair.one]));
    order.push_back(std::move(readers[pair.other]));
  }
  if (!left.empty()) order.push_back(std::move(readers[left.front()]));
  return order;
}

}  // namespace regrow
