// A tile's input, laid out anew so that every place of the kernel reads whole, aligned vectors.
//
// Read where they are, runs of pixels that are shifted by a column begin in the middle of a vector,
// and every load of them touches two cache lines. A piece holds a channel's pixels as one column of
// the kernel sees them, zero outside the image. Rows of the kernel share it where they lie a whole
// number of vectors apart, or where few weights read it. Strides vanish on the way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "convolution.hpp"
#include "geometry.hpp"
#include "kernels.hpp"

namespace regrow {

// By kind.
using Pieces = std::vector<std::vector<Piece>>;

class Window {
 public:
  // `tile` floats of the output at most are computed from one filling. `share`: rows of the kernel share
  // pieces whatever the image's rows are. `picks`: kernels have copy_picked.
  Window(const ConvShape& shape, const Geometry& in, const Geometry& out, std::size_t tile, bool share,
         bool picks);

  // All pieces of a channel.
  std::size_t floats() const;

  std::size_t bytes() const {
    return masks_.size() * sizeof(float) + indices_.size() * sizeof(std::int32_t) +
           picks_.size() * sizeof(Pick);
  }

  // The pieces that some channels need, where places of the kernel (the last dimension) are read, and
  // from which float on each place reads, or 0. Sets `floats` to those that must have room.
  Pieces pieces(std::size_t first, const std::vector<bool>& read, std::vector<std::int32_t>& at,
                std::size_t& floats) const;

  // Fills them for the output's floats from `begin` to `end`, multiples of 4.
  void fill(const Pieces& pieces, const float* in, std::size_t begin, std::size_t end,
            const Kernels& kernels, float* to) const;

 private:
  // A channel has at most one piece of each.
  struct Kind {
    std::ptrdiff_t row;  // of the input, that the output's first row reads
    std::size_t column;  // of the kernel
    std::size_t halo;    // floats beyond the tile
  };
  // Of a row of the kernel: the first of its kinds, one for each column, and from which float on it reads.
  struct Row {
    std::size_t kind, offset;
  };

  void find_kinds(bool share);
  // Columns of the input from an output column's to the one that a kernel's column reads.
  std::ptrdiff_t shift(std::size_t column) const {
    return static_cast<std::ptrdiff_t>(column * shape_.dilation[1]) -
           static_cast<std::ptrdiff_t>(shape_.padding[1]);
  }
  bool is_flat() const;
  void add_mask(std::size_t column);
  void add_indices(const Kind& kind, std::size_t pixels);
  void add_picks();

  ConvShape shape_;
  Geometry in_, out_;
  std::size_t tile_;
  bool flat_;  // a piece is one run of the input, and what is outside is masked
  std::vector<Kind> kinds_;
  std::vector<Row> rows_;             // of the kernel
  std::size_t halo_ = 0;              // of any kind, at most
  std::vector<float> masks_;          // if flat, so many for each column of the kernel
  std::vector<std::int32_t> indices_;  // else, by kind and pixel of the output: where its own lies
  std::vector<Pick> picks_;            // or the same for 16 pixels at once, if they are near enough
};

}  // namespace regrow
