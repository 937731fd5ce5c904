// Included by one file for each instruction set, which defines REGROW_ISA, REGROW_NAME, REGROW_WIDTH,
// REGROW_TILE, REGROW_BLOCK_TILE, REGROW_SUMS, REGROW_BLOCK_COST, REGROW_OUTPUTS, REGROW_OUTPUT_TILE,
// REGROW_WINOGRAD_DENSITY, REGROW_WINOGRAD_WAYS and REGROW_ACROSS_DENSITY.
#include <algorithm>
#include <cstring>
#include <type_traits>
#include <utility>

#include "kernels.hpp"
#include "vec.hpp"

namespace regrow {
namespace {

template <typename V>
constexpr std::size_t kFloats = sizeof(V) / sizeof(float);

// Rows are `stride` floats apart.
template <typename V, std::size_t Rows, std::size_t N>
REGROW_INLINE void finish_and_store(V (&sums)[Rows][N], const Finish& finish, std::size_t stride,
                                    std::size_t plane, float* out) {
REGROW_UNROLL
  for (std::size_t r = 0; r < Rows; ++r) {
REGROW_UNROLL
    for (std::size_t t = 0; t < N; ++t) {
      const std::size_t at = r * stride + t * kFloats<V>;
      V v = sums[r][t];
      if (finish.residual) v += load<V>(finish.residual + plane + at);
      v = at_most(at_least(v, finish.low), finish.high);
      if (finish.keep) v = masked(v, finish.keep + at);
      store(out + plane + at, v);
    }
  }
}

constexpr std::size_t kParts = 16 / kVec;  // registers to 16 floats
constexpr std::size_t kAhead = 2048;       // bytes

// The weights of some channels that take turns.
template <std::size_t Channels>
struct Turns {
  using Unit = Entry;
  const Entry* at;
  REGROW_INLINE explicit Turns(const Entry* from) : at(from) {}
  REGROW_INLINE std::int32_t offset(std::size_t channel) const { return at[channel].offset; }
  REGROW_INLINE float value(std::size_t channel) const { return at[channel].value; }
  REGROW_INLINE void next() {
    prefetch(reinterpret_cast<const char*>(at) + kAhead);
    at += Channels;
  }
};

template <std::size_t Channels>
struct NearTurns {
  using Unit = float;
  const NearEntries<Channels>* at;
  REGROW_INLINE explicit NearTurns(const float* from)
      : at(reinterpret_cast<const NearEntries<Channels>*>(from)) {}
  REGROW_INLINE std::int32_t offset(std::size_t channel) const { return at->offsets[channel]; }
  REGROW_INLINE float value(std::size_t channel) const { return at->values[channel]; }
  REGROW_INLINE void next() {
    prefetch(reinterpret_cast<const char*>(at) + kAhead);
    ++at;
  }
};

template <typename V, std::size_t Channels, std::size_t Rows, std::size_t N, typename Entries>
REGROW_INLINE void run_strip(std::size_t stride, const float* in, Entries entries, const Strip& strip,
                             const std::uint32_t* outputs, std::size_t plane, const float* bias,
                             bool first, bool last, const Finish& finish, float* out) {
  constexpr std::size_t kStep = kFloats<V>;
  V sums[Channels][Rows][N];
REGROW_UNROLL
  for (std::size_t c = 0; c < Channels; ++c) {
    const std::size_t at = outputs[c] * plane;
REGROW_UNROLL
    for (std::size_t r = 0; r < Rows; ++r) {
REGROW_UNROLL
      for (std::size_t t = 0; t < N; ++t) {
        sums[c][r][t] =
            first ? all<V>(bias[outputs[c]]) : load<V>(out + at + r * stride + t * kStep);
      }
    }
  }
  // Those that come next are on their way meanwhile.
REGROW_UNROLL
  for (std::size_t c = 0; c < Channels; ++c) {
    const float* const next = out + outputs[Channels + c] * plane;
REGROW_UNROLL
    for (std::size_t r = 0; r < Rows; ++r) {
REGROW_UNROLL
      for (std::size_t t = 0; t < N; ++t) prefetch_to_write(next + r * stride + t * kStep);
    }
  }
  // Loads are what the multiply-adds wait for: two outputs share those they can (pairs.hpp).
  for (std::size_t left = Channels > 1 ? strip.shared : 0; left > 0; --left, entries.next()) {
REGROW_UNROLL
    for (std::size_t c = 0; c + 1 < Channels; c += 2) {
      const float* from = settled(in + entries.offset(c));
      const float one = entries.value(c), other = entries.value(c + 1);
REGROW_UNROLL
      for (std::size_t r = 0; r < Rows; ++r) {
REGROW_UNROLL
        for (std::size_t t = 0; t < N; ++t) {
          const V pixels = held(load<V>(from + r * stride + t * kStep));
          sums[c][r][t] += one * pixels;
          sums[c + 1][r][t] += other * pixels;
        }
      }
    }
  }
  for (std::size_t left = strip.count; left > 0; --left, entries.next()) {
REGROW_UNROLL
    for (std::size_t c = 0; c < Channels; ++c) {
      const float* from = settled(in + entries.offset(c));
      const float value = entries.value(c);
REGROW_UNROLL
      for (std::size_t r = 0; r < Rows; ++r) {
REGROW_UNROLL
        for (std::size_t t = 0; t < N; ++t) {
          sums[c][r][t] += value * load<V>(from + r * stride + t * kStep);
        }
      }
    }
  }
REGROW_UNROLL
  for (std::size_t c = 0; c < Channels; ++c) {
    const std::size_t at = outputs[c] * plane;
    if (last) {
      finish_and_store(sums[c], finish, stride, at, out);
      continue;
    }
REGROW_UNROLL
    for (std::size_t r = 0; r < Rows; ++r) {
REGROW_UNROLL
      for (std::size_t t = 0; t < N; ++t) store(out + at + r * stride + t * kStep, sums[c][r][t]);
    }
  }
}

template <typename V, std::size_t Channels, std::size_t Rows, std::size_t N, typename Entries>
void run_tile(std::size_t stride, const float* in, const typename Entries::Unit* entries,
              const Strip* strips, std::size_t strip_count, const std::uint32_t* outputs,
              std::size_t plane, const float* bias, bool first, bool last, const Finish& finish,
              float* out) {
  for (const Strip* const end = strips + strip_count; strips < end; ++strips) {
    run_strip<V, Channels, Rows, N>(stride, in, Entries(entries + strips->begin), *strips,
                                    outputs + strips->outputs, plane, bias, first, last, finish, out);
  }
}

template <std::size_t N>
void run_block_tile(const float* in, const BlockEntry* entries, std::size_t count,
                    const float* bias, bool first, bool last, const Finish& finish, float* out,
                    std::size_t stride) {
  Vec sums[kBlock][1][N];
REGROW_UNROLL
  for (std::size_t channel = 0; channel < kBlock; ++channel) {
REGROW_UNROLL
    for (std::size_t t = 0; t < N; ++t) {
      sums[channel][0][t] = first ? all(bias[channel]) : load(out + channel * stride + t * kVec);
    }
  }
  for (const BlockEntry* const end = entries + count; entries < end; ++entries) {
    Vec pixels[N];
REGROW_UNROLL
    for (std::size_t t = 0; t < N; ++t) pixels[t] = load(in + entries->offset + t * kVec);
REGROW_UNROLL
    for (std::size_t channel = 0; channel < kBlock; ++channel) {
      const float value = entries->values[channel];
REGROW_UNROLL
      for (std::size_t t = 0; t < N; ++t) sums[channel][0][t] += value * pixels[t];
    }
  }
REGROW_UNROLL
  for (std::size_t channel = 0; channel < kBlock; ++channel) {
    if (last) {
      finish_and_store(sums[channel], finish, 0, channel * stride, out);
    } else {
REGROW_UNROLL
      for (std::size_t t = 0; t < N; ++t) store(out + channel * stride + t * kVec, sums[channel][0][t]);
    }
  }
}

template <typename Entries>
using Run = void (*)(std::size_t, const float*, const typename Entries::Unit*, const Strip*,
                     std::size_t, const std::uint32_t*, std::size_t, const float*, bool, bool,
                     const Finish&, float*);

// For 1, 2, 3 ... vectors in a row, as many as there are sums for.
template <std::size_t Channels, std::size_t Rows, typename Entries, std::size_t... N>
Run<Entries> run_of(std::index_sequence<N...>, std::size_t vectors) {
  static constexpr Run<Entries> kRuns[] = {
      &run_tile<Vec, Channels, Rows, (N + 1) * kParts, Entries>...};
  return kRuns[vectors - 1];
}

template <std::size_t Channels, std::size_t Rows>
Run<Turns<Channels>> run_of(std::size_t vectors) {
  constexpr std::size_t kMost =
      std::min<std::size_t>(REGROW_TILE / Rows, REGROW_SUMS / (Channels * Rows));
  if constexpr (kMost == 0) {
    return nullptr;  // There are not so many registers, and nobody asks.
  } else {
    return run_of<Channels, Rows, Turns<Channels>>(std::make_index_sequence<kMost>{}, vectors);
  }
}

template <std::size_t Channels>
Run<Turns<Channels>> run_of(const Tile& tile) {
  return tile.rows == 1   ? run_of<Channels, 1>(tile.vectors)
         : tile.rows == 2 ? run_of<Channels, 2>(tile.vectors)
         : tile.rows == 3 ? run_of<Channels, 3>(tile.vectors)
                          : run_of<Channels, 4>(tile.vectors);
}

// Calls `go` with the number of channels, known to the compiler.
template <typename Go>
void with_channels(std::size_t channels, Go go) {
  switch (channels) {
    case 1: return go(std::integral_constant<std::size_t, 1>{});
    case 2: return go(std::integral_constant<std::size_t, 2>{});
    case 4: return go(std::integral_constant<std::size_t, 4>{});
    default: return go(std::integral_constant<std::size_t, kTogether>{});
  }
}

template <std::size_t... N>
void run_block_any(std::index_sequence<N...>, std::size_t vectors, const float* in,
                   const BlockEntry* entries, std::size_t count, const float* bias, bool first,
                   bool last, const Finish& finish, float* out, std::size_t stride) {
  using Run = void (*)(const float*, const BlockEntry*, std::size_t, const float*, bool, bool,
                       const Finish&, float*, std::size_t);
  static constexpr Run kRuns[] = {&run_block_tile<(N + 1) * kParts>...};
  kRuns[vectors - 1](in, entries, count, bias, first, last, finish, out, stride);
}

void run(std::size_t channels, const Tile& tile, const float* in, const Entry* entries,
         const Strip* strips, std::size_t strip_count, const std::uint32_t* outputs,
         std::size_t plane, const float* bias, bool first, bool last, const Finish& finish,
         float* out) {
  with_channels(channels, [&](auto known) {
    run_of<decltype(known)::value>(tile)(tile.stride, in, entries, strips, strip_count, outputs, plane,
                                         bias, first, last, finish, out);
  });
}

// Parts of a register, or as many as there are floats for.
template <std::size_t Floats, typename Entries, std::size_t Channels>
constexpr Run<Entries> few() {
  using V = VecOf<Floats>;
  return &run_tile<V, Channels, 1, Floats / kFloats<V>, Entries>;
}

void run_near(std::size_t channels, std::size_t floats, const float* in, const float* entries,
              const Strip* strips, std::size_t strip_count, const std::uint32_t* outputs,
              std::size_t plane, const float* bias, bool first, bool last, const Finish& finish,
              float* out) {
  with_channels(channels, [&](auto known) {
    constexpr std::size_t kChannels = decltype(known)::value;
    constexpr std::size_t kMost = std::min<std::size_t>(kNarrow, REGROW_SUMS / kChannels);
    if constexpr (kChannels > 1) {
      using Entries = NearTurns<kChannels>;
      Run<Entries> chosen = floats == 4 ? few<4, Entries, kChannels>() : few<8, Entries, kChannels>();
      if constexpr (kMost > 0) {
        if (floats >= 16) {
          chosen = run_of<kChannels, 1, Entries>(std::make_index_sequence<kMost>{}, floats / 16);
        }
      }
      chosen(0, in, entries, strips, strip_count, outputs, plane, bias, first, last, finish, out);
    }
  });
}

void run_block(std::size_t vectors, const float* in, const BlockEntry* entries, std::size_t count,
               const float* bias, bool first, bool last, const Finish& finish, float* out,
               std::size_t stride) {
  run_block_any(std::make_index_sequence<REGROW_BLOCK_TILE>{}, vectors, in, entries, count, bias,
                first, last, finish, out, stride);
}

#include "copy.inl"

#include "halve.inl"

#include "winograd.inl"

#include "across.inl"

}  // namespace

extern const Kernels REGROW_ISA;
const Kernels REGROW_ISA = {
    REGROW_NAME,
    REGROW_TILE,
    REGROW_BLOCK_TILE,
    REGROW_SUMS,
    REGROW_BLOCK_COST,
    &run,
    &run_near,
    &run_block,
    &copy_masked,
    &copy_gathered,
    kPicks ? &copy_picked : nullptr,
    &halve,
    REGROW_WINOGRAD_DENSITY,
    REGROW_WINOGRAD_WAYS,
    &rows_to_points,
    &columns_to_points,
    &multiply,
    &points_to_pixels,
    &finish_row,
    REGROW_ACROSS_DENSITY,
    &sum_across,
};

}  // namespace regrow
