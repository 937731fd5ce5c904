// A network prepared for so many images at once and so many threads: a list of steps over buffers.
// Threads share each step, or else, apart, each computes images of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "convolution.hpp"
#include "team.hpp"
#include "view.hpp"

namespace regrow {

class Program {
 public:
  Program(std::size_t lanes, std::size_t threads, bool apart, const std::string& isa);

  std::size_t lanes() const { return lanes_; }

  // A buffer of so many floats, zero at first; steps refer to it by the number given back.
  std::size_t buffer(std::size_t floats);
  std::size_t constant(std::vector<float> values);

  void conv(const ConvWeights& weights, const Geometry& in, std::size_t from, const Geometry& out,
            std::size_t to, std::ptrdiff_t residual, float low, float high);
  void copy(View from, View to);
  void unary(Unary op, float p, float q, View from, View to);
  void binary(Binary op, View a, View b, View to, float low, float high);
  void pool(PoolShape shape, View from, View to);
  void adaptive_pool(View from, View to);
  void mean(View from, std::size_t axes, View to);
  void softmax(View from, View to, bool log);
  void layer_norm(View from, std::size_t axes, float eps, std::vector<float> weight,
                  std::vector<float> bias, View to);
  // All steps are there: none can follow, and before it nothing runs.
  void finish();
  void input(View to) {
    check(to);
    inputs_.push_back(std::move(to));
  }
  void output(View from) {
    check(from);
    outputs_.push_back(std::move(from));
  }

  // Inputs and outputs of any number of images in C order; any number of callers at once.
  void run(const std::vector<const float*>& inputs, const std::vector<float*>& outputs,
           std::size_t images);

  // So many images are computed at once.
  std::size_t images() const { return lanes_ * members_; }

  // Seconds of each step for `images()`, the least of `repeats` runs over whatever the buffers hold.
  std::vector<double> profile(std::size_t repeats);

  // Multiply-adds in a second that all threads could do at most.
  double peak() const { return regrow::peak(kernels_) * static_cast<double>(shares_ * members_); }

  // How many turns steps take: more than there are steps where some are computed in stripes.
  std::size_t turns() const { return turns_.size(); }

  std::vector<double> useful() const { return useful_; }  // multiply-adds by step, for one image
  std::size_t bytes() const;                              // of buffers of one caller, and of weights

  const std::vector<View>& inputs() const { return inputs_; }
  const std::vector<View>& outputs() const { return outputs_; }

 private:
  struct Context {
    std::vector<std::unique_ptr<float[]>> owned;
    std::vector<std::vector<float*>> buffers;  // of each member
    std::unique_ptr<Team> team;
    long process = 0;  // that the team's threads belong to
  };
  using Run = std::function<void(float* const* buffers, std::size_t share, std::size_t stripe)>;
  // Where the rows of all channels lie: two values of a buffer that lie alike are one.
  struct Lie {
    std::size_t buffer, first, plane, row, height;
    bool operator==(const Lie& other) const {
      return buffer == other.buffer && first == other.first && plane == other.plane &&
             row == other.row && height == other.height;
    }
  };
  // How a step can be cut in stripes of its output's rows (stripes.cpp): of the input's rows so many times
  // as many are needed, and so many more.
  struct Rows {
    Lie from, to;
    std::size_t stride, below;
    std::ptrdiff_t residual;
    std::size_t floats;  // of the output
    std::function<void(const std::vector<std::size_t>&)> cut;
  };
  struct Step {
    Run run;
    std::optional<Rows> rows;
  };
  struct Turn {
    std::size_t step, stripe;
  };

  void step(Run run, double useful = 0, std::optional<Rows> rows = std::nullopt);
  std::size_t chain(std::size_t first) const;
  std::vector<std::vector<std::size_t>> limits(std::size_t first, std::size_t end) const;
  // One of so many images, of `images` in all.
  struct Group {
    std::size_t begin, images;
  };
  void load(const std::vector<const float*>& inputs, Group group, float* const* buffers) const;
  void store(float* const* buffers, Group group, const std::vector<float*>& outputs) const;
  std::unique_ptr<Context> context();
  void give_back(std::unique_ptr<Context> context);
  std::size_t lanes_of(const View& view) const { return constant_[view.buffer] ? 1 : lanes_; }
  void check(const View& view) const;
  void check_finished() const;

  const std::size_t lanes_, shares_, members_;  // of a step; with images of their own
  const Kernels& kernels_;
  std::vector<std::size_t> sizes_;
  std::vector<std::vector<float>> values_;  // of constants
  std::vector<bool> constant_;
  std::vector<std::shared_ptr<Convolution>> convs_;
  std::vector<Step> steps_;
  std::vector<Turn> turns_;
  std::vector<double> useful_;
  std::vector<View> inputs_, outputs_;
  std::mutex mutex_;
  std::vector<std::unique_ptr<Context>> idle_;
};

}  // namespace regrow
