// A register of floats. The including file defines REGROW_WIDTH, how many floats it has room for.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>
#if defined(__AVX2__)
#include <immintrin.h>
#endif

namespace regrow {

namespace {  // Each instruction set has its own.

constexpr std::size_t kVec = REGROW_WIDTH;

#if defined(__GNUC__) || defined(__clang__)

typedef float Vec __attribute__((vector_size(4 * REGROW_WIDTH)));
// For as few floats: where they are less than a register has room for, a part of one.
typedef float Quad __attribute__((vector_size(16)));
typedef float Octet __attribute__((vector_size(32)));
template <std::size_t Floats>
using VecOf = std::conditional_t<(Floats >= kVec), Vec, std::conditional_t<Floats == 4, Quad, Octet>>;

#define REGROW_INLINE inline __attribute__((always_inline))
#if defined(__clang__)
#define REGROW_UNROLL _Pragma("unroll")
#else
// Sums stay in registers only where every loop over them is unrolled.
#define REGROW_UNROLL _Pragma("GCC unroll 32")
#endif

// An address that is computed once: added up in each instruction that reads from it, it costs all of
// them a step of their own.
REGROW_INLINE const float* settled(const float* at) {
  asm("" : "+r"(at));
  return at;
}
REGROW_INLINE void prefetch(const void* at) { __builtin_prefetch(at); }
REGROW_INLINE void prefetch_to_write(const float* at) { __builtin_prefetch(at, 1); }
template <typename V = Vec>
REGROW_INLINE V load(const float* from) {
  V v;
  std::memcpy(&v, from, sizeof v);
  return v;
}
// A register that is loaded once: compilers would rather load again in each instruction that reads it.
template <typename V>
REGROW_INLINE V held(V v) {
#if defined(__AVX2__)
  asm("" : "+v"(v));
#endif
  return v;
}
template <typename V>
REGROW_INLINE void store(float* to, V v) {
  std::memcpy(to, &v, sizeof v);
}
template <typename V = Vec>
REGROW_INLINE V all(float x) {
  return V{} + x;
}
// NaN stays NaN.
template <typename V>
REGROW_INLINE V at_least(V v, float low) {
  return v < low ? all<V>(low) : v;
}
template <typename V>
REGROW_INLINE V at_most(V v, float high) {
  return v > high ? all<V>(high) : v;
}
// Zero where the mask's bits are, whatever stood there.
typedef std::int32_t VecBits __attribute__((vector_size(4 * REGROW_WIDTH)));
template <typename V>
REGROW_INLINE V masked(V v, V mask) {
  using Bits = decltype(v < v);
  return (V)((Bits)v & (Bits)mask);
}
template <typename V>
REGROW_INLINE V masked(V v, const float* mask) {
  return masked(v, load<V>(mask));
}

// Every second lane of two registers, from the first or the second on.
template <std::size_t... I>
REGROW_INLINE Vec evens(Vec a, Vec b, std::index_sequence<I...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (2 * I)...);
#else
  return __builtin_shuffle(a, b, VecBits{static_cast<std::int32_t>(2 * I)...});
#endif
}
template <std::size_t... I>
REGROW_INLINE Vec odds(Vec a, Vec b, std::index_sequence<I...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (2 * I + 1)...);
#else
  return __builtin_shuffle(a, b, VecBits{static_cast<std::int32_t>(2 * I + 1)...});
#endif
}
REGROW_INLINE Vec evens(Vec a, Vec b) { return evens(a, b, std::make_index_sequence<kVec>{}); }
REGROW_INLINE Vec odds(Vec a, Vec b) { return odds(a, b, std::make_index_sequence<kVec>{}); }

// The lower, or upper, halves of two registers, taking turns.
template <std::size_t... I>
REGROW_INLINE Vec lows(Vec a, Vec b, std::index_sequence<I...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (I / 2 + I % 2 * kVec)...);
#else
  return __builtin_shuffle(a, b, VecBits{static_cast<std::int32_t>(I / 2 + I % 2 * kVec)...});
#endif
}
template <std::size_t... I>
REGROW_INLINE Vec highs(Vec a, Vec b, std::index_sequence<I...>) {
#if defined(__clang__)
  return __builtin_shufflevector(a, b, (kVec / 2 + I / 2 + I % 2 * kVec)...);
#else
  return __builtin_shuffle(
      a, b, VecBits{static_cast<std::int32_t>(kVec / 2 + I / 2 + I % 2 * kVec)...});
#endif
}
REGROW_INLINE Vec lows(Vec a, Vec b) { return lows(a, b, std::make_index_sequence<kVec>{}); }
REGROW_INLINE Vec highs(Vec a, Vec b) { return highs(a, b, std::make_index_sequence<kVec>{}); }

// NaN is larger than anything.
REGROW_INLINE Vec larger(Vec a, Vec b) {
  const Vec most = b > a ? b : a;
  return b != b ? b : most;
}

#else

#define REGROW_INLINE inline
#define REGROW_UNROLL

struct Vec {
  float lane[kVec];
};

#define REGROW_LANES(expression)                       \
  Vec r;                                               \
  for (std::size_t i = 0; i < kVec; ++i) r.lane[i] = (expression); \
  return r

