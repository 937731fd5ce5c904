#include "across.hpp"

#include <algorithm>

namespace regrow {

namespace {

constexpr std::size_t kPlaces = 9;

}  // namespace

bool Across::pays(const ConvWeights& given, const Geometry& in, const Geometry& out,
                  const Kernels& kernels) {
  const ConvShape& s = given.shape;
  for (std::size_t axis = 0; axis < 2; ++axis) {
    if (s.kernel[axis] != 3 || s.stride[axis] != 1 || s.padding[axis] != 1 || s.dilation[axis] != 1) {
      return false;
    }
  }
  if (s.groups != 1 || in.lanes != 1 || out.height != out.width || out.width < 2 ||
      out.width > kMostAcross) {
    return false;
  }
  const auto kept = static_cast<double>(nonzeros(given.weights.data(), given.weights.size()));
  const std::size_t all = round_up(s.outputs, kAcross) * s.channels * kPlaces;
  return kept > kernels.across_density * static_cast<double>(all);
}

Across::Across(const ConvWeights& given, const Geometry& in, const Geometry& out, float low, float high,
               const Kernels& kernels, std::size_t shares)
    : shape_(given.shape), in_(in), out_(out), kernels_(kernels), low_(low), high_(high),
      share_count_(std::max<std::size_t>(1, shares)), bias_(given.bias) {
  const std::size_t fan = shape_.channels * kPlaces;
  for (std::size_t block = 0; block < blocks(); ++block) {
    starts_.push_back(values_.size());
    const std::size_t first = block * kAcross, last = std::min(first + kAcross, shape_.outputs);
    for (std::size_t i = 0; i < fan; ++i) {
      unsigned mask = 0;
      for (std::size_t o = first; o < last; ++o) {
        const float weight = given.weights[o * fan + i];
        if (weight == 0) continue;
        mask |= 1u << (o - first);
        values_.push_back(weight);
      }
      masks_.push_back(static_cast<std::uint16_t>(mask));
    }
  }
  useful_ = static_cast<double>(values_.size() * out_.height * out_.width);
}

void Across::compute(const float* in, float*, const float* residual, float* out,
                     std::size_t share, std::size_t) const {
  alignas(64) float sums[kMostAcross * kMostAcross * kAcross];
  const std::size_t fan = shape_.channels * kPlaces;
  const std::size_t begin = blocks() * share / share_count_, end = blocks() * (share + 1) / share_count_;
  for (std::size_t block = begin; block < end; ++block) {
    kernels_.sum_across(out_.width, in + in_.first(), in_.row(), in_.plane(), shape_.channels,
                        masks_.data() + block * fan, values_.data() + starts_[block], sums);
    const std::size_t first = block * kAcross, count = std::min(kAcross, shape_.outputs - first);
    for (std::size_t o = 0; o < count; ++o) {
      for (std::size_t y = 0; y < out_.height; ++y) {
        const std::size_t at = (first + o) * out_.plane() + out_.first() + y * out_.row();
        for (std::size_t x = 0; x < out_.width; ++x) {
          float v = sums[(y * out_.width + x) * kAcross + o] + bias_[first + o];
          if (residual) v += residual[at + x];
          v = v < low_ ? low_ : v;
          out[at + x] = v > high_ ? high_ : v;
        }
      }
    }
  }
}

}  // namespace regrow
