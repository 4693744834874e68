#include "kernels/cpu/sparse_feed_forward.h"

#include <algorithm>
#include <chrono>
#include <numeric>

#include "kernels/cpu/work_split.h"

namespace updraft::kernels {
namespace {

// Appends the `per_group` consecutive pieces of each listed group.
void ListPieces(std::span<const int32_t> groups, int per_group, std::vector<int32_t>& pieces) {
  pieces.clear();
  for (const int32_t group : groups) {
    for (int i = 0; i < per_group; ++i) pieces.push_back(group * per_group + i);
  }
}

int SpanBlocks(const PackedMatrix& w) { return TileFormatOf(TileKindOf(w.type())).span_blocks(); }

template <typename Body>
double SecondsOf(const Body& body) {
  const auto start = std::chrono::steady_clock::now();
  body();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

double Median(std::vector<double> values) {
  std::nth_element(values.begin(), values.begin() + static_cast<ptrdiff_t>(values.size() / 2), values.end());
  return values[values.size() / 2];
}

// n_active of n_groups without a pattern that a prefetcher could learn; the same ones every time.
std::vector<int32_t> SomeGroups(int n_groups, int n_active) {
  std::vector<int32_t> groups(n_groups);
  std::iota(groups.begin(), groups.end(), 0);
  uint32_t state = 1;
  for (int i = n_groups - 1; i > 0; --i) {
    state = state * 1664525u + 1013904223u;
    std::swap(groups[i], groups[(state >> 8) % static_cast<uint32_t>(i + 1)]);
  }
  groups.resize(n_active);
  std::sort(groups.begin(), groups.end());
  return groups;
}

}  // namespace

std::span<const int32_t> SparseFeedForward::UpTo(int64_t n) {
  for (auto i = static_cast<int32_t>(up_to_.size()); i < n; ++i) up_to_.push_back(i);
  return {up_to_.data(), static_cast<size_t>(n)};
}

void SparseFeedForward::Multiply(const PackedMatrix& w, std::span<const int32_t> tiles, std::span<const int32_t> blocks,
                                 float* y, bool accumulate) {
  const auto n_tiles = static_cast<int64_t>(tiles.size());
  const double share = static_cast<double>(n_tiles) * static_cast<double>(blocks.size()) /
                       (static_cast<double>(w.n_out()) / kTileOutputs * static_cast<double>(w.n_in()) / kTileBlock);
  const auto bytes = static_cast<int64_t>(share * static_cast<double>(w.packed_bytes()));
  const int64_t n_chunks = std::min(n_tiles, ChunksWorth(bytes, pool_.n_threads()));
  const TiledWeights& weights = static_cast<const TiledMatrix&>(w).weights();
  const SparseTileMatMulFunction run = kernels_.tile_matmul.run_sparse[static_cast<int>(weights.kind())];
  const auto chunk = [&](int index, int) {
    const int64_t from = n_tiles * index / n_chunks;
    const int64_t to = n_tiles * (index + 1) / n_chunks;
    run({.w = weights.view(),
         .tiles = tiles.data() + from,
         .n_tiles = to - from,
         .blocks = blocks.data(),
         .n_blocks = static_cast<int64_t>(blocks.size()),
         .q = q_.data(),
         .x = q_blocks_.data(),
         .out = {.n_out = w.n_out(), .y = y, .y_stride = w.n_out(), .accumulate = accumulate}});
  };
  if (bytes < kSerialBytes || pool_.n_threads() == 1) {
    for (int index = 0; index < n_chunks; ++index) chunk(index, 0);
  } else {
    pool_.Run(static_cast<int>(n_chunks), chunk);
  }
}

void SparseFeedForward::QuantizeListed(const float* x, int span_blocks) {
  float span[kSpanBlocks * kTileBlock];
  int8_t codes[kSpanBlocks * kTileBlock];
  ActivationBlock blocks[kSpanBlocks];
  for (size_t i = 0, end = 0; i < blocks_.size(); i = end) {
    const int64_t first = blocks_[i] / span_blocks * span_blocks;
    std::fill_n(span, span_blocks * kTileBlock, 0.0f);
    for (end = i; end < blocks_.size() && blocks_[end] < first + span_blocks; ++end) {
      std::copy_n(x + int64_t{blocks_[end]} * kTileBlock, kTileBlock, span + (blocks_[end] - first) * kTileBlock);
    }
    kernels_.tile_matmul.quantize(span, span_blocks * kTileBlock, span_blocks, 0, 1, codes, blocks);
    for (size_t k = i; k < end; ++k) {
      std::copy_n(codes + (blocks_[k] - first) * kTileBlock, kTileBlock, q_.data() + k * kTileBlock);
      q_blocks_[k] = blocks[blocks_[k] - first];
    }
  }
}

void SparseFeedForward::Run(const FeedForwardWeights& w, const float* x, const float* gate,
                            std::span<const int32_t> active, float* up, float* y) {
  const int64_t d_model = w.up->n_in();
  if (active.empty()) {
    for (int64_t i = 0; i < d_model; ++i) y[i] += 0.0f;  // of -0 it makes 0, as the whole product does
    return;
  }
  const int64_t d_ff = w.up->n_out();
  const int64_t widest = std::max(d_model, d_ff);
  q_.resize(widest);
  q_blocks_.resize(widest / kTileBlock);
  UpTo(widest / kTileOutputs + 1);  // before spans into it are taken

  kernels_.tile_matmul.quantize(x, d_model, SpanBlocks(*w.up), 0, 1, q_.data(), q_blocks_.data());
  ListPieces(active, w.group / kTileOutputs, tiles_);
  Multiply(*w.up, tiles_, UpTo(d_model / kTileBlock), up, false);

  for (const int32_t group : active) {
    float* values = up + int64_t{group} * w.group;
    kernels_.row_ops->multiply(gate + int64_t{group} * w.group, values, w.group, values);
  }
  ListPieces(active, w.group / kTileBlock, blocks_);
  QuantizeListed(up, SpanBlocks(*w.down));
  Multiply(*w.down, UpTo((d_model + kTileOutputs - 1) / kTileOutputs), blocks_, y, true);
}

SparsityTuning SparseFeedForward::Tune(Ops& all, std::span<const FeedForwardWeights> layers) {
  SparsityTuning tuning;
  if (layers.empty() || !Supports(layers[0])) return tuning;
  constexpr double kSecondsPerTurn = 1e-3;
  constexpr int kTurns = 5;
  constexpr float kWins = 1.02f;  // less is noise
  const FeedForwardWeights& first = layers[0];
  const int64_t d_model = first.up->n_in();
  const int64_t d_ff = first.up->n_out();
  const int n_groups = static_cast<int>(d_ff / first.group);
  const std::vector<float> x(d_model, 1.0f), gate(d_ff, 1.0f);
  std::vector<float> up(d_ff), y(d_model);

  size_t next = 0;  // every call takes the next layer, so that caches help no more than they do in a forward pass
  const auto layer = [&]() -> const FeedForwardWeights& { return layers[next++ % layers.size()]; };
  const auto with_all = [&] {
    const FeedForwardWeights& w = layer();
    const MatMulTarget up_target{.w = w.up, .y = up.data()};
    all.MatMul({&up_target, 1}, {x.data()}, 1);
    kernels_.row_ops->multiply(gate.data(), up.data(), d_ff, up.data());
    const MatMulTarget down_target{.w = w.down, .y = y.data()};
    all.MatMul({&down_target, 1}, {up.data()}, 1);
  };
  for (size_t i = 0; i < layers.size(); ++i) with_all();  // pages in the weights
  const int calls = std::max(1, static_cast<int>(kSecondsPerTurn / std::max(SecondsOf(with_all), 1e-7)));
  const auto repeat = [&](const auto& body) {
    return SecondsOf([&] {
      for (int i = 0; i < calls; ++i) body();
    });
  };
  bool won_so_far = true;
  for (const float share : {0.125f, 0.25f, 0.375f, 0.5f, 0.625f, 0.75f, 0.875f}) {
    const std::vector<int32_t> active = SomeGroups(n_groups, static_cast<int>(share * static_cast<float>(n_groups)));
    if (active.empty()) continue;
    std::vector<double> speedups;
    for (int turn = 0; turn < kTurns; ++turn) {
      const double seconds = repeat(with_all);
      speedups.push_back(seconds / repeat([&] { Run(layer(), x.data(), gate.data(), active, up.data(), y.data()); }));
    }
    const auto speedup = static_cast<float>(Median(std::move(speedups)));
    tuning.points.push_back({static_cast<float>(active.size()) / static_cast<float>(n_groups), speedup});
    won_so_far = won_so_far && speedup >= kWins;
    if (won_so_far) tuning.sparse_share = tuning.points.back().active;
  }
  return tuning;
}

}  // namespace updraft::kernels
