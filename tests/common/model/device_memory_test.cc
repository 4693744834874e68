// The forward pass on memory that the host cannot reach: the same bits, and no fault of its operations goes unnoticed.
#include <gtest/gtest.h>

#include <cstring>
#include <numeric>
#include <optional>
#include <vector>

#include "common/model/forward.h"
#include "common/model/kv_cache.h"
#include "common/model/step_status.h"
#include "tests/common/model/device_ops.h"

namespace updraft {
namespace {

using kernels::DType;
using testing::DeviceAndHost;
using testing::MakeDeviceModel;
using testing::RandomTokens;
using testing::Shape;

// One sequence in passes, and what the host has of it.
struct Pass {
  explicit Pass(const Model& model)
      : model(model),
        pool(KvPool::Create(model.ops(), model.config(), {.n_blocks = 16, .block_tokens = 4}).value()),
        kv(pool.get()) {
    EXPECT_TRUE(kv.Reserve(40).ok());
    EXPECT_TRUE(kernels::GrowTo(model.ops(), 40 * sizeof(float) * model.config().d_model, hidden));
    EXPECT_TRUE(kernels::GrowTo(model.ops(), 40 * sizeof(float) * model.config().n_vocab, logits));
  }

  // Logits of the wanted rows (none: all), which are `tokens` from position `first` on; empty after a fault.
  std::vector<float> Run(std::span<const int32_t> tokens, int first,
                         std::optional<std::span<const int32_t>> wanted = std::nullopt) {
    const size_t d_model = model.config().d_model, n_vocab = model.config().n_vocab;
    std::vector<int32_t> positions(tokens.size());
    std::iota(positions.begin(), positions.end(), first);
    const std::vector<const int32_t*> tables(tokens.size(), kv.blocks().data());
    Forward(model, {.tokens = tokens, .positions = positions, .block_tables = tables, .wanted = wanted},
            {.from = 0, .to = model.config().n_layer}, {hidden.floats(), tokens.size() * d_model}, pool->store(),
            scratch);
    std::vector<int32_t> rows(tokens.size());
    std::iota(rows.begin(), rows.end(), 0);
    if (wanted) rows.assign(wanted->begin(), wanted->end());
    if (rows.empty()) return {};
    kernels::Ops& ops = model.ops();
    if (!kernels::GrowTo(ops, rows.size() * d_model * sizeof(float), picked)) return {};
    ops.GatherRows(hidden.floats(), rows, model.config().d_model, picked.floats());
    const int n_rows = static_cast<int>(rows.size());
    ComputeLogits(model, -1, {picked.floats(), n_rows * d_model}, n_rows, {logits.floats(), n_rows * n_vocab});
    const std::span<float> view = ops.HostView(logits.floats(), n_rows * n_vocab, staging);
    return {view.begin(), view.end()};
  }

