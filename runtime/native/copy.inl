// Pieces of a window (window.hpp), laid out; included by kernels.inl.

template <std::size_t Vectors>
void copy_masked_of(const Piece* pieces, std::size_t count, std::size_t given, const float* in,
                    const float* masks, float* to) {
  const std::size_t vectors = Vectors ? Vectors : given;
  for (const Piece* const end = pieces + count; pieces < end; ++pieces) {
    const float* from = in + pieces->from;
    const float* mask = masks + pieces->what;
    for (std::size_t i = 0; i < vectors * 16; i += kVec) {
      store(to + pieces->to + i, masked(load(from + i), mask + i));
    }
  }
}

void copy_masked(const Piece* pieces, std::size_t count, std::size_t vectors, const float* in,
                 const float* masks, float* to) {
  const auto copy = vectors == 1 ? &copy_masked_of<1>
                    : vectors == 4 ? &copy_masked_of<4>
                                   : &copy_masked_of<0>;
  copy(pieces, count, vectors, in, masks, to);
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
      const std::int32_t* index = indices + piece->what;
      float* out = to + piece->to;
      if constexpr (kLanes == 1 && kGathers) {
        for (std::size_t p = 0; p < pixels; p += kVec) store(out + p, gather(from, index + p));
        continue;
      }
      for (std::size_t p = 0; p < pixels; ++p, out += kLanes) {
        if (index[p] < 0) {
          std::memset(out, 0, kLanes * sizeof(float));
        } else {
          std::memcpy(out, from + index[p], kLanes * sizeof(float));
        }
      }
    }
  });
}

void copy_picked(const Piece* pieces, std::size_t count, std::size_t vectors, const float* in,
                 const Pick* picks, float* to) {
  for (const Piece* piece = pieces; piece < pieces + count; ++piece) {
    const float* from = in + piece->from;
    const Pick* pick_of = picks + piece->what;
    for (std::size_t v = 0; v < vectors; ++v, ++pick_of) {
      Vec found = pick(from + pick_of->from[0], pick_of->numbers, pick_of->lanes[0]);
      if (pick_of->lanes[1]) {
        found = either(found, pick(from + pick_of->from[1], pick_of->numbers, pick_of->lanes[1]));
      }
      store(to + piece->to + v * 16, found);
    }
  }
}
