// A convolution of 3 x 3 over an image of few pixels, its outputs side by side in a register.
//
// Where an image has no more pixels than a register has room for, each weight is used once, and reading
// where its pixels lie takes as long as the weight. Here those of 16 outputs at a place of the kernel
// are expanded from the kept ones, by a mask, and multiplied by all pixels that they meet: places
// outside the image cost nothing, which in 2 x 2 pixels are more than half.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "convolution.hpp"
#include "geometry.hpp"
#include "kernels.hpp"

namespace regrow {

class Across : public Convolution {
 public:
  // Whether it is the faster way.
  static bool pays(const ConvWeights& weights, const Geometry& in, const Geometry& out,
                   const Kernels& kernels);

  Across(const ConvWeights& weights, const Geometry& in, const Geometry& out, float low, float high,
         const Kernels& kernels, std::size_t shares);

  std::size_t scratch_size() const override { return 0; }
  void compute(const float* in, float* scratch, const float* residual, float* out,
               std::size_t share, std::size_t stripe) const override;
  double useful() const override { return useful_; }
  std::size_t bytes() const override {
    return values_.size() * sizeof(float) + masks_.size() * sizeof(std::uint16_t);
  }

 private:
  std::size_t blocks() const { return (shape_.outputs + kAcross - 1) / kAcross; }

  ConvShape shape_;
  Geometry in_, out_;
  const Kernels& kernels_;
  float low_, high_;
  std::size_t share_count_;
  std::vector<std::uint16_t> masks_;  // by block of outputs, channel and place of the kernel
  std::vector<float> values_;         // of the kept weights, in this order
  std::vector<std::size_t> starts_;   // in the values, of each block
  std::vector<float> bias_;
  double useful_;
};

}  // namespace regrow