  const Model& model;
  std::unique_ptr<KvPool> pool;
  SequenceKv kv;
  Scratch scratch;
  kernels::Buffer hidden, logits, picked;
  std::vector<float> staging;
};

class DeviceMemoryTest : public ::testing::TestWithParam<const char*> {};

TEST_P(DeviceMemoryTest, TheForwardPassGivesTheSameBits) {
  const DeviceAndHost models = MakeDeviceModel(Shape(GetParam()), DType::kQ8_0, 81);
  const auto tokens = RandomTokens(23, models.host->config().n_vocab, 82);
  Pass device(*models.device), host(*models.host);
  const auto span = std::span<const int32_t>(tokens);
  const std::vector<int32_t> wanted = {2, 3, 9};
  EXPECT_EQ(device.Run(span.first(10), 0, wanted), host.Run(span.first(10), 0, wanted));
  EXPECT_EQ(device.Run(span.subspan(10, 5), 10, std::vector<int32_t>{}),
            host.Run(span.subspan(10, 5), 10, std::vector<int32_t>{}));
  EXPECT_EQ(device.Run(span.subspan(15, 1), 15), host.Run(span.subspan(15, 1), 15));
  const std::vector<float> last = host.Run(span.subspan(16, 7), 16);
  EXPECT_EQ(last.size(), 7u * models.host->config().n_vocab);
  EXPECT_EQ(device.Run(span.subspan(16, 7), 16), last);
  EXPECT_EQ(models.ops->TakeFault(), kernels::Fault::kNone);
}

INSTANTIATE_TEST_SUITE_P(Models, DeviceMemoryTest,
                         ::testing::Values("tiny-llama", "tiny-qwen2", "tiny-qwen3", "tiny-exits"),
                         [](const auto& info) {
                           std::string name = info.param;
                           name[4] = '_';
                           return name;
                         });

TEST(DeviceMemoryTest, ForksAndSwapsOfItsBlocksKeepTheBits) {
  const DeviceAndHost models = MakeDeviceModel(Shape("tiny-llama"), DType::kF32, 83);
  const auto tokens = RandomTokens(8, models.host->config().n_vocab, 84);
  std::vector<std::vector<float>> logits;
  for (const Model* model : {models.device.get(), models.host.get()}) {
    Pass pass(*model);
    pass.kv.Truncate(6);
    pass.Run(std::span<const int32_t>(tokens).first(6), 0);
    SequenceKv fork = pass.kv.Fork();
    ASSERT_TRUE(fork.Reserve(8).ok());  // copies the last block
    EXPECT_NE(fork.blocks()[1], pass.kv.blocks()[1]);
    // Away to the host and back to where the other one was.
    std::vector<std::byte> away(pass.pool->store().block_bytes());
    pass.pool->store().SwapOut(fork.blocks()[1], away);
    pass.kv = std::move(fork);
    pass.pool->store().SwapIn(away, pass.kv.blocks()[1]);
    logits.push_back(pass.Run(std::span<const int32_t>(tokens).subspan(6), 6));
    EXPECT_EQ(model->ops().TakeFault(), kernels::Fault::kNone);
  }
  EXPECT_EQ(logits[0].size(), 2u * models.host->config().n_vocab);
  EXPECT_EQ(logits[0], logits[1]);
}

TEST(DeviceMemoryTest, AFaultAnywhereEndsTheStepAndTheNextOneWorks) {
  const DeviceAndHost models = MakeDeviceModel(Shape("tiny-qwen3"), DType::kQ4_0, 85);
  const auto tokens = RandomTokens(9, models.host->config().n_vocab, 86);
  const std::vector<int32_t> wanted = {8};
  const std::vector<float> want = Pass(*models.host).Run(tokens, 0, wanted);
  Pass pass(*models.device);
  testing::ForEveryFault(*models.ops, [&](kernels::Fault fault) {
    pass.scratch = Scratch();  // so that memory for it is asked for again
    pass.picked = kernels::Buffer();
    const std::vector<float> logits = pass.Run(tokens, 0, wanted);
    const bool fired = models.ops->fired();
    models.ops->DoNotFail();
    const absl::Status status = TakeStepStatus(*models.ops);
    EXPECT_EQ(status.code(), fired ? testing::CodeOf(fault) : absl::StatusCode::kOk) << status;
    EXPECT_EQ(logits, fired ? std::vector<float>() : want);
    EXPECT_TRUE(TakeStepStatus(*models.ops).ok()) << "told once";
    EXPECT_EQ(pass.Run(tokens, 0, wanted), want) << "the next step";
  });
}

TEST(DeviceMemoryDeathTest, TheHostCannotReachIt) {
  GTEST_FLAG_SET(death_test_style, "threadsafe");
  testing::DeviceOps ops(kernels::MakeCpuOps({.n_threads = 1}));
  const kernels::Buffer buffer = ops.Allocate(64, kernels::MemoryUse::kActivations);
  ops.Zero(buffer.data(), 64);
  EXPECT_DEATH(
      {
        *static_cast<volatile float*>(buffer.floats()) = 1.0f;
        std::exit(0);
      },
      "");
}

}  // namespace
}  // namespace updraft
