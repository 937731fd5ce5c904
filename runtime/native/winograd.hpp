// A dense or nearly dense convolution of 3 x 3 and stride 1 by Winograd's minimal filtering.
//
// F(4 x 4, 3 x 3): a tile of 6 x 6 pixels of each channel is carried to 36 points, where the sum over
// channels is a product of matrices, one for each point; the way back gives 4 x 4 pixels of the output.
// That takes a quarter of the dense multiply-adds (Lavin and Gray, Fast algorithms for convolutional
// neural networks, 2016), so that removed weights do not pay where few are. Of the points of
// interpolation, 0, +-5/8, +-3/2 and infinity lose half a digit; the usual 0, +-1, +-2 lose one.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "convolution.hpp"
#include "geometry.hpp"
#include "kernels.hpp"

namespace regrow {

class Winograd : public Convolution {
 public:
  // Whether it is the faster way; images side by side fill up what tiles of one would not.
  static bool pays(const ConvWeights& weights, const Geometry& out, const Kernels& kernels);

  Winograd(const ConvWeights& weights, const Geometry& in, const Geometry& out, float low, float high,
           const Kernels& kernels, std::size_t shares);

  std::size_t scratch_size() const override;
  void compute(const float* in, float* scratch, const float* residual, float* out,
               std::size_t share, std::size_t stripe) const override;
  double useful() const override { return useful_; }
  std::size_t bytes() const override { return weights_.size() * sizeof(float); }

 private:
  // Stripes of so many rows and columns of tiles: where their tiles are read from the rows at the points,
  // and written among the pixels that come back.
  struct Extent {
    std::size_t rows, columns;
    std::size_t groups;  // of 16 tiles or images of tiles
    std::vector<std::int32_t> read, written;
  };
  // What is computed at once.
  struct Stripe {
    std::size_t row, column;  // the first, in tiles
    std::size_t extent;
  };
  // Output channels whose products are kept at once.
  struct Chunk {
    std::size_t begin, blocks;  // of kWide outputs
  };

  void cut(std::size_t shares);
  std::size_t extent(std::size_t rows, std::size_t columns);
  void transform(const std::vector<float>& weights);
  void forth(const Stripe& stripe, const float* in, float* rows, float* points) const;
  void back(const Stripe& stripe, const Chunk& chunk, const float* products, float* pixels,
            const float* residual, float* out) const;

  std::size_t pitch_in() const { return round_up((4 * widest_ + 2) * out_.lanes, 16) + 16; }
  std::size_t pitch_out() const { return 4 * widest_ * out_.lanes + 16; }
  // From one point to the next; the 16 floats keep them out of each other's cache lines.
  std::size_t step(std::size_t channels, std::size_t groups) const {
    return channels * groups * 16 + 16;
  }

  ConvShape shape_;
  Geometry in_, out_;
  const Kernels& kernels_;
  float low_, high_;
  std::size_t across_, down_;  // tiles of an image
  bool quads_ = false;         // four tiles in a row lie side by side in a stripe
  std::size_t highest_ = 0, widest_ = 0, groups_ = 0;  // of a stripe, at most
  std::size_t parts_ = 1;      // of the chunks, that shares take where stripes are too few
  std::vector<Extent> extents_;
  std::vector<Stripe> stripes_;
  std::vector<Chunk> chunks_;
  std::size_t share_count_;
  std::vector<float> weights_;  // by chunk, point, block, channel and output of the block
  std::vector<float> bias_, mask_, zeros_;
  double useful_ = 0;
};

}  // namespace regrow
