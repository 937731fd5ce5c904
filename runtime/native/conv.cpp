#include "conv.hpp"

#include <algorithm>
#include <cstring>
#include <limits>
#include <stdexcept>
#include <utility>

namespace regrow {

namespace {

// A tile's pixels of all channels of a panel stay in the first cache, beside a stream of entries,
// or else in the second.
constexpr std::size_t kFirstCache = 8 * 1024, kSecondCache = 64 * 1024;  // floats
// Sums are stored and loaded again between panels, which a few entries of an output do not pay for.
constexpr double kLeastEntries = 12, kLeastNarrow = 8;
// So many reads that begin with a vector pay for a piece of the window of their own; more where those
// that do not begin with one still begin with half of it.
constexpr double kManyReaders = 8, kManyOfHalves = 18;

// Whether the runs of a convolution can be read where they are.
bool direct(const ConvShape& s, const Geometry& in, const Geometry& out) {
  return s.stride[0] == 1 && s.stride[1] == 1 && in.row() == out.row() && in.width == out.width &&
         in.top >= s.padding[0] && in.left >= s.padding[1] &&
         (s.kernel[1] - 1) * s.dilation[1] <= s.padding[1] + in.left;
}

}  // namespace

Conv::Conv(const ConvWeights& weights, const Geometry& in, const Geometry& out, float low,
           float high, const Kernels& kernels, std::size_t shares)
    : shape_(weights.shape), in_(in), out_(out), kernels_(kernels), low_(low), high_(high),
      direct_(direct(shape_, in, out)), bias_(weights.bias) {
  const ConvShape& s = shape_;
  choose_tiles();
  stripes_ = {0, places_.size()};
  const auto kept = static_cast<double>(nonzeros(weights.weights.data(), weights.weights.size()));
  if (!direct_) {
    // How many outputs read a place of the kernel in an input channel.
    const double readers = kept / static_cast<double>(s.channels * s.kernel[0] * s.kernel[1]);
    const double many = out.row() % 8 == 0 ? kManyOfHalves : kManyReaders;
    window_.emplace(s, in, out, floats(widest_), few_ || readers < many,
                    kernels.copy_picked != nullptr);
  }
  // Offsets are 32 bits wide.
  const auto limit = static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max());
  const std::size_t width = s.channels / s.groups;
  const std::size_t window = window_ ? width * window_->floats() : 0;
  if (window > limit || weights.weights.size() > limit) {
    throw std::invalid_argument("a convolution over more than 2^31 floats; run fewer images at once");
  }
  // Nothing needs to be cleared where every float of the tiles is a pixel.
  if (!(direct_ && out.lanes == 16) && (out.row() != out.width * out.lanes || out.run() % 16 != 0)) {
    keep_.assign(round_up(out_.run(), 16) + 16, 0.0f);
    for (std::size_t row = 0; row < out.height; ++row) {
      std::fill_n(keep_.data() + row * out.row(), out.width * out.lanes, all_bits());
    }
  }
  choose_blocks(weights);
  const std::size_t per_group = s.outputs / s.groups;
  shares = std::max<std::size_t>(1, shares);
  if (places_.size() >= shares && kept * sizeof(Entry) < sizeof(float) * static_cast<double>(in.size())) {
    parts_ = shares;
  }
  const std::vector<std::size_t> starts = cut(weights, shares / parts_);
  const std::vector<Span> inputs = chunks(kept / static_cast<double>(s.outputs));
  for (std::size_t share = 0; share + 1 < starts.size(); ++share) {
    panels_.emplace_back();
    for (std::size_t group = 0; group < s.groups; ++group) {
      const Span outputs{std::max(group * per_group, starts[share]),
                         std::min((group + 1) * per_group, starts[share + 1])};
      if (outputs.begin >= outputs.end) continue;
      for (const Span& each : inputs) {
        panels_.back().push_back(panel(weights, group, each, outputs));
      }
    }
  }
  outputs_.resize(outputs_.size() + kTogether, 0);  // Kernels look at those that come next.
  useful_ = kept * static_cast<double>(out_.height * out_.width);
}

