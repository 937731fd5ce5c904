// A tile's input, laid out anew so that every place of the kernel reads whole, aligned vectors.
//
// Read where they are, runs of pixels that are shifted by a column begin in the middle of a vector,
// and every load of them touches two cache lines. A piece holds a channel's pixels as one column of
// the kernel sees them, zero outside the image. Rows of the kernel share it where an image row is a
// whole number of vectors, or where few weights read it; else they have one each. Strides vanish on
// the way.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

#include "convolution.hpp"
#include "geometry.hpp"
#include "kernels.hpp"

namespace regrow {

class Window {
 public:
  // `tile` floats of the output at most are computed from one filling. `share`: rows of the kernel share
  // pieces whatever the image's rows are. `picks`: kernels have copy_picked.
  Window(const ConvShape& shape, const Geometry& in, const Geometry& out, std::size_t tile, bool share,
         bool picks);

  // How many kinds of pieces there are: each channel has at most one of each.
  std::size_t kinds() const { return kinds_.size(); }
  // Of a piece.
  std::size_t floats() const { return floats_; }

  // The kind that a place of the kernel reads, and from which of its floats on.
  std::size_t kind(std::size_t row, std::size_t column) const;
  std::size_t offset(std::size_t row) const { return shared_ ? reach(row) * out_.row() : 0; }

  std::size_t bytes() const {
    return masks_.size() * sizeof(float) + indices_.size() * sizeof(std::int32_t) +
           picks_.size() * sizeof(Pick);
  }

  // A channel's piece that is to lie `to` floats behind the beginning of the window.
  Piece piece(std::size_t channel, std::size_t kind, std::size_t to) const;

  // Fills pieces for the output's floats from `begin` to `end`, multiples of 16.
  void fill(const std::vector<Piece>& pieces, const float* in, std::size_t begin, std::size_t end,
            const Kernels& kernels, float* to) const;

 private:
  struct Kind {
    std::ptrdiff_t row;  // of the input, that the output's first row reads
    std::size_t column;  // of the kernel
  };

  // Rows of the output by which a row of the kernel looks further down.
  std::size_t reach(std::size_t row) const {
    return row * shape_.dilation[0] / shape_.stride[0];
  }
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
  bool shared_;             // by the rows of a kernel
  std::size_t halo_;        // floats of a piece beyond the tile
  std::size_t floats_;
  bool flat_;               // a piece is one run of the input, and what is outside is masked
  std::vector<Kind> kinds_;
  std::vector<std::size_t> kinds_of_;  // by row of the kernel: the first column's
  std::vector<float> masks_;          // if flat, so many for each column of the kernel
  std::vector<std::int32_t> indices_;  // else, by kind and pixel of the output: where its own lies
  std::vector<Pick> picks_;            // or the same for 16 pixels at once, if they are near enough
};

}  // namespace regrow
