#include "conv.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>

namespace regrow {

namespace {

// A tile's pixels of all channels of a chunk stay in the first cache, beside a stream of entries.
constexpr std::size_t kWindowFloats = 7 * 1024;
// Sums are stored and loaded again between chunks, which a few entries do not pay for.
constexpr double kLeastEntries = 12;
// A place of a block costs so many entries: its pixels are loaded once for all channels.
constexpr double kBlockCost = 2.3;

std::size_t up(std::size_t n, std::size_t step) { return (n + step - 1) / step * step; }

}  // namespace

Conv::Conv(const ConvWeights& weights, const Geometry& in, const Geometry& out, float low,
           float high, const Kernels& kernels, std::size_t shares)
    : shape_(weights.shape), in_(in), out_(out), kernels_(kernels), low_(low), high_(high),
      bias_(weights.bias) {
  // Direct runs need the rows of input and output to be equally long, and padding enough.
  const ConvShape& s = shape_;
  const bool direct = s.stride[0] == 1 && s.stride[1] == 1 && in.row() == out.row() &&
                      in.width == out.width && in.top >= s.padding[0] && in.left >= s.padding[1] &&
                      (s.kernel[1] - 1) * s.dilation[1] <= s.padding[1] + in.left;
  if (!direct) plan_gather(s);
  // Offsets are 32 bits wide.
  const auto limit = static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max());
  if (scratch_size_ > limit - out.run() || weights.weights.size() > limit) {
    throw std::invalid_argument("a convolution over more than 2^31 floats; run fewer images at once");
  }
  keep_.assign(up(out_.run(), 16) + 16, 0.0f);
  const std::uint32_t bits = 0xffffffff;
  for (std::size_t row = 0; row < out.height; ++row) {
    for (std::size_t i = 0; i < out.width * out.lanes; ++i) {
      std::memcpy(&keep_[row * out.row() + i], &bits, sizeof bits);
    }
  }
  choose_chunks(weights);
  fill(weights);
  std::vector<double> costs;
  for (const Strip& strip : chunks_[0].strips) costs.push_back(strip.block ? 8.0 : 2.0);
  for (const Chunk& chunk : chunks_) {
    for (std::size_t i = 0; i < chunk.strips.size(); ++i) {
      costs[i] += chunk.strips[i].count * (chunk.strips[i].block ? kBlockCost : 1.0);
    }
  }
  cut(std::max<std::size_t>(1, shares), costs);
}

void Conv::plan_gather(const ConvShape& s) {
  std::vector<bool> used(s.stride[0] * s.stride[1]);
  for (std::size_t y = 0; y < s.kernel[0]; ++y) {
    for (std::size_t x = 0; x < s.kernel[1]; ++x) {
      used[y * s.dilation[0] % s.stride[0] * s.stride[1] + x * s.dilation[1] % s.stride[1]] = true;
    }
  }
  phase_index_.assign(used.size(), -1);
  for (std::size_t phase = 0; phase < used.size(); ++phase) {
    if (!used[phase]) continue;
    phase_index_[phase] = static_cast<std::int32_t>(phases_.size());
    phases_.push_back(phase);
  }
  const std::size_t beyond = (s.kernel[1] - 1) * s.dilation[1] / s.stride[1];
  if ((out_.width + beyond) * out_.lanes > out_.row()) {
    throw std::logic_error("the output's rows are too short for its convolution");
  }
  phase_rows_ = out_.height + (s.kernel[0] - 1) * s.dilation[0] / s.stride[0];
  phase_plane_ = up(phase_rows_ * out_.row() + 15, 16);
  scratch_size_ = shape_.channels * phases_.size() * phase_plane_;
}

std::int32_t Conv::offset(std::size_t channel, std::size_t y, std::size_t x) const {
  const ConvShape& s = shape_;
  const std::size_t row = y * s.dilation[0], column = x * s.dilation[1];
  if (scratch_size_ == 0) {
    return static_cast<std::int32_t>(channel * in_.plane() + (in_.top + row - s.padding[0]) * in_.row() +
                                     (in_.left + column - s.padding[1]) * in_.lanes);
  }
  const std::int32_t phase =
      phase_index_[row % s.stride[0] * s.stride[1] + column % s.stride[1]];
  return static_cast<std::int32_t>(
      (channel * phases_.size() + static_cast<std::size_t>(phase)) * phase_plane_ +
      row / s.stride[0] * out_.row() + column / s.stride[1] * out_.lanes);
}

