#include "window.hpp"

#include <algorithm>
#include <optional>
#include <stdexcept>

namespace regrow {

namespace {

constexpr std::size_t kMostIndices = std::size_t{1} << 28;

}  // namespace

Window::Window(const ConvShape& shape, const Geometry& in, const Geometry& out, std::size_t tile,
               bool share, bool picks)
    : shape_(shape), in_(in), out_(out), tile_(tile), flat_(is_flat()) {
  find_kinds(share);
  const std::size_t pixels = (round_up(out_.run(), 16) + round_up(tile_ + halo_, 16)) / out_.lanes;
  if ((flat_ ? shape.kernel[1] * (tile_ + halo_) : kinds_.size() * pixels) > kMostIndices) {
    throw std::invalid_argument("a convolution with too large a kernel for its output");
  }
  if (flat_) {
    for (std::size_t x = 0; x < shape.kernel[1]; ++x) add_mask(x);
  } else {
    for (const Kind& kind : kinds_) add_indices(kind, pixels);
    if (picks && out_.lanes == 1) add_picks();
  }
}

void Window::find_kinds(bool share) {
  const ConvShape& s = shape_;
  for (std::size_t y = 0; y < s.kernel[0]; ++y) {
    // From an earlier row's pixels to this one's, in floats, if they can share pieces.
    const auto down = [&](std::size_t above) -> std::optional<std::size_t> {
      const std::size_t apart = (y - above) * s.dilation[0];
      const std::size_t floats = apart / s.stride[0] * out_.row();
      if (apart % s.stride[0] == 0 && (share || floats % 16 == 0)) return floats;
      return std::nullopt;
    };
    std::size_t above = 0;  // It is the first of its kinds, since those that share are all alike.
    while (above < y && !down(above)) ++above;
    if (above == y) {
      const auto row = static_cast<std::ptrdiff_t>(y * s.dilation[0]) -
                       static_cast<std::ptrdiff_t>(s.padding[0]);
      rows_.push_back({kinds_.size(), 0});
      for (std::size_t x = 0; x < s.kernel[1]; ++x) kinds_.push_back({row, x, 0});
      continue;
    }
    const std::size_t kind = rows_[above].kind, offset = *down(above), halo = round_up(offset, 4);
    rows_.push_back({kind, offset});
    for (std::size_t x = 0; x < s.kernel[1]; ++x) kinds_[kind + x].halo = halo;
    halo_ = std::max(halo_, halo);
  }
}

std::size_t Window::floats() const {
  std::size_t sum = 0;
  for (const Kind& kind : kinds_) sum += tile_ + kind.halo;
  return sum;
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
  masks_.resize(start + round_up(in_.row(), 16) + round_up(tile_ + halo_, 16), 0.0f);
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

Pieces Window::pieces(std::size_t first, const std::vector<bool>& read, std::vector<std::int32_t>& at,
                      std::size_t& floats) const {
  const std::size_t rows = shape_.kernel[0], columns = shape_.kernel[1], inner = rows * columns;
  Pieces made(kinds_.size());
  at.assign(read.size(), 0);
  floats = 0;
  for (std::size_t k = 0; k < kinds_.size(); ++k) {
    const Kind& kind = kinds_[k];
    for (std::size_t c = 0; c < read.size() / inner; ++c) {
      bool any = false;
      for (std::size_t y = 0; y < rows; ++y) {
        if (rows_[y].kind + kind.column != k) continue;
        const std::size_t place = c * inner + y * columns + kind.column;
        any = any || read[place];
        at[place] = static_cast<std::int32_t>(floats + rows_[y].offset);
      }
      if (!any) continue;
      auto from = static_cast<std::ptrdiff_t>((first + c) * in_.plane());
      if (flat_) {
        from += static_cast<std::ptrdiff_t>(in_.first()) +
                kind.row * static_cast<std::ptrdiff_t>(in_.row()) +
                shift(kind.column) * static_cast<std::ptrdiff_t>(in_.lanes);
      }
      made[k].push_back({from, floats});
      floats += tile_ + kind.halo;
    }
  }
  floats += 16;  // Pieces are written in whole vectors, and what comes behind one is written later.
  return made;
}

void Window::fill(const Pieces& pieces, const float* in, std::size_t begin, std::size_t end,
                  const Kernels& kernels, float* to) const {
  for (std::size_t k = 0; k < kinds_.size(); ++k) {
    const Kind& kind = kinds_[k];
    const std::size_t floats = end - begin + kind.halo, vectors = (floats + 15) / 16;
    const Piece* const each = pieces[k].data();
    const std::size_t count = pieces[k].size();
    if (flat_) {
      const float* masks = masks_.data() + kind.column * (masks_.size() / shape_.kernel[1]);
      kernels.copy_masked(each, count, vectors, in + begin, masks + begin % in_.row(), to);
    } else if (!picks_.empty()) {
      const Pick* picks = picks_.data() + k * (picks_.size() / kinds_.size());
      kernels.copy_picked(each, count, vectors, in, picks + begin / 16, to);
    } else {
      const std::int32_t* indices = indices_.data() + k * (indices_.size() / kinds_.size());
      kernels.copy_gathered(each, count, floats / out_.lanes, out_.lanes, in,
                            indices + begin / out_.lanes, to);
    }
  }
}

}  // namespace regrow
