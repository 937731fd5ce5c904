// Included by one file for each instruction set, which defines REGROW_ISA, REGROW_NAME, REGROW_WIDTH,
// REGROW_TILE and REGROW_BLOCK_TILE.
#include <algorithm>
#include <utility>

#include "kernels.hpp"
#include "vec.hpp"

namespace regrow {
namespace {

template <std::size_t N>
REGROW_INLINE void finish_and_store(Vec (&sums)[N], const Finish& finish, float* out,
                                    std::size_t at) {
REGROW_UNROLL
  for (std::size_t t = 0; t < N; ++t) {
    Vec v = sums[t];
    if (finish.residual) v += load(finish.residual + at + t * kVec);
    v = at_most(at_least(v, finish.low), finish.high);
    if (finish.keep) v = masked(v, finish.keep + t * kVec);
    store(out + at + t * kVec, v);
  }
}

constexpr std::size_t kParts = 16 / kVec;  // registers to 16 floats

// Short tiles keep several sums of each vector, since an addition waits for the one before.
constexpr std::size_t ways(std::size_t vectors) {
  return vectors >= 8 ? 1 : vectors >= 4 ? 2 : vectors >= 2 ? 4 : 8;
}

template <std::size_t N>
void run_tile(const float* in, const Entry* entries, std::size_t count, float bias, bool first,
              bool last, const Finish& finish, float* out) {
  constexpr std::size_t kWays = ways(N);
  Vec sums[kWays][N];
REGROW_UNROLL
  for (std::size_t t = 0; t < N; ++t) sums[0][t] = first ? all(bias) : load(out + t * kVec);
REGROW_UNROLL
  for (std::size_t way = 1; way < kWays; ++way) {
REGROW_UNROLL
    for (std::size_t t = 0; t < N; ++t) sums[way][t] = Vec{};
  }
  const Entry* const end = entries + count;
  for (; entries + kWays <= end; entries += kWays) {
REGROW_UNROLL
    for (std::size_t way = 0; way < kWays; ++way) {
      const float* from = in + entries[way].offset;
      const float value = entries[way].value;
REGROW_UNROLL
      for (std::size_t t = 0; t < N; ++t) sums[way][t] += value * load(from + t * kVec);
    }
  }
  for (; entries < end; ++entries) {
    const float* from = in + entries->offset;
    const float value = entries->value;
REGROW_UNROLL
    for (std::size_t t = 0; t < N; ++t) sums[0][t] += value * load(from + t * kVec);
  }
REGROW_UNROLL
  for (std::size_t way = 1; way < kWays; ++way) {
REGROW_UNROLL
    for (std::size_t t = 0; t < N; ++t) sums[0][t] += sums[way][t];
  }
  if (last) {
    finish_and_store(sums[0], finish, out, 0);
  } else {
REGROW_UNROLL
    for (std::size_t t = 0; t < N; ++t) store(out + t * kVec, sums[0][t]);
  }
}

template <std::size_t N>
void run_block_tile(const float* in, const BlockEntry* entries, std::size_t count,
                    const float* bias, bool first, bool last, const Finish& finish, float* out,
                    std::size_t stride) {
  Vec sums[kBlock][N];
REGROW_UNROLL
  for (std::size_t channel = 0; channel < kBlock; ++channel) {
REGROW_UNROLL
    for (std::size_t t = 0; t < N; ++t) {
      sums[channel][t] = first ? all(bias[channel]) : load(out + channel * stride + t * kVec);
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
      for (std::size_t t = 0; t < N; ++t) sums[channel][t] += value * pixels[t];
    }
  }
REGROW_UNROLL
  for (std::size_t channel = 0; channel < kBlock; ++channel) {
    if (last) {
      finish_and_store(sums[channel], finish, out, channel * stride);
    } else {
REGROW_UNROLL
      for (std::size_t t = 0; t < N; ++t) store(out + channel * stride + t * kVec, sums[channel][t]);
    }
  }
}

template <std::size_t... N>
void run_any(std::index_sequence<N...>, std::size_t vectors, const float* in, const Entry* entries,
             std::size_t count, float bias, bool first, bool last, const Finish& finish,
             float* out) {
  using Run = void (*)(const float*, const Entry*, std::size_t, float, bool, bool, const Finish&,
                       float*);
  static constexpr Run kRuns[] = {&run_tile<(N + 1) * kParts>...};
  kRuns[vectors - 1](in, entries, count, bias, first, last, finish, out);
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

void run(std::size_t vectors, const float* in, const Entry* entries, std::size_t count, float bias,
         bool first, bool last, const Finish& finish, float* out) {
  run_any(std::make_index_sequence<REGROW_TILE>{}, vectors, in, entries, count, bias, first, last,
          finish, out);
}

void run_block(std::size_t vectors, const float* in, const BlockEntry* entries, std::size_t count,
               const float* bias, bool first, bool last, const Finish& finish, float* out,
               std::size_t stride) {
  run_block_any(std::make_index_sequence<REGROW_BLOCK_TILE>{}, vectors, in, entries, count, bias,
                first, last, finish, out, stride);
}

// NaN is larger than anything.
REGROW_INLINE float larger(float a, float b) { return b > a || b != b ? b : a; }

// The number of lanes is known to the compiler for all that programs commonly have.
template <std::size_t Lanes>
void halve_lanes(const float* top, const float* bottom, std::size_t pixels, std::size_t given,
                 float* out) {
  const std::size_t lanes = Lanes ? Lanes : given;
  for (std::size_t x = 0; x < pixels; ++x, top += 2 * lanes, bottom += 2 * lanes, out += lanes) {
    for (std::size_t l = 0; l < lanes; ++l) {
      out[l] = larger(larger(top[l], top[lanes + l]), larger(bottom[l], bottom[lanes + l]));
    }
  }
}

template <std::size_t... N>
void halve_any(std::index_sequence<N...>, const float* top, const float* bottom,
               std::size_t pixels, std::size_t lanes, float* out) {
  using Halve = void (*)(const float*, const float*, std::size_t, std::size_t, float*);
  static constexpr Halve kHalves[] = {&halve_lanes<N>...};
  kHalves[lanes < sizeof...(N) ? lanes : 0](top, bottom, pixels, lanes, out);
}

void halve(const float* top, const float* bottom, std::size_t pixels, std::size_t lanes,
           float* out) {
  halve_any(std::make_index_sequence<17>{}, top, bottom, pixels, lanes, out);
}

}  // namespace

extern const Kernels REGROW_ISA;
const Kernels REGROW_ISA = {REGROW_NAME, REGROW_TILE, REGROW_BLOCK_TILE, &run, &run_block,
                           &halve};

}  // namespace regrow
