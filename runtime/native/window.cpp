#include "window.hpp"

#include <algorithm>
#include <map>
#include <stdexcept>

namespace regrow {

namespace {

constexpr std::size_t kMostIndices = std::size_t{1} << 28;

}  // namespace

Window::Window(const ConvShape& shape, const Geometry& in, const Geometry& out, std::size_t tile,
               bool share, bool picks)
    : shape_(shape), in_(in), out_(out), shared_(out.row() % 16 == 0 || share),
      halo_(shared_ ? round_up(reach(shape.kernel[0] - 1) * out.row(), 16) : 0), floats_(tile + halo_),
      flat_(is_flat()) {
  const ConvShape& s = shape_;
  std::map<std::ptrdiff_t, std::size_t> rows;  // which are read, and their first kinds
  for (std::size_t y = 0; y < s.kernel[0]; ++y) {
    const std::size_t at = y * s.dilation[0];
    const auto row = static_cast<std::ptrdiff_t>(shared_ ? at % s.stride[0] : at) -
                     static_cast<std::ptrdiff_t>(s.padding[0]);
    const auto [found, fresh] = rows.emplace(row, kinds_.size());
    kinds_of_.push_back(found->second);
    for (std::size_t x = 0; x < s.kernel[1] && fresh; ++x) kinds_.push_back({row, x});
  }
  const std::size_t pixels = (round_up(out_.run(), 16) + floats_) / out_.lanes;
  if ((flat_ ? s.kernel[1] * floats_ : kinds_.size() * pixels) > kMostIndices) {
    throw std::invalid_argument("a convolution with too large a kernel for its output");
  }
  if (flat_) {
    for (std::size_t x = 0; x < s.kernel[1]; ++x) add_mask(x);
  } else {
    for (const Kind& kind : kinds_) add_indices(kind, pixels);
    if (picks && out_.lanes == 1) add_picks();
  }
}

// Rows outside the image must be zeros in memory, and columns must lie within what is around it.
bool Window::is_flat() const {
  const ConvShape& s = shape_;
  const std::size_t below = (s.kernel[0] - 1) * s.dilation[0];
  const std::size_t right = (s.kernel[1] - 1) * s.dilation[1];
  const std::size_t side = std::max(s.padding[1], right - std::min(s.padding[1], right));
  return s.stride[0] == 1 && s.stride[1] == 1 && in_.row() == out_.row() && in_.left == 0 &&
         in_.height == out_.height && in_.top >= s.padding[0] && in_.top + s.padding[0] >= below &&
         side * in_.lanes + 16 <= kSlack;
}

// Which floats of a run lie within a row after the shift. It repeats with every row, and a tile
// begins anywhere in one.
void Window::add_mask(std::size_t column) {
  const std::size_t start = masks_.size();
  masks_.resize(start + round_up(in_.row() + floats_, 16), 0.0f);
  for (std::size_t i = start; i < masks_.size(); ++i) {
    const std::ptrdiff_t x =
        static_cast<std::ptrdiff_t>((i - start) % in_.row() / in_.lanes) + shift(column);
    if (x >= 0 && x < static_cast<std::ptrdiff_t>(in_.width)) masks_[i] = all_bits();
  }
}

void Window::add_indices(const Kind& kind, std::size_t pixels) {
  const std::size_t columns = out_.row() / out_.lanes;
  const auto height = static_cast<std::ptrdiff_t>(in_.height);
  const auto width = static_cast<std::ptrdiff_t>(in_.width);
  for (std::size_t i = 0; i < pixels; ++i) {
    const auto y = static_cast<std::ptrdiff_t>(i / columns * shape_.stride[0]) + kind.row;
    const auto x = static_cast<std::ptrdiff_t>(i % columns * shape_.stride[1]) + shift(kind.column);
    const bool inside = y >= 0 && y < height && x >= 0 && x < width;
    const auto at = static_cast<std::ptrdiff_t>(in_.first()) +
                    y * static_cast<std::ptrdiff_t>(in_.row()) +
                    x * static_cast<std::ptrdiff_t>(in_.lanes);
    indices_.push_back(inside ? static_cast<std::int32_t>(at) : -1);
  }
}

// Strides of two and rows shorter than a vector fit; where any 16 pixels do not, there are no picks.
void Window::add_picks() {
  for (std::size_t first = 0; first < indices_.size(); first += 16) {
    Pick pick{};
    unsigned left = 0;  // a bit for each pixel of the image
    for (std::size_t i = 0; i < 16; ++i) left |= (indices_[first + i] >= 0 ? 1u : 0u) << i;
    for (std::size_t place = 0; place < 2; ++place) {
      for (std::size_t i = 0; i < 16; ++i) {
        if (!(left >> i & 1)) continue;
        const std::int32_t at = indices_[first + i];
        if (!pick.lanes[place]) pick.from[place] = at;
        const std::int32_t number = at - pick.from[place];
        if (number < 0 || number >= 32) continue;
        pick.lanes[place] = static_cast<std::uint16_t>(pick.lanes[place] | 1u << i);
        pick.numbers[i] = static_cast<std::uint8_t>(number);
        left &= ~(1u << i);
      }
    }
    if (left) {
      picks_.clear();
      return;
    }
    picks_.push_back(pick);
  }
  indices_.clear();
}

std::size_t Window::kind(std::size_t row, std::size_t column) const {
  return kinds_of_[row] + column;
}

Piece Window::piece(std::size_t channel, std::size_t index, std::size_t to) const {
  const Kind& kind = kinds_[index];
  const auto plane = static_cast<std::ptrdiff_t>(channel * in_.plane());
  if (!flat_) return {plane, index * (std::max(indices_.size(), picks_.size()) / kinds_.size()), to};
  const auto from = plane + static_cast<std::ptrdiff_t>(in_.first()) +
                    kind.row * static_cast<std::ptrdiff_t>(in_.row()) +
                    shift(kind.column) * static_cast<std::ptrdiff_t>(in_.lanes);
  return {from, kind.column * (masks_.size() / shape_.kernel[1]), to};
}

void Window::fill(const std::vector<Piece>& pieces, const float* in, std::size_t begin,
                  std::size_t end, const Kernels& kernels, float* to) const {
  const std::size_t floats = end - begin + halo_;
  if (flat_) {
    kernels.copy_masked(pieces.data(), pieces.size(), floats / 16, in + begin,
                        masks_.data() + begin % in_.row(), to);
  } else if (!picks_.empty()) {
    kernels.copy_picked(pieces.data(), pieces.size(), floats / 16, in, picks_.data() + begin / 16, to);
  } else {
    kernels.copy_gathered(pieces.data(), pieces.size(), floats / out_.lanes, out_.lanes, in,
                          indices_.data() + begin / out_.lanes, to);
  }
}

}  // namespace regrow
