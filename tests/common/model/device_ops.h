// Ops whose memory the host cannot reach, on a machine without a device: buffers are pages that may be touched inside
// calls of Ops alone, and everything else is checked as a device would need it. Faults can be injected at any
// operation.
#pragma once

#include <gtest/gtest.h>
#include <sys/mman.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <map>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "common/gguf/reader.h"
#include "kernels/ops.h"
#include "tests/common/model/test_models.h"

namespace updraft::testing {

// The pages of all device buffers of this process. Reserved at once; pages of buffers that are gone serve again.
class DevicePages {
 public:
  static DevicePages& Get() {
    static auto* const pages = new DevicePages;
    return *pages;
  }

  bool Holds(const void* p) const {
    const auto at = reinterpret_cast<uintptr_t>(p), base = reinterpret_cast<uintptr_t>(base_);
    return at >= base && at < base + used_;
  }
  // Open and Close nest; between the outermost two the host may touch the pages.
  void Open() {
    if (depth_++ == 0) Protect(PROT_READ | PROT_WRITE);
  }
  void Close() {
    if (--depth_ == 0) Protect(PROT_NONE);
  }

  // Only between Open and Close.
  kernels::Buffer Allocate(size_t bytes) {
    const size_t n_pages = (bytes + kPage) / kPage;  // at least a byte of no one's at the end
    std::vector<std::byte*>& spare = spare_[n_pages];
    if (spare.empty()) {
      if (n_pages * kPage > kReserved - used_) return {};
      spare.push_back(base_ + used_);
      used_ += n_pages * kPage;
      Protect(PROT_READ | PROT_WRITE);  // the new ones too
    }
    std::byte* const data = spare.back();
    spare.pop_back();
    const auto free = [](void*, std::byte* data, size_t bytes) {
      Get().spare_[(bytes + kPage) / kPage].push_back(data);
    };
    return kernels::Buffer(data, bytes, free);
  }

 private:
  static constexpr size_t kPage = 4096;
  static constexpr size_t kReserved = size_t{1} << 30;

  DevicePages() {
    void* data = mmap(nullptr, kReserved, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (data == MAP_FAILED) std::abort();
    base_ = static_cast<std::byte*>(data);
  }
  void Protect(int protection) {
    if (used_ > 0 && mprotect(base_, used_, protection) != 0) std::abort();
  }

  std::byte* base_ = nullptr;
  size_t used_ = 0;
  int depth_ = 0;
  std::map<size_t, std::vector<std::byte*>> spare_;  // by number of pages
};

// Wraps other Ops and does what they do, to the bit.
class DeviceOps : public kernels::Ops {
 public:
  explicit DeviceOps(std::unique_ptr<kernels::Ops> inner) : inner_(std::move(inner)) {}

  // The operation after `n` more of them fails with `fault`, once.
  void FailAfter(int64_t n, kernels::Fault fault) {
    n_operations_ = 0;
    fail_at_ = n;
    injected_ = fault;
    fired_ = false;
  }
  void DoNotFail() { fail_at_ = -1; }
  bool fired() const { return fired_; }                      // since FailAfter
  const float* embedded_to() const { return embedded_to_; }  // where the last EmbedRows was to write, fault or not

  std::string name() const override { return "device of " + inner_->name(); }
  int n_threads() const override { return inner_->n_threads(); }

  std::unique_ptr<kernels::PackedMatrix> Pack(kernels::DType type, int64_t n_out, int64_t n_in,
                                              const void* data) override {
    return inner_->Pack(type, n_out, n_in, data);
  }
  std::unique_ptr<kernels::PackedMatrix> Table(kernels::DType type, int64_t n_rows, int64_t width,
                                               const void* data) override {
    return inner_->Table(type, n_rows, width, data);
  }
  std::unique_ptr<kernels::LowRank> PackLowRank(kernels::DType type, int64_t rank, int64_t n_out, int64_t n_in,
                                                const float* a, const float* b) override {
    return inner_->PackLowRank(type, rank, n_out, n_in, a, b);
  }
  std::vector<kernels::LayoutChoice> layout_choices() const override { return inner_->layout_choices(); }
  uint32_t PackedLayout() const override { return inner_->PackedLayout(); }
  size_t PackedSize(kernels::DType type, int64_t n_out, int64_t n_in) const override {
    return inner_->PackedSize(type, n_out, n_in);
  }
  std::span<const uint8_t> PackedBytes(const kernels::PackedMatrix& w) const override { return inner_->PackedBytes(w); }
  std::unique_ptr<kernels::PackedMatrix> FromPacked(kernels::DType type, int64_t n_out, int64_t n_in,
                                                    kernels::PackedSource& source) override {
    return inner_->FromPacked(type, n_out, n_in, source);
  }
  kernels::SparsityTuning TuneSparsity(std::span<const kernels::FeedForwardWeights> layers) override {
    return inner_->TuneSparsity(layers);
  }

