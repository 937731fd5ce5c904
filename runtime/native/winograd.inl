// The inner loops of winograd.cpp; included by kernels.inl.

// Values at 0, 1, ... 5 at the points 0, +-a, +-b and infinity, up to what the kernel's side divides by.
REGROW_INLINE void to_points(const Vec (&d)[6], Vec (&to)[6]) {
  constexpr float a = kPointA, b = kPointB;
  const Vec even_a = d[4] + -b * b * d[2], odd_a = d[3] + -b * b * d[1];
  const Vec even_b = d[4] + -a * a * d[2], odd_b = d[3] + -a * a * d[1];
  to[0] = a * a * b * b * d[0] + (-(a * a + b * b) * d[2] + d[4]);
  to[1] = even_a + a * odd_a;
  to[2] = even_a + -a * odd_a;
  to[3] = even_b + b * odd_b;
  to[4] = even_b + -b * odd_b;
  to[5] = a * a * b * b * d[1] + (-(a * a + b * b) * d[3] + d[5]);
}

// The weights at +-a have been multiplied by a, those at +-b by b squared. So every sum here has one
// product at most, and compilers have no choice which to fuse: all layouts give the same bits.
REGROW_INLINE void from_points(const Vec (&m)[6], Vec (&to)[4]) {
  constexpr float a = kPointA, b = kPointB;
  const Vec even_a = m[1] + m[2], odd_a = m[1] + -1.0f * m[2];
  const Vec even_b = m[3] + m[4], odd_b = m[3] + -1.0f * m[4];
  to[0] = 1 / a * even_a + (1 / (b * b) * even_b + m[0]);
  to[1] = 1 / b * odd_b + odd_a;
  to[2] = a * even_a + even_b;
  to[3] = a * a * odd_a + (b * odd_b + m[5]);
}

void rows_to_points(const float* const* rows, const float* mask, std::size_t floats, float* to,
                    std::size_t pitch) {
  for (std::size_t x = 0; x < floats; x += kVec) {
    Vec d[6], v[6];
REGROW_UNROLL
    for (std::size_t i = 0; i < 6; ++i) d[i] = masked(load(rows[i] + x), mask + x);
    to_points(d, v);
REGROW_UNROLL
    for (std::size_t i = 0; i < 6; ++i) store(to + i * pitch + x, v[i]);
  }
}

// How 16 columns, tiles or images of tiles, lie in rows of pixels: four tiles side by side (Quads),
// or each by itself.
template <std::size_t Lanes, bool Quads>
struct Columns {
  static constexpr std::size_t kOffsets = Quads ? 4 : 16 / Lanes;

  // Pixels 0 to 5 of the columns of a register, which is one of kParts.
  static REGROW_INLINE void gather(const float* from, const std::int32_t* offsets, std::size_t part,
                                   Vec (&to)[6]) {
    if constexpr (Quads) {
      Vec first[4], second[4];
REGROW_UNROLL
      for (std::size_t i = 0; i < 4; ++i) {
        const std::size_t at = (part * 4 + i) * kVec;
        const float* quad = from + offsets[at / 16] + at % 16;
        first[i] = load(quad), second[i] = load(quad + 4);
      }
      const Vec even[2] = {evens(first[0], first[1]), evens(first[2], first[3])};
      const Vec odd[2] = {odds(first[0], first[1]), odds(first[2], first[3])};
      to[0] = evens(even[0], even[1]), to[1] = evens(odd[0], odd[1]);
      to[2] = odds(even[0], even[1]), to[3] = odds(odd[0], odd[1]);
      to[4] = evens(evens(second[0], second[1]), evens(second[2], second[3]));
      to[5] = evens(odds(second[0], second[1]), odds(second[2], second[3]));
    } else if constexpr (Lanes == 16) {
REGROW_UNROLL
      for (std::size_t j = 0; j < 6; ++j) to[j] = load(from + offsets[0] + j * 16 + part * kVec);
    } else {
      alignas(64) float pixels[6][16];
      for (std::size_t i = 0; i < kOffsets; ++i) {
        for (std::size_t j = 0; j < 6; ++j) {
          std::memcpy(pixels[j] + i * Lanes, from + offsets[i] + j * Lanes, Lanes * sizeof(float));
        }
      }
      for (std::size_t j = 0; j < 6; ++j) to[j] = load(pixels[j] + part * kVec);
    }
  }

