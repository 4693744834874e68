// Cores of all kinds, for random tests: pools from roomy to barely enough.
#pragma once

#include <random>

#include "common/engine/core.h"

namespace updraft::engine {

inline CoreOptions RandomOptions(std::mt19937& random) {
  const auto draw = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(random); };
  const int block_tokens = draw(1, 8), max_running = draw(1, 10);
  return {.n_blocks = draw(8, 80) / block_tokens + 4,
          .block_tokens = block_tokens,
          .max_running = max_running,
          .max_step_tokens = draw(max_running, 40),
          .class_rise = absl::Milliseconds(draw(1, 50)),
          .reuse_prefixes = draw(0, 1) == 0};
}

}  // namespace updraft::engine