  kernels::Buffer Allocate(size_t bytes, kernels::MemoryUse use) override {
    kernels::Buffer buffer;
    Operation([&] {
      buffer = DevicePages::Get().Allocate(bytes);
      // What is not initialised must not matter: not a number, wherever it is read as one.
      std::memset(buffer.data(), use == kernels::MemoryUse::kActivations ? 0xff : 0, bytes);
    });
    return buffer;
  }
  void Zero(void* to, size_t bytes) override {
    Device({to});
    Operation([&] { inner_->Zero(to, bytes); });
  }
  void Upload(const void* from, size_t bytes, void* to) override {
    Host({from});
    Device({to});
    Operation([&] { inner_->Upload(from, bytes, to); });
  }
  void Download(const void* from, size_t bytes, void* to) override {
    Device({from});
    Host({to});
    Operation([&] { inner_->Download(from, bytes, to); });
  }
  void Copy(const void* from, size_t bytes, void* to) override {
    if (bytes > 0) Device({from, to});
    Operation([&] { inner_->Copy(from, bytes, to); });
  }
  void GatherRows(const float* from, std::span<const int32_t> rows, int64_t width, float* to) override {
    Device({from, to});
    Host({rows.data()});
    Operation([&] { inner_->GatherRows(from, rows, width, to); });
  }
  void ScatterRows(const float* from, std::span<const int32_t> rows, int64_t width, float* to) override {
    Device({from, to});
    Host({rows.data()});
    Operation([&] { inner_->ScatterRows(from, rows, width, to); });
  }
  std::span<float> HostView(float* from, size_t n, std::vector<float>& staging) override {
    Device({from});
    bool done = false;
    Operation([&] {
      staging.assign(from, from + n);
      std::memset(from, 0xff, n * sizeof(float));  // unspecified from here on
      done = true;
    });
    return done ? std::span<float>(staging) : std::span<float>();
  }
  void Fail(kernels::Fault fault) override { fault_ = kernels::Graver(fault_, fault); }
  kernels::Fault TakeFault() override {
    Fail(inner_->TakeFault());
    return std::exchange(fault_, kernels::Fault::kNone);
  }

  void AnnounceRows(int slot, std::span<const int32_t> positions, std::span<const kernels::AttentionRow> rows,
                    int block_tokens) override {
    ASSERT_TRUE(slot == 0 || slot == 1);
    Announced& announced = announced_[slot];
    announced.positions = positions;
    announced.rows = rows;
    announced.block_tokens = block_tokens;
    announced.position_values.assign(positions.begin(), positions.end());
    announced.tables.clear();
    for (const kernels::AttentionRow& row : rows) {
      announced.tables.emplace_back(row.block_table, row.block_table + row.position / block_tokens + 1);
    }
    Operation([] {});
  }
  void MatMul(std::span<const kernels::MatMulTarget> targets, const kernels::MatMulInput& x, int n_tok) override {
    Device({x.x, x.gain});
    for (const kernels::MatMulTarget& target : targets) Device({target.y, target.bias});
    Operation([&] { inner_->MatMul(targets, x, n_tok); });
  }
  void EmbedRows(const kernels::PackedMatrix& table, std::span<const int32_t> tokens, float* out) override {
    Host({tokens.data()});
    embedded_to_ = out;
    Device({out});
    Operation([&] { inner_->EmbedRows(table, tokens, out); });
  }
  void RmsNorm(const float* x, const float* gain, int n_rows, int width, float eps, float* y) override {
    Device({x, gain, y});
    Operation([&] { inner_->RmsNorm(x, gain, n_rows, width, eps, y); });
  }
  void Rope(float* x, std::span<const int32_t> positions, int n_head, int head_dim,
            const kernels::RopeParams& params) override {
    Device({x});
    EXPECT_TRUE(IsAnnounced([&](const Announced& a) {
      return a.positions.data() == positions.data() &&
             std::equal(positions.begin(), positions.end(), a.position_values.begin(), a.position_values.end());
    }));
    Operation([&] { inner_->Rope(x, positions, n_head, head_dim, params); });
  }
  void SwiGlu(const float* gate, const float* up, int64_t n, float* out) override {
    Device({gate, up, out});
    Operation([&] { inner_->SwiGlu(gate, up, n, out); });
  }
  void FeedForward(const kernels::FeedForwardWeights& w, const kernels::FeedForwardArgs& args) override {
    Device({args.x.x, args.x.gain, args.y, args.gate, args.up});
    Operation([&] { inner_->FeedForward(w, args); });
  }
  void StoreKv(const float* k, const float* v, std::span<const kernels::AttentionRow> rows, const kernels::KvLayer& kv,
               const kernels::KvShape& shape) override {
    Device({k, v, kv.k, kv.v});
    CheckRows(rows, shape.block_tokens);
    Operation([&] { inner_->StoreKv(k, v, rows, kv, shape); });
  }
  void Attention(const kernels::AttentionArgs& args) override {
    Device({args.q, args.out, args.kv.k, args.kv.v, args.sink_scores});
    CheckRows(args.rows, args.shape.block_tokens);
    Operation([&] { inner_->Attention(args); });
  }