  // Pixels 0 to 3, into `nowhere` if an offset is negative.
  static REGROW_INLINE void scatter(const Vec (&pixels)[4], const std::int32_t* offsets,
                                    std::size_t part, float* to, float* nowhere) {
    if constexpr (Quads) {
      const Vec even[2] = {lows(pixels[0], pixels[2]), highs(pixels[0], pixels[2])};
      const Vec odd[2] = {lows(pixels[1], pixels[3]), highs(pixels[1], pixels[3])};
REGROW_UNROLL
      for (std::size_t i = 0; i < 4; ++i) {
        const std::size_t at = (part * 4 + i) * kVec;
        const std::int32_t offset = offsets[at / 16];
        const Vec quarter = i % 2 ? highs(even[i / 2], odd[i / 2]) : lows(even[i / 2], odd[i / 2]);
        store(offset < 0 ? nowhere : to + offset + at % 16, quarter);
      }
    } else if constexpr (Lanes == 16) {
REGROW_UNROLL
      for (std::size_t j = 0; j < 4; ++j) store(to + offsets[0] + j * 16 + part * kVec, pixels[j]);
    } else {
      constexpr std::size_t kHere = kVec > Lanes ? kVec : Lanes;  // columns that begin in a register
      alignas(64) float values[4][kHere];
      for (std::size_t j = 0; j < 4; ++j) store(values[j], pixels[j]);
      for (std::size_t i = 0; i < kVec; i += Lanes < kVec ? Lanes : kVec) {
        const std::size_t column = part * kVec + i;
        const std::int32_t offset = offsets[column / Lanes];
        if (offset < 0) continue;
        for (std::size_t j = 0; j < 4; ++j) {
          std::memcpy(to + offset + j * Lanes + column % Lanes, values[j] + i,
                      std::min(Lanes, kVec) * sizeof(float));
        }
      }
    }
  }
};

template <typename Columns>
void columns_to_points_of(const std::int32_t* offsets, std::size_t groups, const float* from,
                          std::size_t pitch, float* to, std::size_t step) {
  for (std::size_t g = 0; g < groups; ++g, offsets += Columns::kOffsets, to += 16) {
    for (std::size_t part = 0; part < kParts; ++part) {
      for (std::size_t i = 0; i < 6; ++i) {
        Vec d[6], v[6];
        Columns::gather(from + i * pitch, offsets, part, d);
        to_points(d, v);
REGROW_UNROLL
        for (std::size_t j = 0; j < 6; ++j) store(to + (i * 6 + j) * step + part * kVec, v[j]);
      }
    }
  }
}

template <typename Columns>
void points_to_pixels_of(const std::int32_t* offsets, std::size_t groups, const float* from,
                         std::size_t step, float* to, std::size_t pitch, float* nowhere) {
  for (std::size_t g = 0; g < groups; ++g, offsets += Columns::kOffsets, from += 16) {
    for (std::size_t part = 0; part < kParts; ++part) {
      Vec rows[4][6];
REGROW_UNROLL
      for (std::size_t i = 0; i < 6; ++i) {
        Vec m[6], row[4];
REGROW_UNROLL
        for (std::size_t j = 0; j < 6; ++j) m[j] = load(from + (i * 6 + j) * step + part * kVec);
        from_points(m, row);
REGROW_UNROLL
        for (std::size_t j = 0; j < 4; ++j) rows[j][i] = row[j];
      }
      Vec pixels[4][4];
REGROW_UNROLL
      for (std::size_t j = 0; j < 4; ++j) {
        Vec column[4];
        from_points(rows[j], column);
REGROW_UNROLL
        for (std::size_t i = 0; i < 4; ++i) pixels[i][j] = column[i];
      }
REGROW_UNROLL
      for (std::size_t i = 0; i < 4; ++i) {
        Columns::scatter(pixels[i], offsets, part, to + i * pitch, nowhere);
      }
    }
  }
}