// Where pixels are whole vectors, tiles are whole rows or parts of one: long stretches are read
// faster than square tiles, which overlap more. Else they are stretches of the run, which may cross
// the ends of rows.
void Conv::choose_tiles() {
  const std::size_t most = kernels_.tile, row = out_.row();
  if (direct_ && out_.lanes == 16) {
    const std::size_t across = (out_.width + most - 1) / most;
    for (std::size_t c = 0; c < across; ++c) {
      const std::size_t left = out_.width * c / across, right = out_.width * (c + 1) / across;
      const std::size_t high = std::clamp<std::size_t>(most / (right - left), 1, kRows);
      const std::size_t down = (out_.height + high - 1) / high;
      for (std::size_t r = 0; r < down; ++r) {
        const std::size_t top = out_.height * r / down, bottom = out_.height * (r + 1) / down;
        places_.push_back({top * row + left * 16, {bottom - top, right - left, row}});
      }
    }
  } else {
    const std::size_t vectors = (out_.run() - (row - out_.width * out_.lanes) + 15) / 16;
    const std::size_t tiles = (vectors + most - 1) / most;
    for (std::size_t i = 0; i < tiles; ++i) {
      const std::size_t begin = vectors * i / tiles, end = vectors * (i + 1) / tiles;
      places_.push_back({begin * 16, {1, end - begin, row}});
    }
  }
  for (const Place& place : places_) {
    widest_ = std::max(widest_, place.tile.rows * place.tile.vectors);
  }
  if (!direct_ && out_.run() <= 8) few_ = round_up(out_.run(), 4);
}

// A place belongs to the stripe where it begins, and may reach into rows of the next.
std::optional<std::size_t> Conv::below() const {
  if (!direct_ || parts_ > 1) return std::nullopt;
  std::size_t more = 0;
  for (const Place& place : places_) {
    more = std::max(more, (place.end() - 1) / out_.row() - place.begin / out_.row());
  }
  const std::size_t reach = (shape_.kernel[0] - 1) * shape_.dilation[0];
  return more + reach - std::min(reach, shape_.padding[0]);
}

void Conv::cut(const std::vector<std::size_t>& rows) {
  const auto stripe = [&](const Place& place) {
    const auto found = std::upper_bound(rows.begin(), rows.end(), place.begin / out_.row());
    return static_cast<std::size_t>(found - rows.begin());
  };
  std::stable_sort(places_.begin(), places_.end(),
                   [&](const Place& a, const Place& b) { return stripe(a) < stripe(b); });
  stripes_.assign(rows.size() + 1, 0);
  for (const Place& place : places_) ++stripes_[stripe(place) + 1];
  for (std::size_t i = 0; i < rows.size(); ++i) stripes_[i + 1] += stripes_[i];
}

// A block of outputs pays where sharing the loads outweighs the zeros inside.
void Conv::choose_blocks(const ConvWeights& given) {
  const std::size_t fan = given.weights.size() / shape_.outputs;
  const std::size_t per_group = shape_.outputs / shape_.groups;
  block_.assign(shape_.outputs, false);
  for (std::size_t o = 0; o < shape_.outputs;) {
    const float* weights = given.weights.data() + o * fan;
    std::size_t any = 0, sum = 0;
    for (std::size_t i = 0; i < fan && o % per_group + kBlock <= per_group; ++i) {
      std::size_t here = 0;
      for (std::size_t k = 0; k < kBlock; ++k) here += weights[k * fan + i] != 0;
      any += here != 0;
      sum += here;
    }
    const bool block = static_cast<double>(any) * kernels_.block_cost < static_cast<double>(sum);
    for (std::size_t k = 0; k < kBlock && block; ++k) block_[o + k] = true;
    o += block ? kBlock : 1;
  }
}

// The first output of each share, and the end, so that all have about as much to do.
std::vector<std::size_t> Conv::cut(const ConvWeights& given, std::size_t shares) const {
  const std::size_t fan = given.weights.size() / shape_.outputs;
  std::vector<double> until;  // so much is to be done for the outputs before, and with this one
  double total = 0;
  for (std::size_t o = 0; o < shape_.outputs; ++o) {
    const double each = block_[o] ? kernels_.block_cost / kBlock : 1.0;
    total += 2 + each * static_cast<double>(nonzeros(given.weights.data() + o * fan, fan));
    until.push_back(total);
  }
  std::vector<std::size_t> starts{0};
  for (std::size_t next = 0; next < shape_.outputs;) {
    next += block_[next] ? kBlock : 1;  // A block stays whole.
    while (starts.size() < shares &&
           until[next - 1] >= total * static_cast<double>(starts.size()) / static_cast<double>(shares)) {
      starts.push_back(next);
    }
  }
  starts.resize(shares, shape_.outputs);
  starts.push_back(shape_.outputs);
  return starts;
}

