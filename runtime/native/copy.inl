// Pieces of a window (window.hpp), laid out; included by kernels.inl.

// Masks stay in registers, or in the first cache where there are many.
template <std::size_t N>
void copy_masked_of(const Piece* pieces, std::size_t count, const float* in, const float* mask, float* to) {
  Vec masks[N];
REGROW_UNROLL
  for (std::size_t i = 0; i < N; ++i) masks[i] = load(mask + i * kVec);
  for (const Piece* const end = pieces + count; pieces < end; ++pieces) {
REGROW_UNROLL
    for (std::size_t i = 0; i < N; ++i) {
      store(to + pieces->to + i * kVec, masked(load(in + pieces->from + i * kVec), masks[i]));
    }
  }
}

void copy_masked(const Piece* pieces, std::size_t count, std::size_t vectors, const float* in,
                 const float* mask, float* to) {
  switch (vectors) {
    case 1: return copy_masked_of<kParts>(pieces, count, in, mask, to);
    case 2: return copy_masked_of<2 * kParts>(pieces, count, in, mask, to);
    case 4: return copy_masked_of<4 * kParts>(pieces, count, in, mask, to);
    case 5: return copy_masked_of<5 * kParts>(pieces, count, in, mask, to);
    default: break;
  }
  for (const Piece* const end = pieces + count; pieces < end; ++pieces) {
    for (std::size_t i = 0; i < vectors * 16; i += kVec) {
      store(to + pieces->to + i, masked(load(in + pieces->from + i), load(mask + i)));
    }
  }
}

// Calls `go` with the number of lanes, known to the compiler.
template <typename Go>
void with_lanes(std::size_t lanes, Go go) {
  switch (lanes) {
    case 1: return go(std::integral_constant<std::size_t, 1>{});
    case 2: return go(std::integral_constant<std::size_t, 2>{});
    case 4: return go(std::integral_constant<std::size_t, 4>{});
    case 8: return go(std::integral_constant<std::size_t, 8>{});
    default: return go(std::integral_constant<std::size_t, 16>{});
  }
}

void copy_gathered(const Piece* pieces, std::size_t count, std::size_t pixels, std::size_t lanes,
                   const float* in, const std::int32_t* indices, float* to) {
  with_lanes(lanes, [&](auto known) {
    constexpr std::size_t kLanes = decltype(known)::value;
    for (const Piece* piece = pieces; piece < pieces + count; ++piece) {
      const float* from = in + piece->from;
      float* out = to + piece->to;
      if constexpr (kLanes == 1 && kGathers) {
        for (std::size_t p = 0; p < pixels; p += kVec) store(out + p, gather(from, indices + p));
        continue;
      }
      for (std::size_t p = 0; p < pixels; ++p, out += kLanes) {
        if (indices[p] < 0) {
          std::memset(out, 0, kLanes * sizeof(float));
        } else {
          std::memcpy(out, from + indices[p], kLanes * sizeof(float));
        }
      }
    }
  });
}

void copy_picked(const Piece* pieces, std::size_t count, std::size_t vectors, const float* in,
                 const Pick* picks, float* to) {
  for (const Piece* piece = pieces; piece < pieces + count; ++piece) {
    const float* from = in + piece->from;
    const Pick* pick_of = picks;
    for (std::size_t v = 0; v < vectors; ++v, ++pick_of) {
      Vec found = pick(from + pick_of->from[0], pick_of->numbers, pick_of->lanes[0]);
      if (pick_of->lanes[1]) {
        found = either(found, pick(from + pick_of->from[1], pick_of->numbers, pick_of->lanes[1]));
      }
      store(to + piece->to + v * 16, found);
    }
  }
}
