#include "kernels.hpp"

#include <algorithm>
#include <chrono>

namespace regrow {

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define REGROW_X86
extern const Kernels kernels_avx512, kernels_avx2;
#endif
#if defined(__aarch64__) && (defined(__GNUC__) || defined(__clang__))
#define REGROW_ARM
extern const Kernels kernels_neon;
#endif
extern const Kernels kernels_portable;

std::vector<std::string> known_kernels() {
  std::vector<std::string> names;
#ifdef REGROW_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq")) {
    names.emplace_back("avx512");
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) names.emplace_back("avx2");
#endif
#ifdef REGROW_ARM
  names.emplace_back("neon");  // Every 64-bit ARM processor has it.
#endif
  names.emplace_back("portable");
  return names;
}

const Kernels* find_kernels(const std::string& name) {
  for (const std::string& known : known_kernels()) {
    if (known != name) continue;
#ifdef REGROW_X86
    if (name == "avx512") return &kernels_avx512;
    if (name == "avx2") return &kernels_avx2;
#endif
#ifdef REGROW_ARM
    if (name == "neon") return &kernels_neon;
#endif
    return &kernels_portable;
  }
  return nullptr;
}

double peak(const Kernels& kernels) {
  using Clock = std::chrono::steady_clock;
  constexpr std::size_t kEntries = 2048, kRepeats = 200;
  const std::vector<BlockEntry> entries(kEntries, {0, {1, 1, 1, 1}});
  const std::size_t floats = kernels.block_tile * 16;
  std::vector<float> in(floats + 16, 1.0f), out(kBlock * floats + 16);
  const auto aligned = [](std::vector<float>& buffer) {
    const auto at = reinterpret_cast<std::uintptr_t>(buffer.data());
    return buffer.data() + ((at + 63) / 64 * 64 - at) / sizeof(float);
  };
  const float bias[kBlock] = {};
  Finish finish{nullptr, nullptr, 0.0f, 1e30f};
  double least = 1e30;
  for (std::size_t repeat = 0; repeat < kRepeats; ++repeat) {
    const Clock::time_point start = Clock::now();
    kernels.run_block(kernels.block_tile, aligned(in), entries.data(), kEntries, bias, true, true,
                      finish, aligned(out), floats);
    least = std::min(least, std::chrono::duration<double>(Clock::now() - start).count());
  }
  return static_cast<double>(kEntries * kBlock * floats) / least;
}

}  // namespace regrow
