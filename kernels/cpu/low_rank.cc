#include "kernels/cpu/low_rank.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

#include "kernels/cpu/tile_matmul/pack.h"
#include "kernels/cpu/work_split.h"
#include "kernels/formats/codec.h"
#include "kernels/formats/float16.h"

namespace updraft::kernels {
namespace {

constexpr int kMaxCode = 127;

int64_t RoundUp(int64_t n, int64_t to) { return (n + to - 1) / to * to; }

template <typename T>
void GrowTo(T& buffer, int64_t n) {
  if (buffer.size() < static_cast<size_t>(n)) buffer.resize(n);
}

const CpuLowRank& Of(const MatMulTarget& target) { return static_cast<const CpuLowRank&>(*target.low_rank); }

// The least bf16 that is not below x >= 0, so that no code passes kMaxCode.
uint16_t Bf16Above(float x) { return static_cast<uint16_t>((std::bit_cast<uint32_t>(x) + 0xffff) >> 16); }

// Rows of A with largest magnitudes in [1, 2), and columns of B the other way, by powers of two: what B takes in of
// different ranks is of one size, and no scale of A is too small for half precision. b: [n_out, rank].
struct Levelled {
  std::vector<float> a, b;
};
Levelled Level(const float* a, const float* b, int64_t rank, int64_t n_out, int64_t n_in) {
  Levelled to = {{a, a + rank * n_in}, {b, b + n_out * rank}};
  for (int64_t k = 0; k < rank; ++k) {
    float max = 0.0f;
    for (int64_t i = k * n_in; i < (k + 1) * n_in; ++i) max = std::max(max, std::fabs(a[i]));
    if (max == 0.0f) continue;
    const int exponent = std::ilogb(max);
    for (int64_t i = k * n_in; i < (k + 1) * n_in; ++i) to.a[i] = std::ldexp(a[i], -exponent);
    for (int64_t out = 0; out < n_out; ++out) to.b[out * rank + k] = std::ldexp(b[out * rank + k], exponent);
  }
  return to;
}

// A as rows of q8_0, the rows of zeros included.
std::vector<std::byte> QuantizeA(const float* a, int64_t rank, int64_t rank_padded, int64_t n_in) {
  const size_t row_bytes = RowBytes(DType::kQ8_0, n_in);
  std::vector<std::byte> rows(rank_padded * row_bytes);
  for (int64_t k = 0; k < rank; ++k) QuantizeRow(DType::kQ8_0, a + k * n_in, rows.data() + k * row_bytes, n_in);
  return rows;
}

}  // namespace

std::shared_ptr<uint8_t> LowRankStore::Take(size_t bytes) {
  bytes = RoundUp(static_cast<int64_t>(bytes), 64);
  if (block_ == nullptr || bytes > block_->size() - used_) {
    block_ = std::make_shared<AlignedBuffer>(std::max(bytes, kBlockBytes));
    used_ = 0;
  }
  used_ += bytes;
  return {block_, block_->data() + used_ - bytes};
}

size_t CpuLowRank::BytesOf(DType beside, int64_t rank, int64_t n_out, int64_t n_in) {
  if (!IsTiled(beside)) return sizeof(float) * rank * (n_in + n_out);
  const int64_t padded = RoundUp(rank, kTileOutputs);
  return padded * RowBytes(DType::kQ8_0, n_in) + RoundUp(n_out, kTileOutputs) * (padded + sizeof(uint16_t));
}

CpuLowRank::CpuLowRank(DType beside, int64_t rank, int64_t n_out, int64_t n_in, const float* a, const float* b,
                       LowRankStore& store, ThreadPool& pool)
    : LowRank(rank, n_out, n_in, BytesOf(beside, rank, n_out, n_in)), rank_padded_(rank) {
  if (!IsTiled(beside)) {
    a_.assign(a, a + rank * n_in);
    b_.assign(b, b + n_out * rank);
    return;
  }
  rank_padded_ = RoundUp(rank, kTileOutputs);
  const int64_t n_padded = RoundUp(n_out, kTileOutputs);
  const Levelled levelled = Level(a, b, rank, n_out, n_in);
  const std::vector<std::byte> rows = QuantizeA(levelled.a.data(), rank, rank_padded_, n_in);
  const TiledWeights tiles(DType::kQ8_0, TileKind::k8, rank_padded_, n_in, rows.data(), pool);
  // Of the planes without the tile that evens their number.
  constexpr TileFormat kFormat = TileFormatOf(TileKind::k8);
  const int64_t n_blocks = rank_padded_ / kTileOutputs * (n_in / kTileBlock);
  const int64_t low_bytes = n_blocks * kFormat.low_bytes(), scale_bytes = n_blocks * kFormat.scale_bytes();
  const int64_t codes_at = RoundUp(low_bytes + scale_bytes, 64), scales_at = codes_at + n_padded * rank_padded_;
  const std::shared_ptr<uint8_t> bytes = store.Take(scales_at + n_padded * sizeof(uint16_t));
  std::memcpy(bytes.get(), tiles.view().low, low_bytes);
  std::memcpy(bytes.get() + low_bytes, tiles.view().scale, scale_bytes);
  a_tiles_ = {.low = bytes.get(),
              .high = bytes.get(),
              .scale = bytes.get() + low_bytes,
              .super = bytes.get(),
              .n_blocks = n_in / kTileBlock};
  b_codes_ = bytes.get() + codes_at;
  b_scales_ = reinterpret_cast<uint16_t*>(bytes.get() + scales_at);
  PackB(levelled.b.data(), bytes.get() + codes_at, reinterpret_cast<uint16_t*>(bytes.get() + scales_at));
  bytes_ = bytes;
}

void CpuLowRank::PackB(const float* b, uint8_t* codes, uint16_t* scales) const {
  const int64_t n_padded = RoundUp(n_out(), kTileOutputs);
  std::fill_n(codes, n_padded * rank_padded_, uint8_t{kMaxCode + 1});
  std::fill_n(scales, n_padded, uint16_t{0});
  for (int64_t out = 0; out < n_out(); ++out, b += rank()) {
    float max = 0.0f;
    for (int64_t k = 0; k < rank(); ++k) max = std::max(max, std::fabs(b[k]));
    scales[out] = Bf16Above(max / kMaxCode);
    const float scale = BF16ToF32(scales[out]);
    if (!(scale >= 1e-38f)) continue;  // it is zero, or its inverse overflows: what it scales is nothing
    uint8_t* const tile = codes + out / kTileOutputs * kTileOutputs * rank_padded_;
    for (int64_t k = 0; k < rank(); ++k) {
      const auto code = std::clamp<int64_t>(std::lrint(b[k] / scale), -kMaxCode, kMaxCode);
      tile[(k / 4 * kTileOutputs + out % kTileOutputs) * 4 + k % 4] = static_cast<uint8_t>(code + kMaxCode + 1);
    }
  }
}

void LowRankProducts::AddForms(std::span<const MatMulTarget> targets, ActivationForms& forms) {
  for (const MatMulTarget& target : targets) {
    if (target.low_rank == nullptr) continue;
    forms.set(static_cast<size_t>(Of(target).quantized() ? ActivationForm::kBlocks : ActivationForm::kF32));
  }
}

void LowRankProducts::Project(std::span<const MatMulTarget> targets, const Activations& x, int n_tok,
                              std::span<AlignedBuffer> scratch) {
  if (inputs_.size() < targets.size()) inputs_.resize(targets.size());
  int64_t bytes = 0;
  for (size_t i = 0; i < targets.size(); ++i) {
    if (targets[i].low_rank == nullptr) continue;
    const CpuLowRank& low_rank = Of(targets[i]);
    bytes += low_rank.rank() * low_rank.n_in();
    GrowTo(inputs_[i].h, n_tok * low_rank.rank_padded());
    if (!low_rank.quantized()) continue;
    GrowTo(inputs_[i].q, n_tok * low_rank.rank_padded());
    GrowTo(inputs_[i].of_token, n_tok);
  }
  const auto n_targets = static_cast<int>(targets.size());
  const bool serial = pool_.n_threads() == 1 || bytes * ((n_tok + 3) / 4) < kSerialBytes;
  const int n_parts = serial ? 1 : std::min(n_tok, kChunksPerThread * pool_.n_threads());
  const auto run = [&](int chunk, int thread) {
    const int target = chunk / n_parts;
    if (targets[target].low_rank == nullptr) return;
    ProjectSome(Of(targets[target]), inputs_[target], x, n_tok, chunk % n_parts, n_parts, scratch[thread].data());
  };
  if (serial) {
    for (int target = 0; target < n_targets; ++target) run(target, 0);
  } else {
    pool_.Run(n_targets * n_parts, run);
  }
}

void LowRankProducts::ProjectSome(const CpuLowRank& low_rank, Inputs& to, const Activations& x, int n_tok, int part,
                                  int n_parts, uint8_t* scratch) const {
  const int64_t rank = low_rank.rank_padded();
  if (!low_rank.quantized()) {
    kernels_.dense_matmul->f32({.w = low_rank.a(),
                                .n_in = low_rank.n_in(),
                                .out_from = 0,
                                .out_to = rank,
                                .x = x.f32,
                                .tok_from = n_tok * part / n_parts,
                                .tok_to = n_tok * (part + 1) / n_parts,
                                .y = to.h.data(),
                                .y_stride = rank,
                                .scratch = reinterpret_cast<float*>(scratch)});
    return;
  }
  const int n_groups = x.blocks.n_groups;
  const int from = n_groups * part / n_parts;
  const int end = n_groups * (part + 1) / n_parts;
  if (from == end) return;
  kernels_.tile_matmul.run_narrow({.w = low_rank.a_tiles(),
                                   .tile_from = 0,
                                   .tile_to = rank / kTileOutputs,
                                   .x = x.blocks,
                                   .group_from = from,
                                   .group_to = end,
                                   .out = {.n_out = rank, .y = to.h.data(), .y_stride = rank},
                                   .scratch = scratch});
  const TokenGroup last = GroupOf(n_tok, n_groups, end - 1);
  for (int t = GroupOf(n_tok, n_groups, from).from; t < last.from + last.size; ++t) {
    kernels_.tile_matmul.quantize_low_rank(to.h.data() + t * rank, static_cast<int>(rank), to.q.data() + t * rank,
                                           &to.of_token[t]);
  }
}

void LowRankProducts::Add(size_t index, const MatMulTarget& target, int64_t out_from, int64_t out_to, int tok_from,
                          int tok_to, uint8_t* scratch) const {
  const CpuLowRank& low_rank = Of(target);
  const Inputs& inputs = inputs_[index];
  const int64_t y_stride = target.y_stride == 0 ? low_rank.n_out() : target.y_stride;
  if (!low_rank.quantized()) {
    kernels_.dense_matmul->f32({.w = low_rank.b(),
                                .n_in = low_rank.rank(),
                                .out_from = out_from,
                                .out_to = std::min(out_to, low_rank.n_out()),
                                .x = inputs.h.data(),
                                .tok_from = tok_from,
                                .tok_to = tok_to,
                                .y = target.y,
                                .y_stride = y_stride,
                                .accumulate = true,
                                .scratch = reinterpret_cast<float*>(scratch)});
    return;
  }
  kernels_.tile_matmul.add_low_rank({.codes = low_rank.b_codes(),
                                     .scales = low_rank.b_scales(),
                                     .rank = low_rank.rank_padded(),
                                     .n_out = low_rank.n_out(),
                                     .tile_from = out_from / kTileOutputs,
                                     .tile_to = (out_to + kTileOutputs - 1) / kTileOutputs,
                                     .q = inputs.q.data(),
                                     .inputs = inputs.of_token.data(),
                                     .token_from = tok_from,
                                     .token_to = tok_to,
                                     .y = target.y,
                                     .y_stride = y_stride});
}

}  // namespace updraft::kernels
