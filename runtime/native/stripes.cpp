// Chains of steps that go through their rows in stripes.
//
// A value of sixteen large images is more than the second cache holds: written as a whole, it must be
// fetched from further away to be read. Steps that follow each other, each of which reads what the one
// before it wrote, take turns instead: some rows of the first, those rows of the second that can be
// computed from them, and so on.
#include <algorithm>

#include "program.hpp"

namespace regrow {

namespace {

// Floats of all values of a chain in a stripe; so many are passed on as a whole.
constexpr std::size_t kStripe = 128 * 1024, kWhole = 384 * 1024;

}  // namespace

// Behind the last step of the chain that begins with a step. No buffer is written that others of the
// chain still read.
std::size_t Program::chain(std::size_t first) const {
  std::vector<std::size_t> used;
  std::size_t end = first;
  for (; end < steps_.size() && steps_[end].rows; ++end) {
    const Rows& rows = *steps_[end].rows;
    if (end > first) {
      const Rows& before = *steps_[end - 1].rows;
      if (!(rows.from == before.to) || before.floats <= kWhole) break;
      if (std::find(used.begin(), used.end(), rows.to.buffer) != used.end()) break;
    }
    used.push_back(rows.from.buffer);
    used.push_back(rows.to.buffer);
    if (rows.residual >= 0) used.push_back(static_cast<std::size_t>(rows.residual));
  }
  return std::max(end, first + 1);
}

// Of each step of a chain up to which row it is computed in each stripe.
std::vector<std::vector<std::size_t>> Program::limits(std::size_t first, std::size_t end) const {
  std::size_t floats = 0;
  for (std::size_t i = first; i < end; ++i) floats += steps_[i].rows->floats;
  const std::size_t height = steps_[end - 1].rows->to.height;
  const std::size_t count = std::min(height, (floats + kStripe - 1) / kStripe);
  std::vector<std::vector<std::size_t>> found(end - first, std::vector<std::size_t>(count));
  for (std::size_t stripe = 0; stripe < count; ++stripe) {
    std::size_t rows = height * (stripe + 1) / count;
    for (std::size_t i = end; i-- > first;) {
      const Rows& step = *steps_[i].rows;
      rows = stripe + 1 == count ? step.to.height : std::min(rows, step.to.height);
      found[i - first][stripe] = rows;
      rows = rows * step.stride + step.below;
    }
  }
  return found;
}

void Program::finish() {
  turns_.clear();
  for (std::size_t first = 0; first < steps_.size();) {
    const std::size_t end = shares_ == 1 ? chain(first) : first + 1;
    std::size_t stripes = 1;
    if (end > first + 1) {
      const std::vector<std::vector<std::size_t>> rows = limits(first, end);
      stripes = rows.front().size();
      for (std::size_t i = first; i < end; ++i) steps_[i].rows->cut(rows[i - first]);
    }
    for (std::size_t stripe = 0; stripe < stripes; ++stripe) {
      for (std::size_t i = first; i < end; ++i) turns_.push_back({i, stripe});
    }
    first = end;
  }
}

}  // namespace regrow
