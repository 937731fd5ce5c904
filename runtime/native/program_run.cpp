// What a finished program (program.cpp) does with images.
#include <algorithm>
#include <chrono>
#include <limits>
#include <stdexcept>
#include <utility>

#if defined(__unix__) || defined(__APPLE__)
#include <unistd.h>
#endif

#include "program.hpp"

namespace regrow {

namespace {

long this_process() {
#if defined(__unix__) || defined(__APPLE__)
  return static_cast<long>(getpid());
#else
  return 0;  // Processes are not forked here.
#endif
}

}  // namespace

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

void Program::check_finished() const {
  if (turns_.empty() && !steps_.empty()) {
    throw std::logic_error("the program is not finished; call finish() after its last step");
  }
}

void Program::run(const std::vector<const float*>& inputs, const std::vector<float*>& outputs,
                  std::size_t images) {
  if (inputs.size() != inputs_.size() || outputs.size() != outputs_.size()) {
    throw std::invalid_argument("other inputs or outputs than the program was made for");
  }
  check_finished();
  std::unique_ptr<Context> mine = context();
  const auto group = [&](std::size_t begin) { return Group{begin, std::min(lanes_, images - begin)}; };
  if (members_ > 1) {
    mine->team->run([&](std::size_t member) {
      float* const* buffers = mine->buffers[member].data();
      for (std::size_t begin = member * lanes_; begin < images; begin += members_ * lanes_) {
        load(inputs, group(begin), buffers);
        for (const Turn& turn : turns_) steps_[turn.step].run(buffers, 0, turn.stripe);
        store(buffers, group(begin), outputs);
      }
    });
  } else {
    float* const* buffers = mine->buffers[0].data();
    for (std::size_t begin = 0; begin < images; begin += lanes_) {
      load(inputs, group(begin), buffers);
      mine->team->run([&](std::size_t share) {
        for (const Turn& turn : turns_) {
          steps_[turn.step].run(buffers, share, turn.stripe);
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
  check_finished();
  std::unique_ptr<Context> mine = context();
  std::vector<double> least(steps_.size(), std::numeric_limits<double>::infinity());
  for (std::size_t repeat = 0; repeat < repeats; ++repeat) {
    mine->team->run([&](std::size_t member) {
      float* const* buffers = mine->buffers[members_ > 1 ? member : 0].data();
      std::vector<double> sums(steps_.size(), 0);
      for (const Turn& turn : turns_) {
        const Clock::time_point start = Clock::now();
        steps_[turn.step].run(buffers, members_ > 1 ? 0 : member, turn.stripe);
        mine->team->meet();
        sums[turn.step] += std::chrono::duration<double>(Clock::now() - start).count();
      }
      if (member != 0) return;
      for (std::size_t i = 0; i < sums.size(); ++i) least[i] = std::min(least[i], sums[i]);
    });
  }
  give_back(std::move(mine));
  return least;
}

}  // namespace regrow
