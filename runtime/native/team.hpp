// Threads that go through a list of steps together.
#pragma once

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <cstddef>
#include <functional>
#include <mutex>
#include <thread>
#include <vector>

namespace regrow {

// `size` members, the caller among them. `run(work)` calls work(member) on each of them at once;
// inside, `meet()` waits for all of them.
class Team {
 public:
  explicit Team(std::size_t size) : size_(size) {
    try {
      for (std::size_t member = 1; member < size; ++member) {
        threads_.emplace_back([this, member] { serve(member); });
      }
    } catch (...) {  // The system has no more threads.
      end();
      throw;
    }
  }
  Team(const Team&) = delete;
  Team& operator=(const Team&) = delete;
  ~Team() { end(); }

  std::size_t size() const { return size_; }

  // `work` must not throw.
  void run(const std::function<void(std::size_t)>& work) {
    if (size_ > 1) {
      {
        const std::lock_guard<std::mutex> hold(mutex_);
        work_ = &work;
        turn_.fetch_add(1, std::memory_order_release);
      }
      wake_.notify_all();
    }
    work(0);
    meet();
  }

  void meet() {
    if (size_ == 1) return;
    const std::size_t round = round_.load(std::memory_order_acquire);
    if (arrived_.fetch_add(1, std::memory_order_acq_rel) + 1 == size_) {
      arrived_.store(0, std::memory_order_relaxed);
      round_.store(round + 1, std::memory_order_release);
      return;
    }
    // Steps take microseconds, so that sleeping would cost more than they do.
    for (std::size_t spins = 0; round_.load(std::memory_order_acquire) == round; ++spins) {
      if (spins > kSpins) std::this_thread::yield();
    }
  }

 private:
  using Clock = std::chrono::steady_clock;

  static constexpr std::size_t kSpins = 2000;
  // A thread that sleeps takes as long to wake as a small network to run: between calls that follow
  // each other none does.
  static constexpr std::chrono::microseconds kAwake{300};

  void end() {
    {
      const std::lock_guard<std::mutex> hold(mutex_);
      ends_ = true;
      turn_.fetch_add(1, std::memory_order_release);
    }
    wake_.notify_all();
    for (std::thread& thread : threads_) thread.join();
  }

  void serve(std::size_t member) {
    std::size_t seen = 0;
    for (;;) {
      const std::function<void(std::size_t)>* work;
      const auto called = [&] { return turn_.load(std::memory_order_acquire) != seen; };
      const Clock::time_point until = Clock::now() + kAwake;
      while (!called() && Clock::now() < until) std::this_thread::yield();
      {
        std::unique_lock<std::mutex> hold(mutex_);
        wake_.wait(hold, called);
        if (ends_) return;
        seen = turn_.load(std::memory_order_relaxed);
        work = work_;
      }
      (*work)(member);
      meet();
    }
  }

  const std::size_t size_;
  std::vector<std::thread> threads_;
  std::mutex mutex_;
  std::condition_variable wake_;
  const std::function<void(std::size_t)>* work_ = nullptr;
  bool ends_ = false;
  std::atomic<std::size_t> turn_{0}, arrived_{0}, round_{0};
};

}  // namespace regrow
