#include "kernels.hpp"

namespace regrow {

#if defined(__x86_64__) && (defined(__GNUC__) || defined(__clang__))
#define REGROW_X86
extern const Kernels kernels_avx512, kernels_avx2;
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
    return &kernels_portable;
  }
  return nullptr;
}

}  // namespace regrow
