// Convolutions, prepared for one geometry.
#pragma once

#include <cstddef>
#include <memory>
#include <optional>
#include <vector>

#include "geometry.hpp"
#include "kernels.hpp"

namespace regrow {

struct ConvShape {
  std::size_t channels, outputs, groups;
  std::size_t kernel[2], stride[2], padding[2], dilation[2];
};

// Weights (outputs, channels / groups, kernel rows, kernel columns) and biases; zeros are removed.
struct ConvWeights {
  ConvShape shape;
  std::vector<float> weights, bias;
};

// How many of so many weights are not removed.
std::size_t nonzeros(const float* weights, std::size_t count);

class Convolution {
 public:
  virtual ~Convolution() = default;

  // Floats of scratch memory that each share needs.
  virtual std::size_t scratch_size() const = 0;

  // Computes a share of the output, or of a stripe of it. `residual`, if any, has the output's geometry.
  virtual void compute(const float* in, float* scratch, const float* residual, float* out,
                       std::size_t share, std::size_t stripe) const = 0;

  // Whether the output can be cut in stripes: up to the first of some rows, from there to the second, and
  // so on. Then, how many more rows of the input than of the output must be there for that.
  virtual std::optional<std::size_t> below() const { return std::nullopt; }
  virtual void cut(const std::vector<std::size_t>&) {}

  // Multiply-adds of the kept weights for one image.
  virtual double useful() const = 0;

  virtual std::size_t bytes() const = 0;
};

// The faster of the ways to compute a convolution; sums are clamped between `low` and `high`.
std::unique_ptr<Convolution> make_convolution(const ConvWeights& weights, const Geometry& in,
                                              const Geometry& out, float low, float high,
                                              const Kernels& kernels, std::size_t shares);

}  // namespace regrow
