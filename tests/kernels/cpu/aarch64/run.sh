#!/usr/bin/env bash
# Builds the kernels and their tests for 64-bit Arm and runs them under an emulator: once on a processor with the dot
# product extension, once on one without. Usage: run.sh BUILD_DIR. Exit 77: skipped, something is not installed.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
build=$1

missing=()
command -v aarch64-linux-gnu-g++ >/dev/null || missing+=("g++-aarch64-linux-gnu")
command -v qemu-aarch64 >/dev/null || missing+=("qemu-user")
[[ -f /usr/src/googletest/CMakeLists.txt ]] || missing+=("googletest")
if ((${#missing[@]})); then
  echo "SKIPPED: the Arm kernels were NOT tested; install: ${missing[*]}" >&2
  exit 77
fi

cmake -S "$here" -B "$build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_TOOLCHAIN_FILE="$here/toolchain.cmake" >/dev/null
cmake --build "$build" --target kernels_cpu_test >"$build/build.log" 2>&1 || {
  cat "$build/build.log" >&2
  exit 1
}
qemu-aarch64 -cpu max "$build/bin/kernels_cpu_test" --gtest_brief=1
qemu-aarch64 -cpu cortex-a53 "$build/bin/kernels_cpu_test" --gtest_brief=1 --gtest_filter='Types/*:IsaTest.*'
