// The inner loop of across.cpp; included by kernels.inl.

// Weights of a channel are kept in registers, and each of its pixels is read once.
template <std::size_t Side>
void sum_across_of(const float* in, std::size_t row, std::size_t plane, std::size_t channels,
                   const std::uint16_t* masks, const float* values, float* to) {
  Vec sums[Side][Side];
REGROW_UNROLL
  for (std::size_t y = 0; y < Side; ++y) {
REGROW_UNROLL
    for (std::size_t x = 0; x < Side; ++x) sums[y][x] = all(0.0f);
  }
  for (std::size_t c = 0; c < channels; ++c, in += plane, masks += 9) {
    Vec weights[9];
REGROW_UNROLL
    for (std::size_t i = 0; i < 9; ++i) {
      weights[i] = expand(masks[i], values);
      values += ones(masks[i]);
      prefetch(reinterpret_cast<const char*>(values) + kAhead);
    }
REGROW_UNROLL
    for (std::size_t y = 0; y < Side; ++y) {
REGROW_UNROLL
      for (std::size_t x = 0; x < Side; ++x) {
        const float pixel = in[y * row + x];
REGROW_UNROLL
        for (std::size_t i = 0; i < 9; ++i) {
          // Place i of the output's kernel lies over this pixel.
          const std::size_t up = y + 1 - i / 3, left = x + 1 - i % 3;
          if (up < Side && left < Side) sums[up][left] += pixel * weights[i];
        }
      }
    }
  }
REGROW_UNROLL
  for (std::size_t y = 0; y < Side; ++y) {
REGROW_UNROLL
    for (std::size_t x = 0; x < Side; ++x) store(to + (y * Side + x) * kAcross, sums[y][x]);
  }
}

void sum_across(std::size_t side, const float* in, std::size_t row, std::size_t plane,
                std::size_t channels, const std::uint16_t* masks, const float* values, float* to) {
  if constexpr (kExpands) {
    static_assert(kMostAcross == 4);
    const auto sum = side == 2 ? &sum_across_of<2> : side == 3 ? &sum_across_of<3> : &sum_across_of<4>;
    sum(in, row, plane, channels, masks, values, to);
  }
}
