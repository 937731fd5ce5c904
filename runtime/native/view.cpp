#include "view.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>
#include <numeric>
#include <type_traits>

namespace regrow {

namespace {

// Calls `step(offset of each view...)` for a share of the outer `axes` axes of equally large views.
template <std::size_t N, typename Step>
void each(const std::array<const View*, N>& views, std::size_t axes, std::size_t share,
          std::size_t shares, Step step) {
  const std::vector<std::size_t>& dims = views[N - 1]->dims;
  std::size_t total = 1;
  for (std::size_t i = 0; i < axes; ++i) total *= dims[i];
  const std::size_t begin = total * share / shares, end = total * (share + 1) / shares;
  std::vector<std::size_t> place(axes);
  std::array<std::size_t, N> at{};
  std::size_t rest = begin;
  for (std::size_t i = axes; i-- > 0;) {
    place[i] = rest % dims[i];
    rest /= dims[i];
    for (std::size_t v = 0; v < N; ++v) at[v] += place[i] * views[v]->strides[i];
  }
  for (std::size_t index = begin; index < end; ++index) {
    step(at);
    for (std::size_t i = axes; i-- > 0;) {
      for (std::size_t v = 0; v < N; ++v) at[v] += views[v]->strides[i];
      if (++place[i] < dims[i]) break;
      for (std::size_t v = 0; v < N; ++v) at[v] -= dims[i] * views[v]->strides[i];
      place[i] = 0;
    }
  }
}

// Axes but the last one, over which the loops inside go; a scalar has a last axis of one entry.
std::size_t outer(const View& view) { return view.dims.empty() ? 0 : view.dims.size() - 1; }
std::size_t last(const View& view) { return view.dims.empty() ? 1 : view.dims.back(); }
std::size_t step_of(const View& view) { return view.strides.empty() ? 0 : view.strides.back(); }

// Calls `go` with the number of lanes, known to the compiler where it is 1 or a whole register.
template <typename Go>
void with_lanes(std::size_t lanes, Go go) {
  if (lanes == 1) return go(std::integral_constant<std::size_t, 1>{});
  if (lanes == 16) return go(std::integral_constant<std::size_t, 16>{});
  go(lanes);
}

template <typename Function>
void map(const float* from, const View& a, float* to, const View& b, std::size_t lanes,
         std::size_t share, std::size_t shares, Function function) {
  const std::size_t n = last(b), sa = step_of(a), sb = step_of(b);
  each<2>({&a, &b}, outer(b), share, shares, [&](const auto& at) {
    const float* x = from + at[0];
    float* y = to + at[1];
    if ((sa == lanes && sb == lanes) || n == 1) {
      for (std::size_t i = 0; i < n * lanes; ++i) y[i] = function(x[i]);
      return;
    }
    if (lanes == 1 && sb == 1 && sa == 0) {
      std::fill_n(y, n, function(*x));
      return;
    }
    if (lanes == 1 && sb == 1 && sa == 2) {  // a loop that the compiler knows how to make wide
      for (std::size_t k = 0; k < n; ++k) y[k] = function(x[2 * k]);
      return;
    }
    with_lanes(lanes, [&](auto known) {
      for (std::size_t k = 0; k < n; ++k) {
        for (std::size_t l = 0; l < known; ++l) y[k * sb + l] = function(x[k * sa + l]);
      }
    });
  });
}

template <typename Function>
void combine(const float* x, const View& a, std::size_t lanes_a, const float* y, const View& b,
             std::size_t lanes_b, float* to, const View& c, std::size_t lanes, std::size_t share,
             std::size_t shares, Function function) {
  const std::size_t n = last(c), sa = step_of(a), sb = step_of(b), sc = step_of(c);
  const bool flat = sa == lanes && sb == lanes && sc == lanes && lanes_a == lanes_b;
  const std::size_t la = lanes_a > 1 || lanes == 1, lb = lanes_b > 1 || lanes == 1;
  each<3>({&a, &b, &c}, outer(c), share, shares, [&](const auto& at) {
    const float *p = x + at[0], *q = y + at[1];
    float* r = to + at[2];
    if (flat) {
      for (std::size_t i = 0; i < n * lanes; ++i) r[i] = function(p[i], q[i]);
      return;
    }
    for (std::size_t k = 0; k < n; ++k) {
      for (std::size_t l = 0; l < lanes; ++l) {
        r[k * sc + l] = function(p[k * sa + l * la], q[k * sb + l * lb]);
      }
    }
  });
}

float sigmoid(float x) { return 1.0f / (1.0f + std::exp(-x)); }
float softplus(float x) { return x > 20.0f ? x : std::log1p(std::exp(x)); }
// NaN stays NaN; where the limits are crossed the upper one holds, as in PyTorch.
float clamped(float x, float low, float high) {
  const float above = x < low ? low : x;
  return above > high ? high : above;
}

}  // namespace

void copy(const float* from, const View& a, float* to, const View& b, std::size_t lanes,
          std::size_t share, std::size_t shares) {
  map(from, a, to, b, lanes, share, shares, [](float x) { return x; });
}

void unary(Unary op, float p, float q, const float* from, const View& a, float* to, const View& b,
           std::size_t lanes, std::size_t share, std::size_t shares) {
  const auto go = [&](auto function) { map(from, a, to, b, lanes, share, shares, function); };
  switch (op) {
    case Unary::relu: return go([](float x) { return x < 0 ? 0.0f : x; });
    case Unary::relu6: return go([](float x) { return clamped(x, 0, 6); });
    case Unary::sigmoid: return go([](float x) { return sigmoid(x); });
    case Unary::tanh: return go([](float x) { return std::tanh(x); });
    case Unary::silu: return go([](float x) { return x * sigmoid(x); });
    case Unary::hardswish: return go([](float x) { return x * clamped(x + 3, 0, 6) / 6; });
    case Unary::hardsigmoid: return go([](float x) { return clamped(x + 3, 0, 6) / 6; });
    case Unary::mish: return go([](float x) { return x * std::tanh(softplus(x)); });
    case Unary::softplus: return go([](float x) { return softplus(x); });
    case Unary::leaky_relu: return go([p](float x) { return x < 0 ? p * x : x; });
    case Unary::elu: return go([p](float x) { return x < 0 ? p * std::expm1(x) : x; });
    case Unary::gelu:
      return go([](float x) { return 0.5f * x * (1 + std::erf(x * 0.70710678f)); });
    case Unary::gelu_tanh:
      return go([](float x) {
        return 0.5f * x * (1 + std::tanh(0.79788456f * (x + 0.044715f * x * x * x)));
      });
    case Unary::clamp: return go([p, q](float x) { return clamped(x, p, q); });
    case Unary::affine: return go([p, q](float x) { return p * x + q; });
  }
}

void binary(Binary op, const float* x, const View& a, std::size_t lanes_a, const float* y,
            const View& b, std::size_t lanes_b, float* to, const View& c, std::size_t lanes,
            float low, float high, std::size_t share, std::size_t shares) {
  const auto go = [&](auto function) {
    combine(x, a, lanes_a, y, b, lanes_b, to, c, lanes, share, shares,
            [=](float u, float v) { return clamped(function(u, v), low, high); });
  };
  switch (op) {
    case Binary::add: return go([](float u, float v) { return u + v; });
    case Binary::sub: return go([](float u, float v) { return u - v; });
    case Binary::mul: return go([](float u, float v) { return u * v; });
  }
}

void pool(const PoolShape& s, const float* from, const View& a, float* to, const View& b,
          std::size_t lanes, std::size_t share, std::size_t shares) {
  const auto height = static_cast<std::ptrdiff_t>(a.dims[1]);
  const auto width = static_cast<std::ptrdiff_t>(a.dims[2]);
  each<2>({&a, &b}, 1, share, shares, [&](const auto& at) {
    for (std::size_t y = 0; y < b.dims[1]; ++y) {
      for (std::size_t x = 0; x < b.dims[2]; ++x) {
        const float* plane = from + at[0];
        float* out = to + at[1] + y * b.strides[1] + x * b.strides[2];
        const auto top = static_cast<std::ptrdiff_t>(y * s.stride[0]) - static_cast<std::ptrdiff_t>(s.padding[0]);
        const auto left = static_cast<std::ptrdiff_t>(x * s.stride[1]) - static_cast<std::ptrdiff_t>(s.padding[1]);
        std::fill_n(out, lanes, s.mean ? 0.0f : -std::numeric_limits<float>::infinity());
        std::size_t count = 0;
        for (std::size_t i = 0; i < s.kernel[0]; ++i) {
          const std::ptrdiff_t row = top + static_cast<std::ptrdiff_t>(i * s.dilation[0]);
          for (std::size_t j = 0; j < s.kernel[1]; ++j) {
            const std::ptrdiff_t column = left + static_cast<std::ptrdiff_t>(j * s.dilation[1]);
            const bool padded = row < height + static_cast<std::ptrdiff_t>(s.padding[0]) &&
                                column < width + static_cast<std::ptrdiff_t>(s.padding[1]);
            const bool inside = row >= 0 && row < height && column >= 0 && column < width;
            count += s.count_padding ? padded : inside;
            if (!inside) continue;
            const float* in = plane + static_cast<std::size_t>(row) * a.strides[1] +
                              static_cast<std::size_t>(column) * a.strides[2];
            for (std::size_t l = 0; l < lanes; ++l) {
              out[l] = s.mean ? out[l] + in[l] : (in[l] > out[l] || in[l] != in[l] ? in[l] : out[l]);
            }
          }
        }
        if (s.mean) {
          for (std::size_t l = 0; l < lanes; ++l) out[l] /= static_cast<float>(count);
        }
      }
    }
  });
}

void adaptive_pool(const float* from, const View& a, float* to, const View& b, std::size_t lanes,
                   std::size_t share, std::size_t shares) {
  const std::size_t height = a.dims[1], width = a.dims[2], rows = b.dims[1], columns = b.dims[2];
  each<2>({&a, &b}, 1, share, shares, [&](const auto& at) {
    for (std::size_t y = 0; y < rows; ++y) {
      const std::size_t top = y * height / rows, bottom = ((y + 1) * height + rows - 1) / rows;
      for (std::size_t x = 0; x < columns; ++x) {
        const std::size_t left = x * width / columns;
        const std::size_t right = ((x + 1) * width + columns - 1) / columns;
        float* out = to + at[1] + y * b.strides[1] + x * b.strides[2];
        with_lanes(lanes, [&](auto known) {
          for (std::size_t l = 0; l < known; ++l) {
            float sum = 0;
            for (std::size_t i = top; i < bottom; ++i) {
              const float* in = from + at[0] + i * a.strides[1] + l;
              for (std::size_t j = left; j < right; ++j) sum += in[j * a.strides[2]];
            }
            out[l] = sum;
          }
        });
        const auto count = static_cast<float>((bottom - top) * (right - left));
        for (std::size_t l = 0; l < lanes; ++l) out[l] /= count;
      }
    }
  });
}

std::vector<std::size_t> offsets(const View& view, std::size_t axes) {
  std::vector<std::size_t> found{0};
  for (std::size_t i = view.dims.size() - axes; i < view.dims.size(); ++i) {
    std::vector<std::size_t> next;
    for (const std::size_t start : found) {
      for (std::size_t k = 0; k < view.dims[i]; ++k) next.push_back(start + k * view.strides[i]);
    }
    found = std::move(next);
  }
  return found;
}

void mean(const float* from, const View& a, const std::vector<std::size_t>& inner, float* to,
          const View& b, std::size_t lanes, std::size_t share, std::size_t shares) {
  // Several sums, since an addition waits for the one before.
  constexpr std::size_t kSums = 8;
  const std::size_t n = inner.size();
  each<2>({&a, &b}, b.dims.size(), share, shares, [&](const auto& at) {
    for (std::size_t l = 0; l < lanes; ++l) {
      const float* x = from + at[0] + l;
      double sums[kSums] = {};
      std::size_t i = 0;
      for (; i + kSums <= n; i += kSums) {
        for (std::size_t k = 0; k < kSums; ++k) sums[k] += x[inner[i + k]];
      }
      for (; i < n; ++i) sums[0] += x[inner[i]];
      to[at[1] + l] = static_cast<float>(std::accumulate(sums, sums + kSums, 0.0) /
                                         static_cast<double>(n));
    }
  });
}

void softmax(const float* from, const View& a, float* to, const View& b, bool log,
             std::size_t lanes, std::size_t share, std::size_t shares) {
  const std::size_t n = last(a), sa = step_of(a), sb = step_of(b);
  each<2>({&a, &b}, outer(b), share, shares, [&](const auto& at) {
    for (std::size_t l = 0; l < lanes; ++l) {
      const float* x = from + at[0] + l;
      float* y = to + at[1] + l;
      float most = -std::numeric_limits<float>::infinity();
      for (std::size_t k = 0; k < n; ++k) most = std::max(most, x[k * sa]);
      double sum = 0;
      for (std::size_t k = 0; k < n; ++k) sum += std::exp(x[k * sa] - most);
      const auto total = static_cast<float>(log ? std::log(sum) : 1 / sum);
      for (std::size_t k = 0; k < n; ++k) {
        const float above = x[k * sa] - most;
        y[k * sb] = log ? above - total : std::exp(above) * total;
      }
    }
  });
}

void layer_norm(const float* from, const View& a, const std::vector<std::size_t>& in,
                std::size_t axes, float eps, const float* weight, const float* bias, float* to,
                const View& b, const std::vector<std::size_t>& out, std::size_t lanes,
                std::size_t share, std::size_t shares) {
  each<2>({&a, &b}, b.dims.size() - axes, share, shares, [&](const auto& at) {
    for (std::size_t l = 0; l < lanes; ++l) {
      double sum = 0, squares = 0;
      for (const std::size_t i : in) sum += from[at[0] + i + l];
      const double centre = sum / static_cast<double>(in.size());
      for (const std::size_t i : in) {
        const double d = from[at[0] + i + l] - centre;
        squares += d * d;
      }
      const double scale = 1 / std::sqrt(squares / static_cast<double>(in.size()) + eps);
      for (std::size_t k = 0; k < in.size(); ++k) {
        const auto v = static_cast<float>((from[at[0] + in[k] + l] - centre) * scale);
        to[at[1] + out[k] + l] = v * (weight ? weight[k] : 1.0f) + (bias ? bias[k] : 0.0f);
      }
    }
  });
}

}  // namespace regrow