void Conv::choose_chunks(const ConvWeights& weights) {
  const ConvShape& s = shape_;
  const std::size_t width = s.channels / s.groups;
  const std::size_t nonzeros =
      weights.weights.size() -
      static_cast<std::size_t>(std::count(weights.weights.begin(), weights.weights.end(), 0.0f));
  const std::size_t vectors = (out_.run() + 15) / 16, tile = std::min(vectors, kernels_.tile);
  const std::size_t planes = scratch_size_ ? phases_.size() : 1;
  const std::size_t row = scratch_size_ ? out_.row() : in_.row();
  const std::size_t window =
      planes * (tile * 16 + (s.kernel[0] - 1) * s.dilation[0] / (scratch_size_ ? s.stride[0] : 1) * row +
                16);
  const double each = static_cast<double>(nonzeros) / static_cast<double>(s.outputs);
  std::size_t count = (width * window + kWindowFloats - 1) / kWindowFloats;
  count = std::min(count, static_cast<std::size_t>(each / kLeastEntries));
  count = std::clamp<std::size_t>(count, 1, width);
  for (std::size_t i = 1; i <= count; ++i) chunk_ends_.push_back(width * i / count);
}

void Conv::fill(const ConvWeights& given) {
  const ConvShape& s = shape_;
  const std::size_t inner = s.kernel[0] * s.kernel[1], width = s.channels / s.groups;
  const std::size_t fan = width * inner, per_group = s.outputs / s.groups;
  const float* weights = given.weights.data();
  // Blocks where sharing the loads pays for the zeros inside.
  std::vector<bool> block(s.outputs, false);
  for (std::size_t o = 0; o + kBlock <= s.outputs; o += o % per_group + kBlock <= per_group ? kBlock : 1) {
    if (o % per_group + kBlock > per_group) continue;
    std::size_t any = 0, sum = 0;
    for (std::size_t i = 0; i < fan; ++i) {
      std::size_t here = 0;
      for (std::size_t k = 0; k < kBlock; ++k) here += weights[(o + k) * fan + i] != 0;
      any += here != 0;
      sum += here;
    }
    if (static_cast<double>(any) * kBlockCost < static_cast<double>(sum)) {
      std::fill_n(block.begin() + static_cast<std::ptrdiff_t>(o), kBlock, true);
    }
  }
  std::size_t begin = 0;
  for (const std::size_t end : chunk_ends_) {
    Chunk chunk;
    for (std::size_t o = 0; o < s.outputs; o += block[o] ? kBlock : 1) {
      const std::size_t first = o / per_group * width;
      Strip strip{static_cast<std::uint32_t>(o), block[o], 0, 0};
      strip.begin = static_cast<std::uint32_t>(block[o] ? block_entries_.size() : entries_.size());
      for (std::size_t i = begin * inner; i < end * inner; ++i) {
        const std::int32_t at = offset(first + i / inner, i % inner / s.kernel[1], i % s.kernel[1]);
        const float* w = weights + o * fan + i;
        if (!block[o]) {
          if (*w != 0) entries_.push_back({at, *w});
          continue;
        }
        BlockEntry entry{at, {}};
        bool any = false;
        for (std::size_t k = 0; k < kBlock; ++k) any |= (entry.values[k] = w[k * fan]) != 0;
        if (any) block_entries_.push_back(entry);
      }
      const std::size_t now = block[o] ? block_entries_.size() : entries_.size();
      strip.count = static_cast<std::uint32_t>(now - strip.begin);
      chunk.strips.push_back(strip);
    }
    chunks_.push_back(std::move(chunk));
    begin = end;
  }
  const auto zeros = std::count(given.weights.begin(), given.weights.end(), 0.0f);
  useful_ = static_cast<double>(given.weights.size() - static_cast<std::size_t>(zeros)) *
            static_cast<double>(out_.height * out_.width);
}

void Conv::cut(std::size_t shares, const std::vector<double>& costs) {
  double total = 0;
  for (const double cost : costs) total += cost;
  std::vector<std::size_t> starts{0};
  double sum = 0;
  for (std::size_t i = 0; i < costs.size(); ++i) {
    sum += costs[i];
    while (starts.size() < shares && sum >= total * static_cast<double>(starts.size()) / static_cast<double>(shares)) {
      starts.push_back(i + 1);
    }
  }
  while (starts.size() <= shares) starts.push_back(costs.size());
  starts.back() = costs.size();
  starts_ = std::move(starts);
}

