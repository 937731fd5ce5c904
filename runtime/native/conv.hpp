// A convolution with removed weights, prepared for one geometry.
#pragma once

#include <cstddef>
#include <cstdint>
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

class Conv {
 public:
  // Output channels are cut into `shares` of about equal work.
  Conv(const ConvWeights& weights, const Geometry& in, const Geometry& out, float low, float high,
       const Kernels& kernels, std::size_t shares);

  // Floats of scratch memory that `gather` fills; 0 where the input can be read as it is.
  std::size_t scratch_size() const { return scratch_size_; }

  // Copies a share of the input so that strides and foreign row lengths vanish.
  void gather(const float* in, float* scratch, std::size_t share) const;

  // Computes a share of the output channels. `residual`, if any, has the output's geometry.
  void compute(const float* in, const float* scratch, const float* residual, float* out,
               std::size_t share) const;

  // Multiply-adds of the kept weights for one image.
  double useful() const { return useful_; }

  std::size_t bytes() const {
    return entries_.size() * sizeof(Entry) + block_entries_.size() * sizeof(BlockEntry);
  }

 private:
  // Entries of some output channels for some input channels.
  struct Strip {
    std::uint32_t output;
    bool block;
    std::uint32_t begin, count;  // of the entries
  };
  struct Chunk {
    std::vector<Strip> strips;  // by output, the same in every chunk
  };

  void plan_gather(const ConvShape& shape);
  void choose_chunks(const ConvWeights& weights);
  void fill(const ConvWeights& weights);
  void cut(std::size_t shares, const std::vector<double>& costs);
  std::int32_t offset(std::size_t channel, std::size_t row, std::size_t column) const;

  ConvShape shape_;
  Geometry in_, out_;
  const Kernels& kernels_;
  float low_, high_;
  std::vector<float> bias_, keep_;
  std::size_t scratch_size_ = 0, phase_rows_ = 0, phase_plane_ = 0;
  std::vector<std::size_t> phases_;  // those that some weight reads: row phase * stride + column's
  std::vector<std::int32_t> phase_index_;
  std::vector<std::size_t> chunk_ends_;  // input channels of a group
  std::vector<Chunk> chunks_;
  std::vector<Entry> entries_;
  std::vector<BlockEntry> block_entries_;
  std::vector<std::size_t> starts_;  // the first strip of each share, and the end
  double useful_ = 0;
};

}  // namespace regrow
