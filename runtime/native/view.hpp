// Values as strided arrays, for all operations that are not convolutions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <vector>

namespace regrow {

// Entries of a buffer: `dims` without the batch, `strides` in floats, and the images side by side.
struct View {
  std::size_t buffer = 0, offset = 0;
  std::vector<std::size_t> dims, strides;

  std::size_t entries() const {
    std::size_t n = 1;
    for (const std::size_t dim : dims) n *= dim;
    return n;
  }
};

enum class Unary { relu, relu6, sigmoid, tanh, silu, hardswish, hardsigmoid, mish, softplus,
                   leaky_relu, elu, gelu, gelu_tanh, clamp, affine };
enum class Binary { add, sub, mul };

struct PoolShape {
  std::size_t kernel[2], stride[2], padding[2], dilation[2];
  bool mean, count_padding;
};

// Each computes one of `shares` parts of `to`; parts need each other in nothing. Pointers are those
// of the views' first entries.
void copy(const float* from, const View& a, float* to, const View& b, std::size_t lanes,
          std::size_t share, std::size_t shares);
void unary(Unary op, float p, float q, const float* from, const View& a, float* to, const View& b,
           std::size_t lanes, std::size_t share, std::size_t shares);
// `lanes_b` is 1 for an array that is the same for all images.
void binary(Binary op, const float* x, const View& a, std::size_t lanes_a, const float* y,
            const View& b, std::size_t lanes_b, float* to, const View& c, std::size_t lanes,
            float low, float high, std::size_t share, std::size_t shares);
void pool(const PoolShape& shape, const float* from, const View& a, float* to, const View& b,
          std::size_t lanes, std::size_t share, std::size_t shares);
// Windows of unequal sizes that cover the input.
void adaptive_pool(const float* from, const View& a, float* to, const View& b, std::size_t lanes,
                   std::size_t share, std::size_t shares);
// The offsets of all entries of a view's last `axes` axes, in C order.
std::vector<std::size_t> offsets(const View& view, std::size_t axes);
// Over the last axes of a view, of which `inner` are the offsets; the others are the output's.
void mean(const float* from, const View& a, const std::vector<std::size_t>& inner, float* to,
          const View& b, std::size_t lanes, std::size_t share, std::size_t shares);
void softmax(const float* from, const View& a, float* to, const View& b, bool log,
             std::size_t lanes, std::size_t share, std::size_t shares);  // over the last axis
// `in` and `out` are the offsets of the last `axes` axes.
void layer_norm(const float* from, const View& a, const std::vector<std::size_t>& in,
                std::size_t axes, float eps, const float* weight, const float* bias, float* to,
                const View& b, const std::vector<std::size_t>& out, std::size_t lanes,
                std::size_t share, std::size_t shares);

}  // namespace regrow
