#include "winograd.hpp"

#include <algorithm>

namespace regrow {

namespace {

constexpr std::size_t kTile = 4, kReads = 6, kPoints = kReads * kReads;
// Floats of a channel at a point that are computed at once: some vectors for the registers, and
// all channels' in the second cache.
constexpr std::size_t kColumns = 32, kSecondCache = 320 * 1024 / kPoints;
constexpr std::size_t kMostBlocks = 4;  // of a chunk
constexpr std::size_t kLeastTiles = 16, kLeastChannels = 8;

std::size_t tiles(std::size_t pixels) { return (pixels + kTile - 1) / kTile; }

// A kernel of 3 x 3 at the points.
void to_points(const float* kernel, double (&to)[kPoints]) {
  const double a = kPointA, b = kPointB;
  // With the factors that winograd.inl takes back.
  const double at_a = 2 * a * (a * a - b * b), at_b = 2 * (b * b - a * a);
  const double matrix[kReads][3] = {{1 / (a * a * b * b), 0, 0},
                                    {1 / at_a, a / at_a, a * a / at_a},
                                    {1 / at_a, -a / at_a, a * a / at_a},
                                    {1 / at_b, b / at_b, b * b / at_b},
                                    {1 / at_b, -b / at_b, b * b / at_b},
                                    {0, 0, 1}};
  for (std::size_t i = 0; i < kReads; ++i) {
    for (std::size_t j = 0; j < kReads; ++j) {
      double sum = 0;
      for (std::size_t y = 0; y < 3; ++y) {
        for (std::size_t x = 0; x < 3; ++x) sum += matrix[i][y] * kernel[y * 3 + x] * matrix[j][x];
      }
      to[i * kReads + j] = sum;
    }
  }
}

}  // namespace

bool Winograd::pays(const ConvWeights& given, const Geometry& out, const Kernels& kernels) {
  const ConvShape& s = given.shape;
  for (std::size_t axis = 0; axis < 2; ++axis) {
    if (s.kernel[axis] != 3 || s.stride[axis] != 1 || s.dilation[axis] != 1 || s.padding[axis] > 2) {
      return false;
    }
  }
  const std::size_t all = tiles(out.height) * tiles(out.width) * out.lanes;
  if (s.groups != 1 || s.channels < kLeastChannels || s.outputs < kLeastChannels || all < kLeastTiles) {
    return false;
  }
  const auto kept = static_cast<double>(nonzeros(given.weights.data(), given.weights.size()));
  const double density = kept / static_cast<double>(given.weights.size());
  // Tiles beyond the image are computed too.
  const double waste = static_cast<double>(round_up(all, 16) * kTile * kTile) /
                       static_cast<double>(out.height * out.width * out.lanes);
  const double ways = 1 / static_cast<double>(s.channels) + 1 / static_cast<double>(s.outputs);
  return density > waste * (kernels.winograd_density + kernels.winograd_ways * ways);
}

Winograd::Winograd(const ConvWeights& given, const Geometry& in, const Geometry& out, float low,
                   float high, const Kernels& kernels, std::size_t shares)
    : shape_(given.shape), in_(in), out_(out), kernels_(kernels), low_(low), high_(high),
      across_(tiles(out.width)), down_(tiles(out.height)),
      share_count_(std::max<std::size_t>(1, shares)), bias_(given.bias) {
  cut(share_count_);
  transform(given.weights);
  const std::size_t row = round_up((kTile * across_ + 2) * out.lanes, 16) + 16;
  zeros_.assign(row, 0.0f);
  mask_.assign(row, 0.0f);
  std::fill_n(mask_.data() + shape_.padding[1] * out.lanes, in.width * out.lanes, all_bits());
  const std::size_t kept = nonzeros(given.weights.data(), given.weights.size());
  useful_ = static_cast<double>(kept * out.height * out.width);
}

// Stripes are some whole rows of tiles, or parts of one.
void Winograd::cut(std::size_t shares) {
  const std::size_t lanes = out_.lanes, row = across_ * lanes, all = down_ * row;
  std::size_t columns = std::clamp<std::size_t>(kSecondCache / shape_.channels / 16 * 16, 16, kColumns);
  columns = std::min(columns, std::max<std::size_t>(16, round_up((all + shares - 1) / shares, 16)));
  const std::size_t rows = std::clamp<std::size_t>(columns / row, 1, down_);
  const std::size_t high = (down_ + rows - 1) / rows, wide = (row + columns - 1) / columns;
  const auto side = [&](std::size_t i) { return across_ * i / wide; };
  quads_ = lanes == 1;
  for (std::size_t i = 0; i <= wide; ++i) quads_ = quads_ && side(i) % 4 == 0;
  for (std::size_t i = 0; i < wide; ++i) widest_ = std::max(widest_, side(i + 1) - side(i));
  for (std::size_t r = 0; r < high; ++r) {
    const std::size_t top = down_ * r / high, bottom = down_ * (r + 1) / high;
    for (std::size_t c = 0; c < wide; ++c) {
      if (side(c) == side(c + 1)) continue;
      stripes_.push_back({top, side(c), extent(bottom - top, side(c + 1) - side(c))});
    }
  }
  parts_ = std::max<std::size_t>(1, shares / stripes_.size());
  const std::size_t blocks = (shape_.outputs + kWide - 1) / kWide;
  const std::size_t most = std::clamp<std::size_t>(blocks / parts_, 1, kMostBlocks);
  for (std::size_t begin = 0; begin < blocks; begin += most) {
    chunks_.push_back({begin * kWide, std::min(most, blocks - begin)});
  }
  parts_ = std::min(parts_, chunks_.size());
}

std::size_t Winograd::extent(std::size_t rows, std::size_t columns) {
  for (std::size_t i = 0; i < extents_.size(); ++i) {
    if (extents_[i].rows == rows && extents_[i].columns == columns) return i;
  }
  highest_ = std::max(highest_, rows);
  const std::size_t lanes = out_.lanes;
  Extent made{rows, columns, (rows * columns * lanes + 15) / 16, {}, {}};
  groups_ = std::max(groups_, made.groups);
  const std::size_t each = quads_ ? 4 : 1;
  for (std::size_t r = 0; r < rows; ++r) {
    for (std::size_t c = 0; c < columns; c += each) {
      made.read.push_back(static_cast<std::int32_t>(r * kReads * pitch_in() + kTile * c * lanes));
      made.written.push_back(static_cast<std::int32_t>(r * kTile * pitch_out() + kTile * c * lanes));
    }
  }
  // The last group is filled up with tiles that go nowhere.
  const std::size_t wanted = made.groups * 16 / (lanes * each);
  made.read.resize(wanted, 0);
  made.written.resize(wanted, -1);
  extents_.push_back(std::move(made));
  return extents_.size() - 1;
}

void Winograd::transform(const std::vector<float>& given) {
  const std::size_t channels = shape_.channels;
  std::size_t start = 0;
  for (const Chunk& chunk : chunks_) {
    weights_.resize(start + kPoints * chunk.blocks * channels * kWide, 0.0f);
    for (std::size_t b = 0; b < chunk.blocks; ++b) {
      for (std::size_t o = 0; o < kWide; ++o) {
        const std::size_t output = chunk.begin + b * kWide + o;
        for (std::size_t c = 0; c < channels && output < shape_.outputs; ++c) {
          double points[kPoints];
          to_points(given.data() + (output * channels + c) * 9, points);
          for (std::size_t p = 0; p < kPoints; ++p) {
            const std::size_t at = ((p * chunk.blocks + b) * channels + c) * kWide + o;
            weights_[start + at] = static_cast<float>(points[p]);
          }
        }
      }
    }
    start = weights_.size();
  }
}

std::size_t Winograd::scratch_size() const {
  const std::size_t blocks = chunks_.front().blocks;
  return highest_ * kReads * pitch_in() + kPoints * step(shape_.channels, groups_) +
         kPoints * step(blocks * kWide, groups_) + (highest_ + 1) * kTile * pitch_out();
}

// The input of a stripe, all channels, at the points.
void Winograd::forth(const Stripe& stripe, const float* in, float* rows, float* points) const {
  const Extent& extent = extents_[stripe.extent];
  const std::size_t lanes = in_.lanes, left = kTile * stripe.column * lanes;
  const std::size_t floats = round_up((kTile * extent.columns + 2) * lanes, 16);
  for (std::size_t c = 0; c < shape_.channels; ++c) {
    const float* first = in + c * in_.plane() + in_.first() + left - shape_.padding[1] * lanes;
    for (std::size_t r = 0; r < extent.rows; ++r) {
      const float* sources[kReads];
      for (std::size_t i = 0; i < kReads; ++i) {
        const std::size_t y = kTile * (stripe.row + r) + i;
        const bool inside = y >= shape_.padding[0] && y - shape_.padding[0] < in_.height;
        sources[i] = inside ? first + (y - shape_.padding[0]) * in_.row() : zeros_.data();
      }
      kernels_.rows_to_points(sources, mask_.data() + left, floats, rows + r * kReads * pitch_in(),
                              pitch_in());
    }
    kernels_.columns_to_points(lanes, quads_, extent.read.data(), extent.groups, rows, pitch_in(),
                               points + c * extent.groups * 16, step(shape_.channels, extent.groups));
  }
}

// The products of a chunk of the outputs, back as pixels.
void Winograd::back(const Stripe& stripe, const Chunk& chunk, const float* products, float* pixels,
                    const float* residual, float* out) const {
  const Extent& extent = extents_[stripe.extent];
  const std::size_t lanes = out_.lanes, pitch = pitch_out();
  const std::size_t columns = std::min(kTile * extent.columns, out_.width - kTile * stripe.column);
  const std::size_t rows = std::min(kTile * extent.rows, out_.height - kTile * stripe.row);
  const std::size_t outputs = std::min(chunk.blocks * kWide, shape_.outputs - chunk.begin);
  for (std::size_t o = 0; o < outputs; ++o) {
    kernels_.points_to_pixels(lanes, quads_, extent.written.data(), extent.groups,
                              products + o * extent.groups * 16,
                              step(chunk.blocks * kWide, extent.groups), pixels, pitch,
                              pixels + highest_ * kTile * pitch);
    const std::size_t first = (chunk.begin + o) * out_.plane() + out_.first() +
                              kTile * (stripe.row * out_.row() + stripe.column * lanes);
    for (std::size_t y = 0; y < rows; ++y) {
      const std::size_t at = first + y * out_.row();
      kernels_.finish_row(pixels + y * pitch, columns * lanes, bias_[chunk.begin + o],
                          residual ? residual + at : nullptr, low_, high_, out + at,
                          o + 1 < outputs ? out_.plane() : 0);
    }
  }
}

void Winograd::compute(const float* in, float* scratch, const float* residual, float* out,
                       std::size_t share, std::size_t) const {
  float* const points = scratch + highest_ * kReads * pitch_in();
  float* const products = points + kPoints * step(shape_.channels, groups_);
  float* const pixels = products + kPoints * step(chunks_.front().blocks * kWide, groups_);
  const std::size_t items = stripes_.size() * parts_;
  for (std::size_t item = items * share / share_count_; item < items * (share + 1) / share_count_; ++item) {
    const Stripe& stripe = stripes_[item / parts_];
    const std::size_t part = item % parts_, groups = extents_[stripe.extent].groups;
    forth(stripe, in, scratch, points);
    for (std::size_t i = chunks_.size() * part / parts_; i < chunks_.size() * (part + 1) / parts_; ++i) {
      const Chunk& chunk = chunks_[i];
      const std::size_t block = shape_.channels * kWide;
      const float* weights = weights_.data() + chunk.begin / kWide * kPoints * block;
      for (std::size_t p = 0; p < kPoints; ++p) {
        for (std::size_t b = 0; b < chunk.blocks; ++b, weights += block) {
          kernels_.multiply(weights, shape_.channels, points + p * step(shape_.channels, groups),
                            groups, products + p * step(chunk.blocks * kWide, groups) + b * kWide * groups * 16);
        }
      }
      back(stripe, chunk, products, pixels, residual, out);
    }
  }
}

}  // namespace regrow
