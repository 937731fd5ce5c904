#include "convolution.hpp"

#include <algorithm>

#include "across.hpp"
#include "conv.hpp"
#include "winograd.hpp"

namespace regrow {

std::size_t nonzeros(const float* weights, std::size_t count) {
  return count - static_cast<std::size_t>(std::count(weights, weights + count, 0.0f));
}

std::unique_ptr<Convolution> make_convolution(const ConvWeights& weights, const Geometry& in,
                                              const Geometry& out, float low, float high,
                                              const Kernels& kernels, std::size_t shares) {
  if (Winograd::pays(weights, out, kernels)) {
    return std::make_unique<Winograd>(weights, in, out, low, high, kernels, shares);
  }
  if (Across::pays(weights, in, out, kernels)) {
    return std::make_unique<Across>(weights, in, out, low, high, kernels, shares);
  }
  return std::make_unique<Conv>(weights, in, out, low, high, kernels, shares);
}

}  // namespace regrow
