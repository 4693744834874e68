// Loading without enough memory. A program of its own: memory that other tests have freed, and what the allocator
// reserved for their threads, would do instead of the memory that is not to be had.
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>

#include "absl/strings/match.h"
#include "common/model/forward.h"
#include "common/model/kv_cache.h"
#include "common/model/model.h"
#include "common/model/step_status.h"
#include "tests/common/model/test_models.h"

namespace updraft {
namespace {

// Limits this process's address space to what it has, the mapped file and `more` bytes.
void LimitMemory(uint64_t file_bytes, uint64_t more) {
  uint64_t pages = 0;
  std::ifstream("/proc/self/statm") >> pages;
  const uint64_t bytes = pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE)) + file_bytes + more;
  const rlimit limit{bytes, bytes};
  if (pages == 0 || setrlimit(RLIMIT_AS, &limit) != 0) _exit(2);
}

bool InChild(const std::function<bool()>& run) {
  const pid_t child = fork();
  if (child == 0) _exit(run() ? 0 : 1);
  int status = -1;
  return child > 0 && waitpid(child, &status, 0) == child && status == 0;
}

// In a process of its own, so that the others have no freed memory of this size.
bool SynthesizeWide(const std::string& path) {
  SynthShape shape = testing::Shape("tiny-llama");
  shape.d_ff = 65536;
  return InChild([&] { return Synthesize(shape, kernels::DType::kQ8_0, path, {.seed = 1, .n_threads = 1}).ok(); });
}

TEST(MemoryTest, RunningOutIsAnErrorWithTheFilesName) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers need the address space: running out of memory is not tested";
#endif
  testing::TempFile model;
  ASSERT_TRUE(SynthesizeWide(model.path()));
  const uint64_t file_bytes = std::filesystem::file_size(model.path());
  for (const bool pin_threads : {false, true}) {
    const auto load_with = [&](uint64_t more) {
      LimitMemory(file_bytes, more);
      return Model::Load(model.path(), {.n_threads = 1, .pin_threads = pin_threads}).status();
    };
    EXPECT_TRUE(InChild([&] { return load_with(uint64_t{1} << 30).ok(); })) << "pin_threads " << pin_threads;
    EXPECT_TRUE(InChild([&] {
      const absl::Status status = load_with(file_bytes / 8);
      return absl::IsResourceExhausted(status) && absl::StrContains(status.message(), model.path());
    })) << "pin_threads "
        << pin_threads;
  }
}

// A prompt for which there is no memory ends with a status; a shorter one works afterwards.
TEST(MemoryTest, RunningOutInAStepIsAnErrorThatPasses) {
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
  GTEST_SKIP() << "sanitizers need the address space: running out of memory is not tested";
#endif
  testing::TempFile file;
  ASSERT_TRUE(SynthesizeWide(file.path()));
  // A row takes half a megabyte of gate and up. Where the limit cuts through a step is not the same everywhere: in an
  // allocation of the scratch, or of what the product itself needs.
  for (const uint64_t megabytes : {4, 30, 80, 112}) {
    EXPECT_TRUE(InChild([&] {
      const auto model = Model::Load(file.path(), {.n_threads = 1}).value();
      auto pool = KvPool::Create(model->ops(), model->config(), {.n_blocks = 16, .block_tokens = 16}).value();
      SequenceKv kv(pool.get());
      const int n_most = 200;
      if (!kv.Reserve(n_most).ok()) return false;
      const size_t row_floats = model->config().d_model;
      const kernels::Buffer hidden =
          model->ops().Allocate(n_most * row_floats * sizeof(float), kernels::MemoryUse::kActivations);
      const std::vector<int32_t> tokens(n_most, 1);
      std::vector<int32_t> positions(n_most);
      for (int p = 0; p < n_most; ++p) positions[p] = p;
      const std::vector<const int32_t*> tables(n_most, kv.blocks().data());
      Scratch scratch;
      const auto run = [&](int n) {
        Forward(*model,
                {.tokens = std::span(tokens).first(n),
                 .positions = std::span(positions).first(n),
                 .block_tables = std::span(tables).first(n)},
                {.from = 0, .to = model->config().n_layer}, {hidden.floats(), n * row_floats}, pool->store(), scratch);
        return TakeStepStatus(model->ops());
      };
      LimitMemory(0, megabytes << 20);
      const absl::Status status = run(n_most);
      scratch = Scratch();
      return absl::IsResourceExhausted(status) && run(2).ok();
    })) << megabytes
        << " MB more";
  }
}

}  // namespace
}  // namespace updraft