void columns_to_points(std::size_t lanes, bool quads, const std::int32_t* offsets,
                       std::size_t groups, const float* from, std::size_t pitch, float* to,
                       std::size_t step) {
  if (quads) return columns_to_points_of<Columns<1, true>>(offsets, groups, from, pitch, to, step);
  with_lanes(lanes, [&](auto known) {
    columns_to_points_of<Columns<decltype(known)::value, false>>(offsets, groups, from, pitch, to, step);
  });
}

void points_to_pixels(std::size_t lanes, bool quads, const std::int32_t* offsets,
                      std::size_t groups, const float* from, std::size_t step, float* to,
                      std::size_t pitch, float* nowhere) {
  if (quads) {
    return points_to_pixels_of<Columns<1, true>>(offsets, groups, from, step, to, pitch, nowhere);
  }
  with_lanes(lanes, [&](auto known) {
    points_to_pixels_of<Columns<decltype(known)::value, false>>(offsets, groups, from, step, to,
                                                                pitch, nowhere);
  });
}

// So many of the outputs of a block, for so many registers of columns.
template <std::size_t Outputs, std::size_t N>
void multiply_tile(const float* weights, std::size_t channels, const float* from,
                   std::size_t columns, float* to) {
  Vec sums[Outputs][N];
REGROW_UNROLL
  for (std::size_t o = 0; o < Outputs; ++o) {
REGROW_UNROLL
    for (std::size_t t = 0; t < N; ++t) sums[o][t] = all(0.0f);
  }
  for (std::size_t c = 0; c < channels; ++c, weights += kWide, from += columns) {
    Vec values[N];
REGROW_UNROLL
    for (std::size_t t = 0; t < N; ++t) values[t] = load(from + t * kVec);
REGROW_UNROLL
    for (std::size_t o = 0; o < Outputs; ++o) {
      const float weight = weights[o];
REGROW_UNROLL
      for (std::size_t t = 0; t < N; ++t) sums[o][t] += weight * values[t];
    }
  }
REGROW_UNROLL
  for (std::size_t o = 0; o < Outputs; ++o) {
REGROW_UNROLL
    for (std::size_t t = 0; t < N; ++t) store(to + o * columns + t * kVec, sums[o][t]);
  }
}

template <std::size_t... N>
void multiply_any(std::index_sequence<N...>, std::size_t vectors, const float* weights,
                  std::size_t channels, const float* from, std::size_t columns, float* to) {
  using Multiply = void (*)(const float*, std::size_t, const float*, std::size_t, float*);
  static constexpr Multiply kAll[] = {&multiply_tile<REGROW_OUTPUTS, (N + 1) * kParts>...};
  kAll[vectors - 1](weights, channels, from, columns, to);
}

void multiply(const float* weights, std::size_t channels, const float* from, std::size_t groups,
              float* to) {
  constexpr std::size_t kMost = REGROW_OUTPUT_TILE;
  const std::size_t pieces = (groups + kMost - 1) / kMost;
  for (std::size_t i = 0; i < pieces; ++i) {
    const std::size_t begin = groups * i / pieces, end = groups * (i + 1) / pieces;
    for (std::size_t o = 0; o < kWide; o += REGROW_OUTPUTS) {
      multiply_any(std::make_index_sequence<kMost>{}, end - begin, weights + o, channels,
                   from + begin * 16, groups * 16, to + o * groups * 16 + begin * 16);
    }
  }
}

void finish_row(const float* from, std::size_t floats, float bias, const float* residual, float low,
                float high, float* to, std::size_t next) {
  const auto finished = [&](std::size_t x) {
    Vec v = load(from + x) + all(bias);
    if (residual) v += load(residual + x);
    return at_most(at_least(v, low), high);
  };
  std::size_t x = 0;
  for (; x + kVec <= floats; x += kVec) {
    store(to + x, finished(x));
    prefetch_to_write(to + x + next);
  }
  if (x < floats) {
    float last[kVec];
    store(last, finished(x));
    std::memcpy(to + x, last, (floats - x) * sizeof(float));
  }
}
