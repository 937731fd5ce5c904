// Adaptive binary range coder: 32-bit range, carry by cache as in LZMA, 15-bit probabilities that
// are counts at first and forget slowly later. All arithmetic is on integers, so that a stream
// means the same on every machine. docs/format-2.md says it in words.
#pragma once

#include <cstddef>
#include <cstdint>
#include <stdexcept>
#include <vector>

namespace regrow {

// What a file is refused with; the caller knows the section's name.
struct Damaged : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// 2^16 / (n + 3/2): how far the bit after n others moves a probability that counts them.
struct Steps {
  static constexpr unsigned kMost = 1023;
  std::uint16_t of[kMost + 1] = {};

  constexpr Steps() {
    for (unsigned n = 0; n <= kMost; ++n) {
      of[n] = static_cast<std::uint16_t>((1u << 17) / (2 * n + 3));
    }
  }
};
inline constexpr Steps kSteps{};

// Probability of a zero bit, learned from the bits seen. The bounds keep every decision above
// 1/1024 of a bit, so that a stream's length limits what it can claim to hold.
class Bit {
 public:
  std::uint32_t zero() const {
    const std::uint32_t p = zero_ >> (kFine - kBits);
    return p < kLeast ? kLeast : (p > kOne - kLeast ? kOne - kLeast : p);
  }
  void learn(bool one) {
    const std::uint64_t step = kSteps.of[seen_];
    if (one) {
      zero_ -= static_cast<std::uint32_t>(zero_ * step >> 16);
    } else {
      zero_ += static_cast<std::uint32_t>(((1u << kFine) - 1 - zero_) * step >> 16);
    }
    seen_ += seen_ < Steps::kMost;
  }

  static constexpr unsigned kBits = 15;
  static constexpr std::uint32_t kOne = 1u << kBits;
  static constexpr std::uint32_t kLeast = 24;

 private:
  static constexpr unsigned kFine = 22;
  std::uint32_t zero_ = 1u << (kFine - 1);
  std::uint16_t seen_ = 0;
};

constexpr unsigned kRaw = 8;  // bits coded at once where all are equally likely

class Encoder {
 public:
  void put(Bit& bit, bool one) {
    const std::uint32_t bound = (range_ >> Bit::kBits) * bit.zero();
    if (one) {
      low_ += bound;
      range_ -= bound;
    } else {
      range_ = bound;
    }
    bit.learn(one);
    while (range_ < kTop) shift();
  }

  // Equally likely bits; at most 32.
  void put_raw(std::uint32_t value, unsigned bits) {
    while (bits > 0) {
      const unsigned now = bits < kRaw ? bits : kRaw;
      bits -= now;
      range_ >>= now;
      low_ += std::uint64_t{range_} * ((value >> bits) & ((1u << now) - 1));
      while (range_ < kTop) shift();
    }
  }

  std::vector<std::uint8_t> finish() {
    for (int i = 0; i < 5; ++i) flush();
    out_.erase(out_.begin());  // always zero
    return std::move(out_);
  }

 private:
  static constexpr std::uint32_t kTop = 1u << 24;

  void shift() {
    flush();
    range_ <<= 8;
  }

  void flush() {
    if (low_ < 0xff000000u || low_ >> 32) {
      const auto carry = static_cast<std::uint8_t>(low_ >> 32);
      do {
        out_.push_back(static_cast<std::uint8_t>(cache_ + carry));
        cache_ = 0xff;
      } while (--pending_ != 0);
      cache_ = static_cast<std::uint8_t>(low_ >> 24);
    }
    ++pending_;
    low_ = (low_ & 0x00ffffff) << 8;
  }

  std::uint64_t low_ = 0;
  std::uint32_t range_ = 0xffffffff;
  std::uint8_t cache_ = 0;
  std::uint64_t pending_ = 1;
  std::vector<std::uint8_t> out_;
};

class Decoder {
 public:
  Decoder(const std::uint8_t* data, std::size_t size) : next_(data), end_(data + size) {
    for (int i = 0; i < 4; ++i) code_ = code_ << 8 | byte();
    if (code_ >= range_) throw Damaged("no encoder writes its bytes");
  }

  bool get(Bit& bit) {
    const std::uint32_t bound = (range_ >> Bit::kBits) * bit.zero();
    const bool one = code_ >= bound;
    if (one) {
      code_ -= bound;
      range_ -= bound;
    } else {
      range_ = bound;
    }
    bit.learn(one);
    while (range_ < kTop) refill();
    return one;
  }

  std::uint32_t get_raw(unsigned bits) {
    std::uint32_t value = 0;
    while (bits > 0) {
      const unsigned now = bits < kRaw ? bits : kRaw;
      bits -= now;
      range_ >>= now;
      const std::uint32_t part = code_ / range_;
      if (part >> now != 0) throw Damaged("no encoder writes its bytes");
      code_ -= part * range_;
      value = value << now | part;
      while (range_ < kTop) refill();
    }
    return value;
  }

  // A stream has exactly the bytes that decoding it reads, and ends at the least number of its last
  // interval, as `Encoder::finish` writes it: no two streams mean the same.
  void finish() const {
    if (next_ != end_) throw Damaged("bytes are left over behind its last value");
    if (code_ != 0) throw Damaged("no encoder writes its bytes");
  }

 private:
  static constexpr std::uint32_t kTop = 1u << 24;

  void refill() {
    code_ = code_ << 8 | byte();
    range_ <<= 8;
  }

  std::uint8_t byte() {
    if (next_ == end_) throw Damaged("it ends too early");
    return *next_++;
  }

  const std::uint8_t* next_;
  const std::uint8_t* end_;
  std::uint32_t range_ = 0xffffffff, code_ = 0;
};

// A symbol of a fixed number of bits, the highest first, each bit in the context of those before.
template <unsigned Bits>
class Tree {
 public:
  void put(Encoder& coder, std::uint32_t symbol) {
    std::uint32_t node = 1;
    for (unsigned i = Bits; i-- > 0;) {
      const bool one = (symbol >> i) & 1;
      coder.put(bits_[node], one);
      node = node << 1 | one;
    }
  }
  std::uint32_t get(Decoder& coder) {
    std::uint32_t node = 1;
    for (unsigned i = 0; i < Bits; ++i) node = node << 1 | coder.get(bits_[node]);
    return node - (1u << Bits);
  }

 private:
  Bit bits_[std::size_t{1} << Bits];
};

}  // namespace regrow