 private:
  struct Announced {
    std::span<const int32_t> positions;
    std::span<const kernels::AttentionRow> rows;
    int block_tokens = 0;
    std::vector<int32_t> position_values;
    std::vector<std::vector<int32_t>> tables;
  };

  template <typename Body>
  void Operation(const Body& body) {
    if (n_operations_++ == fail_at_) {
      fired_ = true;
      Fail(injected_);
    }
    if (fault_ != kernels::Fault::kNone) return;
    DevicePages::Get().Open();
    body();
    DevicePages::Get().Close();
  }

  // Addresses of a device, or null; after a fault they may be of buffers that could not be had.
  void Device(std::initializer_list<const void*> addresses) const {
    if (fault_ != kernels::Fault::kNone) return;
    for (const void* p : addresses) {
      EXPECT_TRUE(p == nullptr || DevicePages::Get().Holds(p)) << "host memory where a device's is wanted";
    }
  }
  static void Host(std::initializer_list<const void*> addresses) {
    for (const void* p : addresses) EXPECT_FALSE(DevicePages::Get().Holds(p)) << "a device's memory, not the host's";
  }

  template <typename Matches>
  bool IsAnnounced(const Matches& matches) const {
    return fault_ != kernels::Fault::kNone || matches(announced_[0]) || matches(announced_[1]);
  }
  void CheckRows(std::span<const kernels::AttentionRow> rows, int block_tokens) const {
    EXPECT_TRUE(IsAnnounced([&](const Announced& a) {
      if (a.rows.data() != rows.data() || a.rows.size() != rows.size() || a.block_tokens != block_tokens) return false;
      for (size_t t = 0; t < rows.size(); ++t) {
        if (!std::equal(a.tables[t].begin(), a.tables[t].end(), rows[t].block_table)) return false;
      }
      return true;
    })) << "rows that were not announced, or changed since";
  }

  const std::unique_ptr<kernels::Ops> inner_;
  Announced announced_[2];
  kernels::Fault fault_ = kernels::Fault::kNone;
  kernels::Fault injected_ = kernels::Fault::kNone;
  int64_t n_operations_ = 0;
  int64_t fail_at_ = -1;  // none
  bool fired_ = false;
  const float* embedded_to_ = nullptr;
};

// A model whose Ops are DeviceOps, and the same one on the plain CPU.
struct DeviceAndHost {
  std::unique_ptr<Model> device, host;
  DeviceOps* ops = nullptr;  // of `device`
};

inline DeviceAndHost MakeDeviceModel(const SynthShape& shape, kernels::DType type, uint64_t seed) {
  TempFile file;
  const absl::Status status = Synthesize(shape, type, file.path(), {.seed = seed, .n_threads = 1, .head_type = type});
  EXPECT_TRUE(status.ok()) << status;
  DeviceAndHost models;
  models.host = Model::Load(file.path(), {.n_threads = 2}).value();
  auto ops = std::make_unique<DeviceOps>(kernels::MakeCpuOps({.n_threads = 2}));
  models.ops = ops.get();
  models.device = Model::FromFile(gguf::File::Open(file.path()).value(), std::move(ops)).value();
  return models;
}

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr int64_t kFaultStride = 9;
#else
inline constexpr int64_t kFaultStride = 1;
#endif

// Every n (where all is slow, every ninth) at which a step can fail: run(fault) or run(fault, n), until one comes to
// its end untouched. Both kinds of fault in turn.
template <typename Run>
void ForEveryFault(DeviceOps& ops, const Run& run) {
  DevicePages::Get().Open();  // stays so: who touches what is for tests without faults, and closing takes long
  int64_t n = 0;
  for (; n < 100000; n += kFaultStride) {
    SCOPED_TRACE("fault at operation " + std::to_string(n));
    const kernels::Fault fault = n % 2 == 0 ? kernels::Fault::kOutOfMemory : kernels::Fault::kDevice;
    ops.FailAfter(n, fault);
    if constexpr (std::is_invocable_v<Run, kernels::Fault, int64_t>) {
      run(fault, n);
    } else {
      run(fault);
    }
    if (!ops.fired() || ::testing::Test::HasFailure()) break;
  }
  ops.DoNotFail();
  DevicePages::Get().Close();
  std::printf("%ld operations, of which 1 in %ld failed in turn\n", static_cast<long>(n),
              static_cast<long>(kFaultStride));
  EXPECT_GT(n, 30) << "hardly anything was tested";
}

inline absl::StatusCode CodeOf(kernels::Fault fault) {
  return fault == kernels::Fault::kOutOfMemory ? absl::StatusCode::kResourceExhausted : absl::StatusCode::kInternal;
}

}  // namespace updraft::testing
