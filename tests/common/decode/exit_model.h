// A model with exits and what runs it, for tests of decoding.
#pragma once

#include <memory>

#include "tests/common/model/test_models.h"

namespace updraft::testing {

// Every layer of a random model adds about as much to the residual stream as the one before, so only late exits agree
// with the end often enough for drafts to be confirmed.
inline const Model& ExitModel() {
  static const auto* const model = [] {
    SynthShape shape = Shape("tiny-exits");
    shape.n_layer = 10;
    shape.exit_layers = {7, 9};
    return MakeModel(shape, kernels::DType::kQ8_0, 5, 1).release();
  }();
  return *model;
}

// A random model's top probabilities lie near 1 / n_vocab, so thresholds that divide tokens must be low.
inline constexpr float kSometimes = 0.0205f;

inline std::unique_ptr<KvPool> Pool(const Model& model, int n_blocks = 64) {
  return KvPool::Create(model.config(), {.n_blocks = n_blocks, .block_tokens = 4}).value();
}

}  // namespace updraft::testing
