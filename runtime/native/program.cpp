#include "program.hpp"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <utility>

namespace regrow {

namespace {

const Kernels& kernels_of(const std::string& isa) {
  const Kernels* found = find_kernels(isa);
  if (!found) throw std::invalid_argument("this processor has no " + isa);
  return *found;
}

}  // namespace

Program::Program(std::size_t lanes, std::size_t threads, bool apart, const std::string& isa)
    : lanes_(lanes), shares_(apart ? 1 : threads), members_(apart ? threads : 1),
      kernels_(kernels_of(isa)) {
  if (lanes == 0 || 16 % lanes != 0) throw std::invalid_argument("lanes are 1, 2, 4, 8 or 16");
  if (threads == 0) throw std::invalid_argument("threads are at least 1");
}

std::size_t Program::buffer(std::size_t floats) {
  sizes_.push_back(floats);
  values_.emplace_back();
  constant_.push_back(false);
  return sizes_.size() - 1;
}

std::size_t Program::constant(std::vector<float> values) {
  sizes_.push_back(values.size());
  values_.push_back(std::move(values));
  constant_.push_back(true);
  return sizes_.size() - 1;
}

void Program::check(const View& view) const {
  if (view.buffer >= sizes_.size() || view.dims.size() != view.strides.size()) {
    throw std::invalid_argument("a view of no buffer");
  }
  std::size_t end = view.offset + lanes_of(view);
  for (std::size_t i = 0; i < view.dims.size(); ++i) {
    if (view.dims[i] == 0) throw std::invalid_argument("a view of nothing");
    end += (view.dims[i] - 1) * view.strides[i];
  }
  if (end > sizes_[view.buffer]) throw std::invalid_argument("a view beyond its buffer");
}

void Program::step(Run run, double useful, std::optional<Rows> rows) {
  if (!turns_.empty()) throw std::logic_error("the program is finished; no step can follow");
  steps_.push_back({std::move(run), std::move(rows)});
  useful_.push_back(useful);
}

void Program::conv(const ConvWeights& weights, const Geometry& in, std::size_t from,
                   const Geometry& out, std::size_t to, std::ptrdiff_t residual, float low,
                   float high) {
  const auto limit = static_cast<std::size_t>(std::numeric_limits<std::int32_t>::max());
  if (in.size() > limit || out.size() > limit) {
    throw std::invalid_argument("a value of more than 2^31 floats; run fewer images at once");
  }
  if (from >= sizes_.size() || to >= sizes_.size() || sizes_[from] < in.size() ||
      sizes_[to] < out.size() ||
      (residual >= 0 && sizes_[static_cast<std::size_t>(residual)] < out.size())) {
    throw std::invalid_argument("a buffer is too small for its convolution");
  }
  const std::shared_ptr<Convolution> made =
      make_convolution(weights, in, out, low, high, kernels_, shares_);
  convs_.push_back(made);
  const std::size_t floats = round_up(made->scratch_size(), 16);
  const std::size_t scratch = floats ? buffer(floats * shares_) : 0;
  std::optional<Rows> rows;
  if (const std::optional<std::size_t> below = made->below()) {
    rows = Rows{{from, in.first(), in.plane(), in.row(), in.height},
                {to, out.first(), out.plane(), out.row(), out.height},
                1, *below, residual, out.size(),
                [made](const std::vector<std::size_t>& until) { made->cut(until); }};
  }
  step(
      [=](float* const* buffers, std::size_t share, std::size_t stripe) {
        made->compute(buffers[from], floats ? buffers[scratch] + share * floats : nullptr,
                      residual >= 0 ? buffers[residual] : nullptr, buffers[to], share, stripe);
      },
      made->useful(), std::move(rows));
}

void Program::copy(View from, View to) {
  check(from), check(to);
  step([=](float* const* b, std::size_t share, std::size_t) {
    regrow::copy(b[from.buffer] + from.offset, from, b[to.buffer] + to.offset, to, lanes_, share,
                 shares_);
  });
}

void Program::unary(Unary op, float p, float q, View from, View to) {
  check(from), check(to);
  step([=](float* const* b, std::size_t share, std::size_t) {
    regrow::unary(op, p, q, b[from.buffer] + from.offset, from, b[to.buffer] + to.offset, to,
                  lanes_, share, shares_);
  });
}

void Program::binary(Binary op, View a, View b, View to, float low, float high) {
  check(a), check(b), check(to);
  const std::size_t lanes_a = lanes_of(a), lanes_b = lanes_of(b);
  step([=](float* const* buffers, std::size_t share, std::size_t) {
    regrow::binary(op, buffers[a.buffer] + a.offset, a, lanes_a, buffers[b.buffer] + b.offset, b,
                   lanes_b, buffers[to.buffer] + to.offset, to, lanes_, low, high, share, shares_);
  });
}

void Program::pool(PoolShape shape, View from, View to) {
  check(from), check(to);
  const auto are = [](const std::size_t (&pair)[2], std::size_t n) {
    return pair[0] == n && pair[1] == n;
  };
  if (!shape.mean && are(shape.kernel, 2) && are(shape.stride, 2) && are(shape.padding, 0) &&
      are(shape.dilation, 1) && from.strides[2] == lanes_ && to.strides[2] == lanes_ &&
      to.dims[1] * 2 <= from.dims[1] && to.dims[2] * 2 <= from.dims[2]) {
    const auto cut = std::make_shared<std::vector<std::size_t>>(2, 0);
    cut->back() = to.dims[1];
    const auto halve = [=](float* const* b, std::size_t share, std::size_t stripe) {
      const std::size_t first = (*cut)[stripe], all = (*cut)[stripe + 1] - first;
      const std::size_t top = first + all * share / shares_;
      const std::size_t rows = first + all * (share + 1) / shares_ - top;
      for (std::size_t c = 0; c < to.dims[0]; ++c) {
        kernels_.halve(b[from.buffer] + from.offset + c * from.strides[0] + 2 * top * from.strides[1],
                       from.strides[1], rows, to.dims[2], lanes_, to.strides[1],
                       b[to.buffer] + to.offset + c * to.strides[0] + top * to.strides[1]);
      }
    };
    const auto lie = [](const View& view) {
      return Lie{view.buffer, view.offset, view.strides[0], view.strides[1], view.dims[1]};
    };
    step(halve, 0,
         Rows{lie(from), lie(to), 2, 0, -1, to.dims[0] * to.strides[0],
              [cut](const std::vector<std::size_t>& rows) {
                cut->assign(1, 0);
                cut->insert(cut->end(), rows.begin(), rows.end());
              }});
    return;
  }
  step([=](float* const* b, std::size_t share, std::size_t) {
    regrow::pool(shape, b[from.buffer] + from.offset, from, b[to.buffer] + to.offset, to, lanes_,
                 share, shares_);
  });
}

void Program::adaptive_pool(View from, View to) {
  check(from), check(to);
  step([=](float* const* b, std::size_t share, std::size_t) {
    regrow::adaptive_pool(b[from.buffer] + from.offset, from, b[to.buffer] + to.offset, to, lanes_,
                          share, shares_);
  });
}

void Program::mean(View from, std::size_t axes, View to) {
  check(from), check(to);
  step([=, inner = offsets(from, axes)](float* const* b, std::size_t share, std::size_t) {
    regrow::mean(b[from.buffer] + from.offset, from, inner, b[to.buffer] + to.offset, to, lanes_,
                 share, shares_);
  });
}

void Program::softmax(View from, View to, bool log) {
  check(from), check(to);
  step([=](float* const* b, std::size_t share, std::size_t) {
    regrow::softmax(b[from.buffer] + from.offset, from, b[to.buffer] + to.offset, to, log, lanes_,
                    share, shares_);
  });
}

void Program::layer_norm(View from, std::size_t axes, float eps, std::vector<float> weight,
                         std::vector<float> bias, View to) {
  check(from), check(to);
  step([=, in = offsets(from, axes), out = offsets(to, axes)](float* const* b, std::size_t share, std::size_t) {
    regrow::layer_norm(b[from.buffer] + from.offset, from, in, axes, eps,
                       weight.empty() ? nullptr : weight.data(),
                       bias.empty() ? nullptr : bias.data(), b[to.buffer] + to.offset, to, out,
                       lanes_, share, shares_);
  });
}

std::size_t Program::bytes() const {
  std::size_t floats = 0;
  for (const std::size_t size : sizes_) floats += size;
  std::size_t total = floats * sizeof(float) * members_;
  for (const auto& conv : convs_) total += conv->bytes();
  return total;
}

}  // namespace regrow