// The panels' input channels, of any group; outputs have `each` entries on average.
std::vector<Conv::Span> Conv::chunks(double each) const {
  const ConvShape& s = shape_;
  const std::size_t width = s.channels / s.groups;
  // What a tile reads of a channel: in rows apart, or in one run where they meet.
  const Tile& tile = places_.front().tile;
  const std::size_t rows = tile.rows + (s.kernel[0] - 1) * s.dilation[0];
  const std::size_t beside = tile.vectors * 16 + (s.kernel[1] - 1) * s.dilation[1] * in_.lanes;
  const std::size_t read = std::min(rows * beside, beside + (rows - 1) * in_.row());
  const std::size_t floats = width * (window_ ? window_->floats() : read);
  const double least = widest_ > kNarrow ? kLeastEntries : kLeastNarrow;
  std::size_t count = (floats + kFirstCache - 1) / kFirstCache;
  count = std::min(count, static_cast<std::size_t>(each / least));
  count = std::max(count, (floats + kSecondCache - 1) / kSecondCache);
  count = std::clamp<std::size_t>(count, 1, width);
  std::vector<Span> found;
  for (std::size_t i = 0; i < count; ++i) {
    found.push_back({width * i / count, width * (i + 1) / count});
  }
  return found;
}

// Where the entries of the places of a group's input channels read, for a span of outputs.
std::vector<std::int32_t> Conv::offsets(const ConvWeights& given, std::size_t group, Span inputs,
                                        Span outputs, Panel& panel) {
  const ConvShape& s = shape_;
  const std::size_t inner = s.kernel[0] * s.kernel[1], width = s.channels / s.groups;
  const std::size_t first = group * width + inputs.begin, places = (inputs.end - inputs.begin) * inner;
  std::vector<std::int32_t> found;
  if (window_) {
    std::vector<bool> read(places);
    for (std::size_t o = outputs.begin; o < outputs.end; ++o) {
      const float* weights = given.weights.data() + (o * width + inputs.begin) * inner;
      for (std::size_t i = 0; i < places; ++i) read[i] = read[i] || weights[i] != 0;
    }
    std::size_t floats;
    panel.pieces = window_->pieces(first, read, found, floats);
    scratch_size_ = std::max(scratch_size_, floats);
    return found;
  }
  for (std::size_t i = 0; i < places; ++i) {
    const std::size_t y = i % inner / s.kernel[1], x = i % s.kernel[1], channel = first + i / inner;
    const std::size_t row = in_.row(), down = y * s.dilation[0], along = x * s.dilation[1];
    found.push_back(static_cast<std::int32_t>(channel * in_.plane() + in_.first() + down * row +
                                              along * in_.lanes - s.padding[0] * row -
                                              s.padding[1] * in_.lanes));
  }
  return found;
}

void Conv::Panel::add(Kind kind, std::size_t channels, const Strip& strip) {
  if (strips.empty() || strips.back().kind != kind || strips.back().channels != channels) {
    strips.push_back({kind, channels, {}});
  }
  strips.back().each.push_back(strip);
}

Conv::Panel Conv::panel(const ConvWeights& given, std::size_t group, Span inputs, Span outputs) {
  const ConvShape& s = shape_;
  const std::size_t inner = s.kernel[0] * s.kernel[1], width = s.channels / s.groups;
  Panel made{inputs.begin == 0, inputs.end == width, {}, {}};
  const std::vector<std::int32_t> at = offsets(given, group, inputs, outputs, made);
  std::vector<Reader> singles;
  for (std::size_t o = outputs.begin; o < outputs.end; ++o) {
    if (block_[o]) {
      add_block(given, static_cast<std::uint32_t>(o), inputs, at, made);
      o += kBlock - 1;
      continue;
    }
    const float* weights = given.weights.data() + (o * width + inputs.begin) * inner;
    Reader reader(static_cast<std::uint32_t>(o), at.size());
    for (std::size_t i = 0; i < at.size(); ++i) {
      if (weights[i] != 0) reader.add(i);
    }
    if (reader.kept || made.opens || made.closes) singles.push_back(std::move(reader));
  }
  singles = pair_up(std::move(singles), widest_);
  for (std::size_t first = 0; first < singles.size();) {
    std::size_t channels = kTogether;
    while (channels > 1 && (channels * floats(widest_) > kernels_.sums * 16 ||
                            channels > singles.size() - first)) {
      channels /= 2;
    }
    add_singles(given, singles.data() + first, channels, inputs, at, made);
    first += channels;
  }
  return made;
}

