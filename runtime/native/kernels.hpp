// The inner loops, compiled once for each instruction set, and the choice among them.
//
// A convolution of stride 1 over a padded plane is a sum of shifted runs: with the plane's rows one
// behind the other, output pixel q takes from input pixel q + offset for every weight, where the
// offset depends on the weight's channel and place alone. Runs cross the ends of rows; what they
// compute there lies in the padding of the output and is cleared. With several images, a pixel's
// values of all images stand side by side, and a run is that many times as long.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace regrow {

// Output channels that are computed at once share the loaded pixels.
constexpr std::size_t kBlock = 4;

// A weight: where its pixels begin, in floats from the tile's first one, and its value.
struct Entry {
  std::int32_t offset;
  float value;
};

// One place of the input and its weight in each channel of a block.
struct BlockEntry {
  std::int32_t offset;
  float values[kBlock];
};

// What happens to a sum before it is stored.
struct Finish {
  const float* keep = nullptr;      // all bits set for pixels of the image, none for padding
  const float* residual = nullptr;  // added, or null
  float low, high;                  // clamped
};

struct Kernels {
  const char* name;

  // Vectors of 16 floats in a tile of one channel, and of a block of channels.
  std::size_t tile, block_tile;

  // out[t] = finish(start + sum of value * in[offset + t]) for `vectors` <= tile vectors. `start` is
  // the bias where `first`, else what out holds; nothing is finished unless `last`.
  void (*run)(std::size_t vectors, const float* in, const Entry* entries, std::size_t count,
              float bias, bool first, bool last, const Finish& finish, float* out);

  // The same for kBlock channels that lie `stride` floats apart, with `vectors` <= block_tile.
  void (*run_block)(std::size_t vectors, const float* in, const BlockEntry* entries,
                    std::size_t count, const float* bias, bool first, bool last,
                    const Finish& finish, float* out, std::size_t stride);

  // The larger of each 2 x 2 pixels of two rows; `pixels` and `lanes` are the output's.
  void (*halve)(const float* top, const float* bottom, std::size_t pixels, std::size_t lanes,
                float* out);
};

// The kernels of an instruction set, or null where the processor has it not.
const Kernels* find_kernels(const std::string& name);

// Names of those that this processor has, the fastest first.
std::vector<std::string> known_kernels();

}  // namespace regrow
