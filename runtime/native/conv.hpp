// A convolution that skips its removed weights.
#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

#include "convolution.hpp"
#include "geometry.hpp"
#include "kernels.hpp"
#include "pairs.hpp"
#include "window.hpp"

namespace regrow {

class Conv : public Convolution {
 public:
  // The work is cut into `shares`: of the image where the weights are less to read than the pixels, so
  // that each thread finds most of its input where it wrote it, or else of the output channels.
  Conv(const ConvWeights& weights, const Geometry& in, const Geometry& out, float low, float high,
       const Kernels& kernels, std::size_t shares);

  // 0 where the input can be read as it is.
  std::size_t scratch_size() const override { return scratch_size_; }
  void compute(const float* in, float* scratch, const float* residual, float* out,
               std::size_t share, std::size_t stripe) const override;
  std::optional<std::size_t> below() const override;
  void cut(const std::vector<std::size_t>& rows) override;
  double useful() const override { return useful_; }
  std::size_t bytes() const override {
    return entries_.size() * sizeof(Entry) + near_.size() * sizeof(float) +
           block_entries_.size() * sizeof(BlockEntry) +
           (window_ ? window_->bytes() : 0);
  }

 private:
  enum class Kind : std::uint8_t { kFar, kNear, kBlock };
  // Strips of so many output channels whose entries take turns, with offsets of 32 or 16 bits, or of
  // blocks.
  struct Strips {
    Kind kind;
    std::size_t channels;
    std::vector<Strip> each;
  };
  // What some input channels of a group add to those of its output channels that a share has.
  struct Panel {
    bool opens, closes;  // it is the first, the last of its outputs
    std::vector<Strips> strips;
    void add(Kind kind, std::size_t channels, const Strip& strip);
    Pieces pieces;  // of the window
  };
  struct Span {
    std::size_t begin, end;
  };
  // A tile of the output, and where it begins, in floats behind the first pixel.
  struct Place {
    std::size_t begin;
    Tile tile;
    std::size_t end() const { return begin + (tile.rows - 1) * tile.stride + tile.vectors * 16; }
  };

  void choose_blocks(const ConvWeights& weights);
  std::vector<Span> chunks(double each) const;
  std::vector<std::size_t> cut(const ConvWeights& weights, std::size_t shares) const;
  Panel panel(const ConvWeights& weights, std::size_t group, Span inputs, Span outputs);
  std::vector<std::int32_t> offsets(const ConvWeights& weights, std::size_t group, Span inputs,
                                    Span outputs, Panel& panel);
  // Of so many outputs, which take turns.
  void add_singles(const ConvWeights& weights, const Reader* readers, std::size_t channels,
                   Span inputs, const std::vector<std::int32_t>& at, Panel& panel);
  void add_block(const ConvWeights& weights, std::uint32_t output, Span inputs,
                 const std::vector<std::int32_t>& at, Panel& panel);
  void choose_tiles();
  std::size_t floats(std::size_t vectors) const { return few_ ? few_ : vectors * 16; }  // of a tile
  void run(const Panel& panel, const Strips& strips, const float* from, const float* residual,
           float* out, const Place& place) const;

  ConvShape shape_;
  Geometry in_, out_;
  const Kernels& kernels_;
  float low_, high_;
  bool direct_;                // the input can be read as it is
  std::vector<Place> places_;
  std::vector<std::size_t> stripes_;  // the number of places before each
  std::size_t parts_ = 1;      // of the image
  std::size_t widest_ = 0;     // vectors of a tile
  std::size_t few_ = 0;        // or the floats of the only one, 4 or 8, where no more are pixels
  std::vector<float> bias_, keep_;
  std::optional<Window> window_;  // if not direct
  std::size_t scratch_size_ = 0;
  std::vector<bool> block_;              // by output: it belongs to a block
  std::vector<std::vector<Panel>> panels_;  // by share
  std::vector<std::uint32_t> outputs_;
  std::vector<Entry> entries_;
  std::vector<float> near_;  // NearEntries of as many channels as each strip has
  std::vector<BlockEntry> block_entries_;
  double useful_ = 0;
};

}  // namespace regrow