void Conv::add_singles(const ConvWeights& given, const Reader* readers, std::size_t channels,
                       Span inputs, const std::vector<std::int32_t>& at, Panel& panel) {
  const std::size_t inner = shape_.kernel[0] * shape_.kernel[1];
  const std::size_t width = shape_.channels / shape_.groups;
  // So much of what pairs share comes first, as they all do.
  std::size_t common = channels > 1 ? at.size() : 0, count = 0;
  for (std::size_t c = 0; c + 1 < channels; c += 2) {
    common = std::min(common, shared(readers[c], readers[c + 1]));
  }
  std::vector<std::vector<Entry>> each(channels);
  for (std::size_t c = 0; c < channels; ++c) {
    const float* weights = given.weights.data() + (readers[c].output * width + inputs.begin) * inner;
    std::vector<Entry> rest;
    for (std::size_t i = 0; i < at.size(); ++i) {
      if (!readers[c].has(i)) continue;
      const bool both = each[c].size() < common && readers[c ^ 1].has(i);
      (both ? each[c] : rest).push_back({at[i], weights[i]});
    }
    each[c].insert(each[c].end(), rest.begin(), rest.end());
    count = std::max(count, each[c].size());
  }
  const bool near = window_ && widest_ <= kNarrow && channels > 1 &&
                    *std::max_element(at.begin(), at.end()) <= std::numeric_limits<std::uint16_t>::max();
  panel.add(near ? Kind::kNear : Kind::kFar, channels,
            {static_cast<std::uint32_t>(outputs_.size()),
             static_cast<std::uint32_t>(near ? near_.size() : entries_.size()),
             static_cast<std::uint32_t>(common), static_cast<std::uint32_t>(count - common)});
  for (std::size_t c = 0; c < channels; ++c) outputs_.push_back(readers[c].output);
  for (std::size_t i = 0; i < count; ++i) {
    std::vector<Entry> turn;
    for (const std::vector<Entry>& entries : each) {
      // The shorter ones go on with zeros, over pixels that they have read.
      const std::int32_t last = entries.empty() ? 0 : entries.back().offset;
      turn.push_back(i < entries.size() ? entries[i] : Entry{last, 0.0f});
    }
    if (!near) {
      entries_.insert(entries_.end(), turn.begin(), turn.end());
      continue;
    }
    std::uint16_t offsets[kTogether];
    for (std::size_t c = 0; c < channels; ++c) offsets[c] = static_cast<std::uint16_t>(turn[c].offset);
    near_.resize(near_.size() + channels / 2);  // two offsets to a float
    std::memcpy(near_.data() + near_.size() - channels / 2, offsets, channels * sizeof *offsets);
    for (const Entry& entry : turn) near_.push_back(entry.value);
  }
}

void Conv::add_block(const ConvWeights& given, std::uint32_t output, Span inputs,
                     const std::vector<std::int32_t>& at, Panel& panel) {
  const std::size_t inner = shape_.kernel[0] * shape_.kernel[1];
  const std::size_t fan = given.weights.size() / shape_.outputs;
  const float* weights = given.weights.data() + output * fan + inputs.begin * inner;
  const std::size_t begin = block_entries_.size();
  for (std::size_t i = 0; i < at.size(); ++i) {
    BlockEntry entry{at[i], {}};
    bool any = false;
    for (std::size_t k = 0; k < kBlock; ++k) any |= (entry.values[k] = weights[k * fan + i]) != 0;
    if (any) block_entries_.push_back(entry);
  }
  panel.add(Kind::kBlock, kBlock,
            {static_cast<std::uint32_t>(outputs_.size()), static_cast<std::uint32_t>(begin), 0,
             static_cast<std::uint32_t>(block_entries_.size() - begin)});
  outputs_.push_back(output);
}

}  // namespace regrow