inline const float* settled(const float* at) { return at; }
inline void prefetch(const void*) {}
inline void prefetch_to_write(const float*) {}
template <std::size_t Floats>
using VecOf = Vec;
template <typename V = Vec>
V load(const float* from) {
  REGROW_LANES(from[i]);
}
inline Vec held(Vec v) { return v; }
inline void store(float* to, Vec v) { std::memcpy(to, v.lane, sizeof v.lane); }
template <typename V = Vec>
V all(float x) {
  REGROW_LANES(x);
}
inline Vec operator+(Vec a, Vec b) { REGROW_LANES(a.lane[i] + b.lane[i]); }
inline Vec operator*(Vec a, Vec b) { REGROW_LANES(a.lane[i] * b.lane[i]); }
inline Vec operator*(float x, Vec b) { REGROW_LANES(x * b.lane[i]); }
inline Vec& operator+=(Vec& a, Vec b) { return a = a + b; }
inline Vec at_least(Vec v, float low) { REGROW_LANES(v.lane[i] < low ? low : v.lane[i]); }
inline Vec at_most(Vec v, float high) { REGROW_LANES(v.lane[i] > high ? high : v.lane[i]); }
inline Vec masked(Vec v, Vec mask) {
  std::uint32_t bits;
  REGROW_LANES((std::memcpy(&bits, mask.lane + i, 4), bits ? v.lane[i] : 0.0f));
}
inline Vec masked(Vec v, const float* mask) { return masked(v, load(mask)); }

inline Vec evens(Vec a, Vec b) { REGROW_LANES(i < kVec / 2 ? a.lane[2 * i] : b.lane[2 * i - kVec]); }
inline Vec odds(Vec a, Vec b) {
  REGROW_LANES(i < kVec / 2 ? a.lane[2 * i + 1] : b.lane[2 * i + 1 - kVec]);
}
inline Vec lows(Vec a, Vec b) { REGROW_LANES((i % 2 ? b : a).lane[i / 2]); }
inline Vec highs(Vec a, Vec b) { REGROW_LANES((i % 2 ? b : a).lane[kVec / 2 + i / 2]); }
inline Vec larger(Vec a, Vec b) {
  REGROW_LANES(b.lane[i] > a.lane[i] || b.lane[i] != b.lane[i] ? b.lane[i] : a.lane[i]);
}

#undef REGROW_LANES

#endif

// Single floats at indices, zero where one is negative; slow where there is no instruction for it.
#if defined(__AVX512F__)
constexpr bool kGathers = true;
REGROW_INLINE Vec gather(const float* from, const std::int32_t* indices) {
  const __m512i at = _mm512_loadu_si512(indices);
  const __mmask16 inside = _mm512_cmpge_epi32_mask(at, _mm512_setzero_si512());
  return (Vec)_mm512_mask_i32gather_ps(_mm512_setzero_ps(), inside, at, from, 4);
}
#elif defined(__AVX2__)
constexpr bool kGathers = true;
REGROW_INLINE Vec gather(const float* from, const std::int32_t* indices) {
  const __m256i at = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(indices));
  const __m256 inside = _mm256_castsi256_ps(_mm256_cmpgt_epi32(at, _mm256_set1_epi32(-1)));
  return (Vec)_mm256_mask_i32gather_ps(_mm256_setzero_ps(), from, at, inside, 4);
}
#else
constexpr bool kGathers = false;
REGROW_INLINE Vec gather(const float*, const std::int32_t*) { return all(0.0f); }
#endif

// Of the 32 floats behind an address those of some numbers, in the lanes of a mask's bits, and zeros
// elsewhere; only where there is an instruction for it.
#if defined(__AVX512F__)
constexpr bool kPicks = true;
REGROW_INLINE Vec pick(const float* from, const std::uint8_t* numbers, std::uint16_t mask) {
  const __m512i which =
      _mm512_cvtepu8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(numbers)));
  return (Vec)_mm512_maskz_permutex2var_ps(mask, (__m512)load(from), which, (__m512)load(from + 16));
}
REGROW_INLINE Vec either(Vec a, Vec b) { return (Vec)((VecBits)a | (VecBits)b); }
#else
constexpr bool kPicks = false;
REGROW_INLINE Vec pick(const float*, const std::uint8_t*, std::uint16_t) { return all(0.0f); }
REGROW_INLINE Vec either(Vec a, Vec) { return a; }
#endif

// Values that lie side by side, in the lanes of a mask's bits, and zeros elsewhere; only where there is an
// instruction for it.
#if defined(__AVX512F__)
constexpr bool kExpands = true;
REGROW_INLINE Vec expand(std::uint16_t mask, const float* from) {
  return (Vec)_mm512_maskz_expandloadu_ps(mask, from);
}
REGROW_INLINE int ones(std::uint16_t mask) { return __builtin_popcount(mask); }
#else
constexpr bool kExpands = false;
REGROW_INLINE Vec expand(std::uint16_t, const float*) { return all(0.0f); }
REGROW_INLINE int ones(std::uint16_t) { return 0; }
#endif

}  // namespace
}  // namespace regrow
