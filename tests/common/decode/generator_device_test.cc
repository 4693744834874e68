// The generator on memory that the host cannot reach: the tokens of the CPU, and a fault of any operation undone.
#include <gtest/gtest.h>

#include <ostream>
#include <string>
#include <vector>

#include "common/decode/generator.h"
#include "common/decode/rows.h"
#include "tests/common/decode/strategies.h"
#include "tests/common/model/device_ops.h"

namespace updraft {
namespace {

using testing::DeviceAndHost;
using testing::RandomTokens;

constexpr float kSometimes = 0.0205f;  // as in generator_test.cc

const DeviceAndHost& Models() {
  static const auto* const models = [] {
    SynthShape shape = testing::Shape("tiny-exits");
    shape.n_layer = 10;
    shape.exit_layers = {7, 9};
    return new DeviceAndHost(testing::MakeDeviceModel(shape, kernels::DType::kQ8_0, 5));
  }();
  return *models;
}

struct Case {
  std::string name;
  ExitMode mode;
  bool drafts_and_masks = false;
  friend std::ostream& operator<<(std::ostream& out, const Case& c) { return out << c.name; }
};

GeneratorOptions Options(ExitMode mode) {
  return {.sampling = {.temperature = 0.7f, .repetition_penalty = 1.1f, .seed = 3},
          .exit_mode = mode,
          .exit_thresholds = {kSometimes, kSometimes},
          .max_draft_tokens = 3,
          .max_pending_tokens = 3};
}

std::unique_ptr<KvPool> Pool(const Model& model) {
  return KvPool::Create(model.ops(), model.config(), {.n_blocks = 64, .block_tokens = 4}).value();
}

// Two prompts with an answer of n tokens after each, a token from elsewhere, and what was known of each token. A call
// that fails is made again, which must do: `on_error` says what it must be.
template <typename OnError>
std::vector<std::pair<int32_t, float>> Conversation(const Model& model, KvPool& pool, const Case& how, int n,
                                                    const OnError& on_error) {
  GeneratorStrategies strategies;
  if (how.drafts_and_masks) {
    strategies.drafter = std::make_unique<NgramDrafter>(NgramOptions{.max_ngram = 2, .min_ngram = 1});
    strategies.mask = std::make_unique<testing::HashMask>(model.config().n_vocab, 8);
  }
  Generator generator(&model, &pool, Options(how.mode), std::move(strategies));
  std::vector<std::pair<int32_t, float>> answer;
  const auto call = [&](const auto& body) {
    const std::vector<int32_t> before(generator.tokens().begin(), generator.tokens().end());
    absl::Status status = body();
    if (status.ok()) return;
    on_error(status);
    EXPECT_EQ(std::vector<int32_t>(generator.tokens().begin(), generator.tokens().end()), before);
    status = body();
    EXPECT_TRUE(status.ok()) << "the same call again: " << status;
  };
  for (const uint64_t seed : {21, 22}) {
    const auto prompt = RandomTokens(5, model.config().n_vocab, seed);
    call([&] { return generator.Prefill(prompt); });
    for (int i = 0; i < n; ++i) {
      call([&] {
        const absl::StatusOr<GeneratedToken> next = generator.Next();
        if (next.ok()) answer.emplace_back(next->token, next->evidence.entropy);
        return next.status();
      });
    }
    call([&] { return generator.Accept(0); });
  }
  return answer;
}

class GeneratorDeviceTest : public ::testing::TestWithParam<Case> {};

TEST_P(GeneratorDeviceTest, ChoosesTheTokensOfTheHost) {
  const auto refuse = [](const absl::Status& status) { ADD_FAILURE() << status; };
  const auto host_pool = Pool(*Models().host), device_pool = Pool(*Models().device);
  const auto want = Conversation(*Models().host, *host_pool, GetParam(), 20, refuse);
  EXPECT_EQ(want.size(), 40u);
  EXPECT_EQ(Conversation(*Models().device, *device_pool, GetParam(), 20, refuse), want);
}

TEST_P(GeneratorDeviceTest, AFaultAnywhereIsAnErrorThatPasses) {
  const auto host_pool = Pool(*Models().host), device_pool = Pool(*Models().device);
  const auto want = Conversation(*Models().host, *host_pool, GetParam(), 4, [](const absl::Status&) { FAIL(); });
  testing::ForEveryFault(*Models().ops, [&](kernels::Fault fault) {
    int n_errors = 0;
    const auto got = Conversation(*Models().device, *device_pool, GetParam(), 4, [&](const absl::Status& status) {
      ++n_errors;
      EXPECT_EQ(status.code(), testing::CodeOf(fault)) << status;
    });
    EXPECT_EQ(n_errors, Models().ops->fired() ? 1 : 0);
    EXPECT_EQ(got, want);
  });
}

// The states of all rows have one buffer. When it cannot grow, the old one is not addressed beyond its end.
TEST(SequenceRowsDevice, StatesThatHaveNoRoomHaveNoAddress) {
  const auto pool = Pool(*Models().device);
  SequenceRows rows(Models().device.get(), pool.get(), {0, 7, 9, 10});
  ASSERT_TRUE(rows.Reserve(8).ok());
  rows.Append(1);
  rows.RunSegment(0);
  const SequenceRows::Mark mark = rows.BeginStep(1);
  rows.Append(2);
  Models().ops->FailAfter(0, kernels::Fault::kOutOfMemory);
  rows.RunSegment(0);
  EXPECT_TRUE(Models().ops->fired());
  EXPECT_EQ(Models().ops->embedded_to(), nullptr);
  Models().ops->DoNotFail();
  EXPECT_EQ(rows.EndStep(mark).code(), absl::StatusCode::kResourceExhausted);
  rows.RunDeep();
  EXPECT_FALSE(rows.LogitsOfLast(-1, 1).empty());
  EXPECT_TRUE(rows.EndStep(rows.BeginStep(1)).ok());
}

INSTANTIATE_TEST_SUITE_P(Modes, GeneratorDeviceTest,
                         ::testing::Values(Case{"Off", ExitMode::kOff}, Case{"Lossless", ExitMode::kLossless},
                                           Case{"Lossy", ExitMode::kLossy},
                                           Case{"LosslessDraftedAndMasked", ExitMode::kLossless, true}),
                         [](const auto& info) { return info.param.name; });

}  // namespace
}  // namespace updraft
