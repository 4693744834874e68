// Two synthetic models of one vocabulary for tests of the programs; the larger one is slow enough to be interrupted.
#pragma once

#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <string>

#include "deploy/synth/synth.h"
#include "tests/e2e/process.h"

namespace updraft::testing {

#define SKIP_WITHOUT(program)                                                                      \
  if (access(Program(program).c_str(), X_OK) != 0) {                                               \
    GTEST_SKIP() << Program(program) << " is not built: build the target, or set UPDRAFT_BIN_DIR"; \
  }

class TwoModelsTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    small_ = new std::string(TempPath("_small.gguf"));
    large_ = new std::string(TempPath("_large.gguf"));
    roomy_ = new std::string(TempPath("_roomy.gguf"));
    SynthShape shape;
    shape.name = "e2e";
    shape.architecture = Architecture::kQwen2;
    shape.n_vocab = 512;
    shape.context_length = 512;
    ASSERT_TRUE(Synthesize(shape, kernels::DType::kF32, *small_, {.seed = 3, .n_threads = 1}).ok());
    shape.context_length = 4096;
    ASSERT_TRUE(Synthesize(shape, kernels::DType::kF32, *roomy_, {.seed = 3, .n_threads = 1}).ok());
    shape.context_length = 512;
    shape.n_layer = 12;
    shape.d_model = 256;
    shape.d_ff = 1024;
    ASSERT_TRUE(Synthesize(shape, kernels::DType::kF32, *large_, {.seed = 4, .n_threads = 1}).ok());
  }
  static void TearDownTestSuite() {
    for (std::string* path : {small_, large_, roomy_}) {
      std::remove(path->c_str());
      delete path;
    }
  }
  static inline std::string* small_ = nullptr;
  static inline std::string* large_ = nullptr;
  static inline std::string* roomy_ = nullptr;  // small_, with a longer context
};

}  // namespace updraft::testing
