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
#include <cstring>
#include <string>
#include <vector>

namespace regrow {

// Output channels that are computed at once share the loaded pixels.
constexpr std::size_t kBlock = 4;

// Outputs that are computed at once without sharing anything, at most: sums of one output alone
// would wait for each other in a narrow tile.
constexpr std::size_t kTogether = 8;

// Rows of a tile at most.
constexpr std::size_t kRows = 4;

// Vectors of a tile that is narrow, at most.
constexpr std::size_t kNarrow = 2;

// Winograd's minimal filtering (winograd.hpp): the points of interpolation besides 0 and infinity, with
// either sign; and outputs whose weights lie side by side.
constexpr float kPointA = 0.625f, kPointB = 1.5f;
constexpr std::size_t kWide = 8;

// Outputs side by side in a convolution over few pixels (across.hpp), and the most pixels of a side.
constexpr std::size_t kAcross = 16, kMostAcross = 4;

// A weight: where its pixels begin, in floats from the tile's first one, and its value.
struct Entry {
  std::int32_t offset;
  float value;
};

// One weight of each of some channels, in fewer bytes: where tiles are narrow, reading the weights
// takes the time. All channels' offsets lie first, then their values.
template <std::size_t Channels>
struct NearEntries {
  std::uint16_t offsets[Channels];
  float values[Channels];
};

// One place of the input and its weight in each channel of a block.
struct BlockEntry {
  std::int32_t offset;
  float values[kBlock];
};

// A float of a mask that lets through what is under it.
inline float all_bits() {
  const std::uint32_t bits = 0xffffffff;
  float mask;
  std::memcpy(&mask, &bits, sizeof mask);
  return mask;
}

// Outputs that are computed at once: the first of them in a list, where their entries begin, how many of
// each come first that read the same as those of the other of a pair, and how many there are besides.
struct Strip {
  std::uint32_t outputs, begin, shared, count;
};

// What happens to a sum before it is stored.
struct Finish {
  const float* keep = nullptr;      // all bits set for pixels of the image, none else; or null
  const float* residual = nullptr;  // added, or null
  float low, high;                  // clamped
};

// Rows of so many vectors of 16 floats, `stride` floats apart in input and output.
struct Tile {
  std::size_t rows, vectors, stride;
};

// Pixels of the input that are to be copied: from where and to where, in floats.
struct Piece {
  std::ptrdiff_t from;
  std::size_t to;
};

// Where 16 floats lie: within 32 behind one place or another.
struct Pick {
  std::int32_t from[2];
  std::uint16_t lanes[2];    // a bit for each that lies behind this place
  std::uint8_t numbers[16];  // of each lane, behind its place
};

struct Kernels {
  const char* name;

  // Vectors of 16 floats in a tile of one channel, and of a block of channels.
  std::size_t tile, block_tile;

  // Vectors whose sums are kept at once: of one channel in a wide tile, of several in a narrow one.
  std::size_t sums;

  // A place of a block takes as long as so many entries: its pixels are loaded once for all.
  double block_cost;

  // out[t] = finish(start + sum of value * in[offset + t]) for the vectors t of a tile, in strips of
  // `channels` outputs: a power of two at most kTogether, and times the tile's vectors at most sums.
  // An output's plane begins at its number times `plane`; entries take turns, the first of each
  // output first. `start` is the bias where `first`, else what out holds; nothing is finished
  // unless `last`.
  void (*run)(std::size_t channels, const Tile& tile, const float* in, const Entry* entries,
              const Strip* strips, std::size_t strip_count, const std::uint32_t* outputs,
              std::size_t plane, const float* bias, bool first, bool last, const Finish& finish,
              float* out);

  // The same for one row of 4 or 8 floats or of at most kNarrow vectors, and two channels or more;
  // `entries` are NearEntries of so many channels, counted in floats.
  void (*run_near)(std::size_t channels, std::size_t floats, const float* in, const float* entries,
                   const Strip* strips, std::size_t strip_count, const std::uint32_t* outputs,
                   std::size_t plane, const float* bias, bool first, bool last,
                   const Finish& finish, float* out);

