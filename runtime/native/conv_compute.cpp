// What a planned convolution (conv.cpp) does with an image.
#include "conv.hpp"

namespace regrow {

void Conv::run(const Panel& panel, const Strips& strips, const float* from, const float* residual,
               float* out, const Place& place) const {
  const std::size_t plane = out_.plane();
  float* const first = out + out_.first();
  const auto finish = [&](std::size_t output, std::size_t begin) {
    return Finish{keep_.empty() ? nullptr : keep_.data() + begin,
                  residual ? residual + output * plane + out_.first() + begin : nullptr, low_, high_};
  };
  if (strips.kind == Kind::kNear) {
    kernels_.run_near(strips.channels, floats(place.tile.vectors), from, near_.data(), strips.each.data(),
                      strips.each.size(), outputs_.data(), plane, bias_.data(), panel.opens,
                      panel.closes, finish(0, place.begin), first + place.begin);
    return;
  }
  if (strips.kind == Kind::kFar) {
    kernels_.run(strips.channels, place.tile, from, entries_.data(), strips.each.data(),
                 strips.each.size(), outputs_.data(), plane, bias_.data(), panel.opens, panel.closes,
                 finish(0, place.begin), first + place.begin);
    return;
  }
  const std::size_t all = place.tile.vectors;
  const std::size_t pieces = (all + kernels_.block_tile - 1) / kernels_.block_tile;
  for (const Strip& strip : strips.each) {
    const std::size_t output = outputs_[strip.outputs];
    for (std::size_t i = 0; i < place.tile.rows * pieces; ++i) {
      const std::size_t row = i / pieces * place.tile.stride, piece = i % pieces;
      const std::size_t v = all * piece / pieces, w = all * (piece + 1) / pieces;
      const std::size_t begin = place.begin + row + v * 16;
      kernels_.run_block(w - v, from + row + v * 16, block_entries_.data() + strip.begin, strip.count,
                         bias_.data() + output, panel.opens, panel.closes, finish(output, begin),
                         first + output * plane + begin, plane);
    }
  }
}

void Conv::compute(const float* in, float* scratch, const float* residual, float* out,
                   std::size_t share, std::size_t stripe) const {
  const std::size_t part = parts_ > 1 ? share : 0;
  const std::size_t from_place = stripes_[stripe], places = stripes_[stripe + 1] - from_place;
  const std::size_t begin = from_place + places * part / parts_;
  const std::size_t end = from_place + places * (part + 1) / parts_;
  for (std::size_t i = begin; i < end; ++i) {
    const Place& place = places_[i];
    for (const Panel& panel : panels_[parts_ > 1 ? 0 : share]) {
      if (window_) {
        window_->fill(panel.pieces, in, place.begin, place.begin + floats(place.tile.vectors), kernels_,
                      scratch);
      }
      const float* from = window_ ? scratch : in + place.begin;
      for (const Strips& strips : panel.strips) run(panel, strips, from, residual, out, place);
    }
  }
}

}  // namespace regrow
