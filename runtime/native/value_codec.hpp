// Values of kept weights, to the bit. Sign, exponent and the leading bits of the fraction are coded
// in contexts, since weights that pruning left are of few magnitudes; the other bits are noise.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <stdexcept>
#include <vector>

#include "range_coder.hpp"

namespace regrow {

// A floating-point format of sign, exponent and fraction, in that order from the highest bit.
template <unsigned Exponent, unsigned Fraction>
class Floats {
 public:
  static constexpr unsigned kContexts = 1;

  void put(Encoder& coder, unsigned, std::uint32_t value) {
    const std::uint32_t exponent = value >> Fraction & ((1u << Exponent) - 1);
    coder.put(sign_, value >> (Exponent + Fraction) & 1);
    exponents_.put(coder, exponent);
    leading_[exponent].put(coder, value >> kNoise & ((1u << kLeading) - 1));
    coder.put_raw(value & ((1u << kNoise) - 1), kNoise);
  }
  std::uint32_t get(Decoder& coder, unsigned) {
    const std::uint32_t sign = coder.get(sign_);
    const std::uint32_t exponent = exponents_.get(coder);
    const std::uint32_t leading = leading_[exponent].get(coder);
    return sign << (Exponent + Fraction) | exponent << Fraction | leading << kNoise |
           coder.get_raw(kNoise);
  }

 private:
  static constexpr unsigned kLeading = 4, kNoise = Fraction - kLeading;
  Bit sign_;
  Tree<Exponent> exponents_;
  Tree<kLeading> leading_[std::size_t{1} << Exponent];
};

// Whole numbers of -127 to 127, as two's complement bytes. Each row has a scale of its own, so that
// how large its values are depends on how many there are.
class Bytes {
 public:
  static constexpr unsigned kContexts = 8;

  void put(Encoder& coder, unsigned context, std::uint32_t value) {
    const bool negative = value >> 7 & 1;
    const std::uint32_t size = negative ? (256 - value) & 0xff : value;
    if (size > 127) throw std::invalid_argument("-128 is not coded");
    magnitudes_[context].put(coder, size);
    if (size != 0) coder.put(sign_, negative);
  }
  std::uint32_t get(Decoder& coder, unsigned context) {
    const std::uint32_t size = magnitudes_[context].get(coder);
    const bool negative = size != 0 && coder.get(sign_);
    return negative ? (256 - size) & 0xff : size;
  }

 private:
  Bit sign_;
  Tree<7> magnitudes_[kContexts];
};

// Calls `step(context, place)` for every place that `keep` (one byte each; null: all) keeps, in
// order, out of `count` places in `rows` rows. The context tells how many its row keeps.
template <typename Format, typename Step>
void each_value(const std::uint8_t* keep, std::size_t rows, std::size_t count, Step step) {
  const std::size_t length = rows == 0 ? 0 : count / rows;
  for (std::size_t row = 0; row < rows; ++row) {
    const std::size_t start = row * length;
    unsigned context = 0;
    if constexpr (Format::kContexts > 1) {
      std::size_t kept = length;
      if (keep) kept = length - std::count(keep + start, keep + start + length, std::uint8_t{0});
      while (context + 1 < Format::kContexts && kept >> (context + 1)) ++context;
    }
    for (std::size_t place = start; place < start + length; ++place) {
      if (!keep || keep[place]) step(context, place);
    }
  }
}

// `values` are raw bytes, which need not be aligned.
template <typename Format, typename Value>
std::vector<std::uint8_t> encode_values(const std::uint8_t* values, const std::uint8_t* keep,
                                        std::size_t rows, std::size_t count) {
  Encoder coder;
  auto format = std::make_unique<Format>();
  each_value<Format>(keep, rows, count, [&](unsigned context, std::size_t place) {
    Value value;
    std::memcpy(&value, values + place * sizeof(Value), sizeof(Value));
    format->put(coder, context, value);
  });
  return coder.finish();
}

// Writes the kept places alone.
template <typename Format, typename Value>
void decode_values(const std::uint8_t* data, std::size_t size, const std::uint8_t* keep,
                   std::size_t rows, std::size_t count, std::uint8_t* values) {
  Decoder coder(data, size);
  auto format = std::make_unique<Format>();
  each_value<Format>(keep, rows, count, [&](unsigned context, std::size_t place) {
    const auto value = static_cast<Value>(format->get(coder, context));
    std::memcpy(values + place * sizeof(Value), &value, sizeof(Value));
  });
  coder.finish();
}

}  // namespace regrow