  // As `run`, for `vectors` <= block_tile in a row, of kBlock channels that lie `stride` floats apart
  // and share each entry's pixels.
  void (*run_block)(std::size_t vectors, const float* in, const BlockEntry* entries,
                    std::size_t count, const float* bias, bool first, bool last,
                    const Finish& finish, float* out, std::size_t stride);

  // Pieces of `vectors` of 16 floats: zero where the mask's bits are not.
  void (*copy_masked)(const Piece* pieces, std::size_t count, std::size_t vectors, const float* in,
                      const float* mask, float* to);

  // Pieces of so many pixels: zero where an index is negative.
  void (*copy_gathered)(const Piece* pieces, std::size_t count, std::size_t pixels,
                        std::size_t lanes, const float* in, const std::int32_t* indices, float* to);

  // Pieces of so many vectors of 16 floats: zero where a vector's pick has no lane. Null where there
  // is no instruction for it.
  void (*copy_picked)(const Piece* pieces, std::size_t count, std::size_t vectors, const float* in,
                      const Pick* picks, float* to);

  // The largest of each 2 x 2 pixels, for rows of the output: rows of the input are `row` floats
  // apart, of the output `step`.
  void (*halve)(const float* from, std::size_t row, std::size_t rows, std::size_t pixels,
                std::size_t lanes, std::size_t step, float* to);

  // Minimal filtering pays above a density of the first, and of the second for one channel and
  // output; the more there are of these, the less the ways to the points and back count.
  double winograd_density, winograd_ways;

  // Six rows of `floats` (a multiple of 16), where the mask's bits are set, at the points: rows that
  // lie `pitch` floats apart.
  void (*rows_to_points)(const float* const* rows, const float* mask, std::size_t floats, float* to,
                         std::size_t pitch);

  // The same along rows, for `groups` of 16 columns: tiles, 16 / lanes of them, each at an offset, or
  // four times four that lie side by side (quads). Point i * 6 + j is written `step` floats behind
  // the one before it.
  void (*columns_to_points)(std::size_t lanes, bool quads, const std::int32_t* offsets,
                            std::size_t groups, const float* from, std::size_t pitch, float* to,
                            std::size_t step);

  // to[o][t] = sum of weights[c][o] * from[c][t] for kWide outputs and `groups` * 16 columns t.
  void (*multiply)(const float* weights, std::size_t channels, const float* from,
                   std::size_t groups, float* to);

  // From the points of some tiles to 4 x 4 pixels of each, in rows `pitch` floats apart; those of a
  // negative offset go to `nowhere`, where there is room for 16 floats.
  void (*points_to_pixels)(std::size_t lanes, bool quads, const std::int32_t* offsets,
                           std::size_t groups, const float* from, std::size_t step, float* to,
                           std::size_t pitch, float* nowhere);

  // A row with its bias and a residual, or null, clamped; up to 15 floats behind it are read. What
  // lies `next` floats behind it will be written soon.
  void (*finish_row)(const float* from, std::size_t floats, float bias, const float* residual,
                     float low, float high, float* to, std::size_t next);

  // Outputs side by side (across.hpp) pay above this density.
  double across_density;

  // to[p][o] = sum of the weights of kAcross outputs o times the pixels p of a square that is `side` wide.
  // Rows of `in` are `row` floats apart, channels `plane`. A mask for each channel and place of the
  // kernel tells which outputs have a weight there; those lie side by side in `values`.
  void (*sum_across)(std::size_t side, const float* in, std::size_t row, std::size_t plane,
                     std::size_t channels, const std::uint16_t* masks, const float* values, float* to);
};

// The kernels of an instruction set, or null where the processor has it not.
const Kernels* find_kernels(const std::string& name);

// Names of those that this processor has, the fastest first.
std::vector<std::string> known_kernels();

// Multiply-adds in a second of one thread at most: measured, in a dense block that stays in the first
// cache.
double peak(const Kernels& kernels);

}  // namespace regrow
