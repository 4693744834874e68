// What a load report says of one request that runs and one that waits.
#pragma once

#include <gtest/gtest.h>

#include "common/engine/core.h"

namespace updraft::engine {

// On 8 blocks of 4 tokens: of 12 tokens and 4 to generate, a step of 8 has been run; 5 and 3 to generate wait.
inline void ExpectOneRunsAndOneWaits(const LoadReport& load) {
  EXPECT_EQ(load.running_requests, 1);
  EXPECT_EQ(load.queued_requests, 1);
  EXPECT_EQ(load.running_tokens, 8);
  EXPECT_EQ(load.queued_tokens, 4 + 5);
  EXPECT_EQ(load.kv_used_fraction, 2.0 / 8.0);
  EXPECT_GT(load.predicted_wait_ms, 0.0);
}

// Both have been answered, on a clock on which a step takes a millisecond.
inline void ExpectNothingLeft(const LoadReport& load) {
  EXPECT_NEAR(load.decode_tokens_per_s, 1000.0, 1e-6);
  EXPECT_GE(load.prefill_tokens_per_s, 2000.0 - 1e-6) << "a step that reads a prompt has two rows at least";
  EXPECT_LE(load.prefill_tokens_per_s, 8000.0 + 1e-6) << "and eight at most";
  EXPECT_EQ(load.kv_used_fraction, 0.0);
}

}  // namespace updraft::engine
