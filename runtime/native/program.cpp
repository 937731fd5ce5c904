#include "program.hpp"

#include <algorithm>
#include <chrono>
#include <limits>
#include <stdexcept>
#include <utility>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

namespace regrow {

namespace {

long this_process() {
#if defined(__unix__) || defined(__APPLE__)
  return static_cast<long>(getpid());
#else
  return 0;  // Processes are not forked here.
#endif
}

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

void Program::step(Step step, double useful) {
  steps_.push_back(std::move(step));
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
  const std::shared_ptr<const Convolution> made =
      make_convolution(weights, in, out, low, high, kernels_, shares_);
  convs_.push_back(made);
  const std::size_t floats = round_up(made->scratch_size(), 16);
  const std::size_t scratch = floats ? buffer(floats * shares_) : 0;
  step(
      [=](float* const* buffers, std::size_t share) {
        made->compute(buffers[from], floats ? buffers[scratch] + share * floats : nullptr,
                      residual >= 0 ? buffers[residual] : nullptr, buffers[to], share);
      },
      made->useful());
}

void Program::copy(View from, View to) {
  check(from), check(to);
  step([=](float* const* b, std::size_t share) {
    regrow::copy(b[from.buffer] + from.offset, from, b[to.buffer] + to.offset, to, lanes_, share,
                 shares_);
  });
}

void Program::unary(Unary op, float p, float q, View from, View to) {
  check(from), check(to);
  step([=](float* const* b, std::size_t share) {
    regrow::unary(op, p, q, b[from.buffer] + from.offset, from, b[to.buffer] + to.offset, to,
                  lanes_, share, shares_);
  });
}

void Program::binary(Binary op, View a, View b, View to, float low, float high) {
  check(a), check(b), check(to);
  const std::size_t lanes_a = lanes_of(a), lanes_b = lanes_of(b);
  step([=](float* const* buffers, std::size_t share) {
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
    step([=](float* const* b, std::size_t share) {
      const std::size_t top = to.dims[1] * share / shares_;
      const std::size_t rows = to.dims[1] * (share + 1) / shares_ - top;
      for (std::size_t c = 0; c < to.dims[0]; ++c) {
        kernels_.halve(b[from.buffer] + from.offset + c * from.strides[0] + 2 * top * from.strides[1],
                       from.strides[1], rows, to.dims[2], lanes_, to.strides[1],
                       b[to.buffer] + to.offset + c * to.strides[0] + top * to.strides[1]);
      }
    });
    return;
  }
  step([=](float* const* b, std::size_t share) {
    regrow::pool(shape, b[from.buffer] + from.offset, from, b[to.buffer] + to.offset, to, lanes_,
                 share, shares_);
  });
}

void Program::adaptive_pool(View from, View to) {
  check(from), check(to);
  step([=](float* const* b, std::size_t share) {
    regrow::adaptive_pool(b[from.buffer] + from.offset, from, b[to.buffer] + to.offset, to, lanes_,
                          share, shares_);
  });
}

void Program::mean(View from, std::size_t axes, View to) {
  check(from), check(to);
  step([=, inner = offsets(from, axes)](float* const* b, std::size_t share) {
    regrow::mean(b[from.buffer] + from.offset, from, inner, b[to.buffer] + to.offset, to, lanes_,
                 share, shares_);
  });
}

void Program::softmax(View from, View to, bool log) {
  check(from), check(to);
  step([=](float* const* b, std::size_t share) {
    regrow::softmax(b[from.buffer] + from.offset, from, b[to.buffer] + to.offset, to, log, lanes_,
                    share, shares_);
  });
}

void Program::layer_norm(View from, std::size_t axes, float eps, std::vector<float> weight,
                         std::vector<float> bias, View to) {
  check(from), check(to);
  step([=, in = offsets(from, axes), out = offsets(to, axes)](float* const* b, std::size_t share) {
    regrow::layer_norm(b[from.buffer] + from.offset, from, in, axes, eps,
                       weight.empty() ? nullptr : weight.data(),
                       bias.empty() ? nullptr : bias.data(), b[to.buffer] + to.offset, to, out,
                       lanes_, share, shares_);
  });
}

std::unique_ptr<Program::Context> Program::context() {
  {
    const std::lock_guard<std::mutex> hold(mutex_);
    while (!idle_.empty()) {
      std::unique_ptr<Context> found = std::move(idle_.back());
      idle_.pop_back();
      if (found->process == this_process()) return found;
      found.release();  // After a fork its threads are not here, and cannot be waited for.
    }
  }
  auto made = std::make_unique<Context>();
  for (std::size_t member = 0; member < members_; ++member) {
    std::vector<float*>& buffers = made->buffers.emplace_back();
    for (std::size_t i = 0; i < sizes_.size(); ++i) {
      if (constant_[i]) {
        buffers.push_back(values_[i].data());
        continue;
      }
      const std::size_t floats = sizes_[i] + 2 * kSlack + 16;
      made->owned.push_back(std::make_unique<float[]>(floats));
      // Runs of the first pixels read a little before them; cache lines begin where channels do.
      auto at = reinterpret_cast<std::uintptr_t>(made->owned.back().get() + kSlack);
      at = (at + 63) / 64 * 64;
      buffers.push_back(reinterpret_cast<float*>(at));
    }
  }
  made->team = std::make_unique<Team>(shares_ * members_);
  made->process = this_process();
  return made;
}

void Program::give_back(std::unique_ptr<Context> context) {
  const std::lock_guard<std::mutex> hold(mutex_);
  idle_.push_back(std::move(context));
}

namespace {

// Between images one behind the other and images side by side: for each row of a view, in C order,
// the index of its first entry, where it begins, how many entries it has, and how far they are apart.
template <typename Move>
void each_row(const View& view, float* buffer, Move move) {
  const std::size_t axes = view.dims.size();
  const std::size_t length = axes ? view.dims[axes - 1] : 1, step = axes ? view.strides[axes - 1] : 1;
  std::vector<std::size_t> place(axes, 0);
  const std::size_t entries = view.entries();
  std::size_t at = view.offset;
  for (std::size_t index = 0; index < entries; index += length) {
    move(index, buffer + at, length, step);
    for (std::size_t i = axes ? axes - 1 : 0; i-- > 0;) {
      at += view.strides[i];
      if (++place[i] < view.dims[i]) break;
      at -= view.strides[i] * view.dims[i];
      place[i] = 0;
    }
  }
}

}  // namespace

void Program::load(const std::vector<const float*>& inputs, Group group,
                   float* const* buffers) const {
  for (std::size_t i = 0; i < inputs.size(); ++i) {
    const std::size_t entries = inputs_[i].entries();
    const float* const first = inputs[i] + group.begin * entries;
    each_row(inputs_[i], buffers[inputs_[i].buffer],
             [&](std::size_t index, float* to, std::size_t length, std::size_t step) {
               if (lanes_ == 1 && step == 1) {
                 std::copy_n(first + index, length, to);
                 return;
               }
               for (std::size_t l = 0; l < lanes_; ++l) {
                 const float* from = first + l * entries + index;
                 for (std::size_t x = 0; x < length; ++x) {
                   to[x * step + l] = l < group.images ? from[x] : 0.0f;
                 }
               }
             });
  }
}

void Program::store(float* const* buffers, Group group, const std::vector<float*>& outputs) const {
  for (std::size_t i = 0; i < outputs.size(); ++i) {
    const std::size_t entries = outputs_[i].entries();
    float* const first = outputs[i] + group.begin * entries;
    each_row(outputs_[i], buffers[outputs_[i].buffer],
             [&](std::size_t index, const float* from, std::size_t length, std::size_t step) {
               for (std::size_t l = 0; l < group.images; ++l) {
                 float* to = first + l * entries + index;
                 for (std::size_t x = 0; x < length; ++x) to[x] = from[x * step + l];
               }
             });
  }
}

void Program::run(const std::vector<const float*>& inputs, const std::vector<float*>& outputs,
                  std::size_t images) {
  if (inputs.size() != inputs_.size() || outputs.size() != outputs_.size()) {
    throw std::invalid_argument("other inputs or outputs than the program was made for");
  }
  std::unique_ptr<Context> mine = context();
  const auto group = [&](std::size_t begin) { return Group{begin, std::min(lanes_, images - begin)}; };
  if (members_ > 1) {
    mine->team->run([&](std::size_t member) {
      float* const* buffers = mine->buffers[member].data();
      for (std::size_t begin = member * lanes_; begin < images; begin += members_ * lanes_) {
        load(inputs, group(begin), buffers);
        for (const Step& step : steps_) step(buffers, 0);
        store(buffers, group(begin), outputs);
      }
    });
  } else {
    float* const* buffers = mine->buffers[0].data();
    for (std::size_t begin = 0; begin < images; begin += lanes_) {
      load(inputs, group(begin), buffers);
      mine->team->run([&](std::size_t share) {
        for (const Step& step : steps_) {
          step(buffers, share);
          mine->team->meet();
        }
      });
      store(buffers, group(begin), outputs);
    }
  }
  give_back(std::move(mine));
}

std::vector<double> Program::profile(std::size_t repeats) {
  using Clock = std::chrono::steady_clock;
  std::unique_ptr<Context> mine = context();
  std::vector<double> least(steps_.size(), std::numeric_limits<double>::infinity());
  for (std::size_t repeat = 0; repeat < repeats; ++repeat) {
    mine->team->run([&](std::size_t member) {
      float* const* buffers = mine->buffers[members_ > 1 ? member : 0].data();
      for (std::size_t i = 0; i < steps_.size(); ++i) {
        const Clock::time_point start = Clock::now();
        steps_[i](buffers, members_ > 1 ? 0 : member);
        mine->team->meet();
        if (member != 0) continue;
        const double seconds = std::chrono::duration<double>(Clock::now() - start).count();
        least[i] = std::min(least[i], seconds);
      }
    });
  }
  give_back(std::move(mine));
  return least;
}

std::size_t Program::bytes() const {
  std::size_t floats = 0;
  for (const std::size_t size : sizes_) floats += size;
  std::size_t total = floats * sizeof(float) * members_;
  for (const auto& conv : convs_) total += conv->bytes();
  return total;
}

}  // namespace regrow
