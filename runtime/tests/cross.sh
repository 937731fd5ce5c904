#!/usr/bin/env bash
# Compiles the kernels and convolutions for another processor and tests them in an emulator.
#   runtime/tests/cross.sh aarch64-linux-gnu-g++ qemu-aarch64-static
set -euo pipefail
compiler=${1:-aarch64-linux-gnu-g++}
emulator=${2:-qemu-aarch64-static}
cd "$(dirname "$0")/../native"
program=$(mktemp)
trap 'rm -f "$program"' EXIT
sources=(../tests/convolutions.cpp convolution.cpp conv.cpp pairs.cpp conv_compute.cpp window.cpp winograd.cpp across.cpp kernels.cpp kernels_portable.cpp)
case $("$compiler" -dumpmachine) in
  aarch64* | arm64*) sources+=(kernels_neon.cpp) ;;
esac
"$compiler" -std=c++17 -O3 -Wall -Wextra -Wno-psabi -static "${sources[@]}" -o "$program"
"$emulator" "$program" 200
