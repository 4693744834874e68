// The engine's executor on memory that the host cannot reach: the tokens of the CPU, and a fault of any operation ends
// the step with a status and leaves the next one whole.
#include <gtest/gtest.h>

#include <array>
#include <memory>
#include <utility>
#include <vector>

#include "cloud/engine/model_executor.h"
#include "tests/common/model/device_ops.h"

namespace updraft::engine {
namespace {

using updraft::testing::DeviceAndHost;
using updraft::testing::RandomTokens;

constexpr KvStoreOptions kBlocks = {.n_blocks = 16, .block_tokens = 4};

std::unique_ptr<KvStore> Store(const Model& model) {
  return KvStore::Create(model.ops(), model.config(), kBlocks).value();
}

// A step of three sequences: two prompts that choose a token each, and one between them that does not. It begins with
// a copy of a block that it then overwrites.
class Prompts {
 public:
  explicit Prompts(int n_vocab) {
    for (int s = 0; s < 3; ++s) {
      contexts_.push_back(RandomTokens(3 + 4 * s, n_vocab, 40 + s));
      blocks_.push_back({5 * s, 5 * s + 1, 5 * s + 2, 5 * s + 3, 5 * s + 4});
    }
    for (int s = 0; s < 3; ++s) {
      for (size_t p = 0; p < contexts_[s].size(); ++p) {
        tokens_.push_back(contexts_[s][p]);
        positions_.push_back(static_cast<int32_t>(p));
        tables_.push_back(blocks_[s].data());
      }
      if (s == 1) continue;
      sampling_[s] = {.temperature = s == 0 ? 0.0f : 0.8f, .top_k = 50, .repetition_penalty = 1.1f, .seed = 9};
      samples_.push_back({.row = static_cast<int>(tokens_.size()) - 1,
                          .sampling = &sampling_[s],
                          .context = {.tokens = contexts_[s]},
                          .include_evidence = true});
    }
  }

  absl::Status Run(ModelExecutor& executor, std::vector<std::pair<int32_t, float>>& chosen) {
    std::vector<SampledToken> sampled(samples_.size());
    const BlockMove move = {.from = 0, .to = 1};
    const absl::Status status =
        executor.Run({.moves = {&move, 1},
                      .batch = {.tokens = tokens_, .positions = positions_, .block_tables = tables_},
                      .samples = samples_},
                     sampled);
    chosen.clear();
    for (const SampledToken& s : sampled) chosen.emplace_back(s.token, s.evidence.logprob);
    return status;
  }

 private:
  std::vector<std::vector<int32_t>> contexts_, blocks_;
  std::vector<int32_t> tokens_, positions_;
  std::vector<const int32_t*> tables_;
  std::array<SamplingOptions, 3> sampling_;
  std::vector<SampleRow> samples_;
};

TEST(ModelExecutorDevice, AFaultAnywhereEndsTheStepAndTheNextOneWorks) {
  const DeviceAndHost models =
      updraft::testing::MakeDeviceModel(updraft::testing::Shape("tiny-llama"), kernels::DType::kQ8_0, 6);
  std::vector<std::pair<int32_t, float>> want, got;
  Prompts step(models.host->config().n_vocab);
  ModelExecutor host(models.host.get(), Store(*models.host));
  ASSERT_TRUE(step.Run(host, want).ok());
  ModelExecutor device(models.device.get(), Store(*models.device));
  ASSERT_TRUE(step.Run(device, got).ok());
  EXPECT_EQ(got, want) << "on pages that the host cannot touch";
  updraft::testing::ForEveryFault(*models.ops, [&](kernels::Fault fault, int64_t n) {
    models.ops->DoNotFail();
    ModelExecutor executor(models.device.get(), Store(*models.device));  // with its scratch still to be had
    models.ops->FailAfter(n, fault);
    const absl::Status status = step.Run(executor, got);
    EXPECT_EQ(status.code(), models.ops->fired() ? updraft::testing::CodeOf(fault) : absl::StatusCode::kOk) << status;
    models.ops->DoNotFail();
    EXPECT_TRUE(step.Run(executor, got).ok());
    EXPECT_EQ(got, want);
  });
}

}  // namespace
}  // namespace updraft::engine