void Conv::gather(const float* in, float* scratch, std::size_t share) const {
  const ConvShape& s = shape_;
  const std::size_t shares = starts_.size() - 1, lanes = out_.lanes;
  const std::size_t begin = s.channels * share / shares, end = s.channels * (share + 1) / shares;
  const auto height = static_cast<std::ptrdiff_t>(in_.height);
  const auto width = static_cast<std::ptrdiff_t>(in_.width);
  for (std::size_t c = begin; c < end; ++c) {
    const float* plane = in + c * in_.plane() + in_.first();
    for (std::size_t p = 0; p < phases_.size(); ++p) {
      const auto a = static_cast<std::ptrdiff_t>(phases_[p] / s.stride[1]);
      const auto b = static_cast<std::ptrdiff_t>(phases_[p] % s.stride[1]);
      float* to = scratch + (c * phases_.size() + p) * phase_plane_;
      const std::size_t columns = out_.row() / lanes;
      for (std::size_t u = 0; u < phase_rows_; ++u, to += out_.row()) {
        const std::ptrdiff_t y = static_cast<std::ptrdiff_t>(u * s.stride[0]) + a -
                                 static_cast<std::ptrdiff_t>(s.padding[0]);
        if (y < 0 || y >= height) {
          std::fill_n(to, out_.row(), 0.0f);
          continue;
        }
        const float* row = plane + static_cast<std::size_t>(y) * in_.row();
        for (std::size_t v = 0; v < columns; ++v) {
          const std::ptrdiff_t x = static_cast<std::ptrdiff_t>(v * s.stride[1]) + b -
                                   static_cast<std::ptrdiff_t>(s.padding[1]);
          float* pixel = to + v * lanes;
          if (x < 0 || x >= width) {
            std::fill_n(pixel, lanes, 0.0f);
          } else if (lanes == 1) {
            *pixel = row[x];
          } else {
            std::memcpy(pixel, row + static_cast<std::size_t>(x) * lanes, lanes * sizeof(float));
          }
        }
      }
    }
  }
}

void Conv::compute(const float* in, const float* scratch, const float* residual, float* out,
                   std::size_t share) const {
  const float* from = scratch_size_ ? scratch : in;
  const std::size_t vectors = (out_.run() - (out_.row() - out_.width * out_.lanes) + 15) / 16;
  const std::size_t tiles = (vectors + kernels_.tile - 1) / kernels_.tile;
  const std::size_t plane = out_.plane(), first = out_.first();
  for (std::size_t tile = 0; tile < tiles; ++tile) {
    const std::size_t begin = vectors * tile / tiles, end = vectors * (tile + 1) / tiles;
    for (std::size_t c = 0; c < chunks_.size(); ++c) {
      const bool opens = c == 0, closes = c + 1 == chunks_.size();
      const Strip* strip = chunks_[c].strips.data() + starts_[share];
      const Strip* const last = chunks_[c].strips.data() + starts_[share + 1];
      for (; strip < last; ++strip) {
        if (strip->count == 0 && !opens && !closes) continue;
        const std::size_t at = strip->output * plane + first;
        const std::size_t pieces =
            strip->block ? (end - begin + kernels_.block_tile - 1) / kernels_.block_tile : 1;
        for (std::size_t piece = 0; piece < pieces; ++piece) {
          const std::size_t v = begin + (end - begin) * piece / pieces;
          const std::size_t w = begin + (end - begin) * (piece + 1) / pieces;
          const Finish finish{keep_.data() + v * 16,
                              residual ? residual + at + v * 16 : nullptr, low_, high_};
          if (strip->block) {
            kernels_.run_block(w - v, from + v * 16, block_entries_.data() + strip->begin,
                               strip->count, bias_.data() + strip->output, opens, closes, finish,
                               out + at + v * 16, plane);
          } else {
            kernels_.run(w - v, from + v * 16, entries_.data() + strip->begin, strip->count,
                         bias_[strip->output], opens, closes, finish, out + at + v * 16);
          }
        }
      }
    }
  }
}

}  // namespace regrow
