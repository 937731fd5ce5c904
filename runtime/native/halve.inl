// The largest of each 2 x 2 pixels; included by kernels.inl.

// NaN is larger than anything.
REGROW_INLINE float larger(float a, float b) { return b > a || b != b ? b : a; }

// One image: the larger of two rows first, of as many rows as fit, and then of neighbours.
void halve_image(const float* from, std::size_t row, std::size_t rows, std::size_t pixels,
                 std::size_t step, float* to) {
  constexpr std::size_t kRoom = 1024;
  alignas(64) float kept[kRoom + 2 * kVec];
  const std::size_t at_once = step == pixels ? kRoom / (2 * pixels) : 1;
  for (std::size_t y = 0; y < rows; y += at_once) {
    const std::size_t count = std::min(at_once, rows - y);
    for (std::size_t i = 0; i < count; ++i, from += 2 * row) {
      for (std::size_t x = 0; x < 2 * pixels; x += kVec) {
        store(kept + i * 2 * pixels + x, larger(load(from + x), load(from + row + x)));
      }
    }
    float* out = to + y * step;
    const std::size_t all = count * pixels;
    std::size_t x = 0;
    for (; x + kVec <= all; x += kVec) {
      const Vec a = load(kept + 2 * x), b = load(kept + 2 * x + kVec);
      store(out + x, larger(evens(a, b), odds(a, b)));
    }
    for (; x < all; ++x) out[x] = larger(kept[2 * x], kept[2 * x + 1]);
  }
}

void halve(const float* from, std::size_t row, std::size_t rows, std::size_t pixels,
           std::size_t lanes, std::size_t step, float* to) {
  if (lanes == 1 && pixels <= 512) return halve_image(from, row, rows, pixels, step, to);
  with_lanes(lanes, [&](auto known) {
    constexpr std::size_t kLanes = decltype(known)::value;
    for (std::size_t y = 0; y < rows; ++y, from += 2 * row, to += step) {
      const float *top = from, *bottom = from + row;
      float* out = to;
      for (std::size_t x = 0; x < pixels; ++x) {
        for (std::size_t l = 0; l < kLanes; ++l) {
          out[l] = larger(larger(top[l], top[kLanes + l]), larger(bottom[l], bottom[kLanes + l]));
        }
        top += 2 * kLanes, bottom += 2 * kLanes, out += kLanes;
      }
    }
  });
}
