// Packed weights that are given away as bytes and taken back.
#include <atomic>
#include <cstring>
#include <memory>
#include <set>

#include "kernels/cpu/cpu_ops.h"
#include "kernels/cpu/tile_matmul/tile_format.h"
#include "tests/kernels/cpu/test_util.h"

namespace updraft::kernels {
namespace {

// Gives out `bytes`, up to where it fails.
class Bytes : public PackedSource {
 public:
  explicit Bytes(std::vector<uint8_t> bytes) : bytes_(std::move(bytes)), end_(bytes_.size()) {}
  void FailFrom(size_t end) { end_ = end; }

  bool Read(size_t offset, std::span<uint8_t> to) override {
    EXPECT_EQ(offset % kPackedPiece, 0u);
    EXPECT_EQ(to.size(), std::min(kPackedPiece, bytes_.size() - offset));
    if (offset + to.size() > end_) return false;
    std::memcpy(to.data(), bytes_.data() + offset, to.size());
    n_read_ += to.size();
    return true;
  }
  size_t n_read() const { return n_read_; }

 private:
  const std::vector<uint8_t> bytes_;
  size_t end_;
  std::atomic<size_t> n_read_ = 0;
};

std::vector<float> Product(Ops& ops, const PackedMatrix& w, const std::vector<float>& x) {
  std::vector<float> y(w.n_out());
  const MatMulTarget target{&w, y.data()};
  ops.MatMul({&target, 1}, {x.data()}, 1);
  return y;
}

TEST(PackedBytesTest, EveryTypeComesBackAsItWas) {
  for (const DType type : AllTypes()) {
    SCOPED_TRACE(Info(type).name);
    const int64_t n_out = 37, n_in = 2 * std::max(Info(type).block_elems, 32);
    const auto ops = MakeCpuOpsFor(Isa::kPortable, 2);
    const auto file = EncodedWeights(type, n_out, n_in, 3);
    const auto packed = ops->Pack(type, n_out, n_in, file.data());
    const std::span<const uint8_t> bytes = ops->PackedBytes(*packed);
    EXPECT_EQ(bytes.size(), ops->PackedSize(type, n_out, n_in));
    EXPECT_EQ(bytes.empty(), !IsTiled(type) || KeepsHalf(type));  // what was measured is not kept
    if (bytes.empty()) continue;
    Bytes source({bytes.begin(), bytes.end()});
    const auto other_ops = MakeCpuOpsFor(Isa::kPortable, 1);
    const auto again = other_ops->FromPacked(type, n_out, n_in, source);
    ASSERT_NE(again, nullptr);
    EXPECT_EQ(source.n_read(), bytes.size());
    EXPECT_EQ(again->type(), type);
    EXPECT_EQ(again->packed_bytes(), packed->packed_bytes());
    const auto x = Gaussian(n_in, 4);
    EXPECT_EQ(Product(*other_ops, *again, x), Product(*ops, *packed, x));
  }
}

// Several pieces, on several threads; a piece that cannot be had spoils the whole.
TEST(PackedBytesTest, PiecesAreAllNeeded) {
  const int64_t n_out = 1040, n_in = 1024;
  const auto ops = MakeCpuOpsFor(Isa::kPortable, 3);
  const auto file = EncodedWeights(DType::kQ8_0, n_out, n_in, 3);
  const auto packed = ops->Pack(DType::kQ8_0, n_out, n_in, file.data());
  const std::span<const uint8_t> bytes = ops->PackedBytes(*packed);
  ASSERT_GT(bytes.size(), 4 * kPackedPiece);
  ASSERT_NE(bytes.size() % kPackedPiece, 0u);
  Bytes source({bytes.begin(), bytes.end()});
  const auto again = ops->FromPacked(DType::kQ8_0, n_out, n_in, source);
  ASSERT_NE(again, nullptr);
  const std::span<const uint8_t> back = ops->PackedBytes(*again);
  EXPECT_TRUE(std::equal(back.begin(), back.end(), bytes.begin(), bytes.end()));
  for (const size_t end : {size_t{0}, kPackedPiece, bytes.size() - 1}) {
    source.FailFrom(end);
    EXPECT_EQ(ops->FromPacked(DType::kQ8_0, n_out, n_in, source), nullptr);
  }
}

// Files of packed weights outlive the program that wrote them.
TEST(PackedBytesTest, OtherBytesNeedAnotherLayoutVersion) {
  uint64_t hash = 0xcbf29ce484222325;  // FNV-1a
  for (const DType type : AllTypes()) {
    if (!IsTiled(type) || KeepsHalf(type)) continue;
    const int64_t n_out = 21, n_in = 2 * std::max(Info(type).block_elems, 32);
    const auto blocks = testing::RandomBlocks(type, 11, static_cast<int>(n_out * n_in));
    const auto ops = MakeCpuOpsFor(Isa::kPortable, 1);
    const auto packed = ops->Pack(type, n_out, n_in, blocks.data());
    for (const uint8_t byte : ops->PackedBytes(*packed)) hash = (hash ^ byte) * 0x100000001b3;
  }
  EXPECT_EQ(kTileLayoutVersion, 1u) << "state the hash of that version here";
  EXPECT_EQ(hash, 9273568910130565229u) << "packing gives other bytes than before: count up kTileLayoutVersion";
}

TEST(PackedBytesTest, TheReferenceKeepsNothing) {
  const auto ops = MakeCpuOpsFor(Isa::kReference, 1);
  const auto file = EncodedWeights(DType::kQ8_0, 16, 32, 3);
  const auto packed = ops->Pack(DType::kQ8_0, 16, 32, file.data());
  EXPECT_EQ(ops->PackedSize(DType::kQ8_0, 16, 32), 0u);
  EXPECT_TRUE(ops->PackedBytes(*packed).empty());
}

}  // namespace
}  // namespace updraft::kernels
