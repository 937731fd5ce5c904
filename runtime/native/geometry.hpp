// How a value lies in memory: channels of padded rows of pixels of lanes (images side by side).
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace regrow {

inline std::size_t round_up(std::size_t n, std::size_t step) { return (n + step - 1) / step * step; }

// Planes of one resolution share their padding and row length, so that a run of pixels means the
// same in each of them.
struct Geometry {
  std::size_t channels = 0, height = 0, width = 0;
  std::size_t top = 0, left = 0;  // padding; the same below, and `left` columns at least at right
  std::size_t lanes = 1;

  std::size_t row() const { return (width + left) * lanes; }
  std::size_t first() const { return round_up(top * row() + left * lanes, 16); }
  std::size_t run() const { return height * row(); }  // floats from the first pixel on

  // A last vector may write 15 floats behind a run; they are nobody's. Planes are an odd number of cache
  // lines apart: if it were a power of two, all channels would share few places of the first cache.
  std::size_t plane() const { return round_up(first() + (height + top) * row() + 15, 16) | 16; }
  // Behind the last plane runs are read that begin at its last pixels.
  std::size_t size() const { return channels * plane(); }
};

constexpr std::size_t kSlack = 128;  // floats behind a buffer, read and never used

}  // namespace regrow
