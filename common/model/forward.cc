#include "common/model/forward.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <new>

namespace updraft {
namespace {

bool GrowTo(kernels::Ops& ops, size_t n_floats, kernels::Buffer& buffer) {
  return kernels::GrowTo(ops, n_floats * sizeof(float), buffer);
}

// Never shrinks, so that a large prompt allocates once and decoding after it does not. False: there is no memory.
bool Prepare(const Model& model, const Batch& batch, bool some_wanted, int block_tokens, Scratch& s) {
  const ModelConfig& c = model.config();
  kernels::Ops& ops = model.ops();
  const size_t n_tok = batch.n_tok();
  if (!GrowTo(ops, n_tok * c.n_head * c.head_dim, s.q) || !GrowTo(ops, n_tok * c.n_kv_head * c.head_dim, s.k) ||
      !GrowTo(ops, n_tok * c.n_kv_head * c.head_dim, s.v) || !GrowTo(ops, n_tok * c.n_head * c.head_dim, s.attn) ||
      !GrowTo(ops, n_tok * c.d_ff, s.gate) || !GrowTo(ops, n_tok * c.d_ff, s.up)) {
    return false;
  }
  const EmbeddingLowRank* const embedding = model.embedding_low_rank();
  if (embedding != nullptr && !GrowTo(ops, n_tok * embedding->a->n_in(), s.embedding)) return false;
  s.rows.resize(n_tok);
  for (size_t t = 0; t < n_tok; ++t) {
    s.rows[t] = {.block_table = batch.block_tables[t], .position = batch.positions[t]};
  }
  ops.AnnounceRows(0, batch.positions, s.rows, block_tokens);
  if (!some_wanted) return true;
  s.wanted_positions.clear();
  s.wanted_rows.clear();
  for (const int32_t row : *batch.wanted) {
    s.wanted_positions.push_back(batch.positions[row]);
    s.wanted_rows.push_back(s.rows[row]);
  }
  ops.AnnounceRows(1, s.wanted_positions, s.wanted_rows, block_tokens);
  return batch.wanted->empty() || GrowTo(ops, batch.wanted->size() * c.d_model, s.wanted_x);
}

// x: [n_tok, d_model], the residual stream, updated in place; with `wanted_only` of the wanted rows alone.
void DecoderLayer(const Model& model, int layer, const Batch& batch, bool wanted_only, KvStore& kv_store, float* x,
                  Scratch& s) {
  const ModelConfig& c = model.config();
  const LayerWeights& w = model.layer(layer);
  const kernels::KvLayer kv = kv_store.layer(layer);
  const kernels::KvShape kv_shape = kv_store.shape();
  kernels::Ops& ops = model.ops();
  int n_tok = batch.n_tok();
  std::span<const int32_t> positions = batch.positions;
  std::span<const kernels::AttentionRow> rows = s.rows;

  // Attention: x += Wo attend(rope(norm(x) Wq), rope(norm(x) Wk), norm(x) Wv).
  const kernels::MatMulTarget q{.w = w.wq.get(), .y = s.q.floats(), .bias = w.bq.floats(), .low_rank = w.lq.get()};
  const kernels::MatMulTarget k{.w = w.wk.get(), .y = s.k.floats(), .bias = w.bk.floats(), .low_rank = w.lk.get()};
  const kernels::MatMulTarget v{.w = w.wv.get(), .y = s.v.floats(), .bias = w.bv.floats(), .low_rank = w.lv.get()};
  const auto normalized = [&c](const float* rows_of_x, const kernels::Buffer& gain) {
    return kernels::MatMulInput{.x = rows_of_x, .gain = gain.floats(), .eps = c.rms_eps};
  };
  if (wanted_only) {
    ops.MatMul(std::array{k, v}, normalized(x, w.attn_norm), n_tok);
  } else {
    ops.MatMul(std::array{q, k, v}, normalized(x, w.attn_norm), n_tok);
  }
  if (c.qk_norm) {
    ops.RmsNorm(s.k.floats(), w.k_norm.floats(), n_tok * c.n_kv_head, c.head_dim, c.rms_eps, s.k.floats());
  }
  ops.Rope(s.k.floats(), positions, c.n_kv_head, c.head_dim, model.rope());
  ops.StoreKv(s.k.floats(), s.v.floats(), rows, kv, kv_shape);
  float* const whole_x = x;
  if (wanted_only) {
    if (batch.wanted->empty()) return;
    ops.GatherRows(x, *batch.wanted, c.d_model, s.wanted_x.floats());
    n_tok = static_cast<int>(batch.wanted->size());
    x = s.wanted_x.floats();
    positions = s.wanted_positions;
    rows = s.wanted_rows;
    ops.MatMul({&q, 1}, normalized(x, w.attn_norm), n_tok);
  }
  if (c.qk_norm) {
    ops.RmsNorm(s.q.floats(), w.q_norm.floats(), n_tok * c.n_head, c.head_dim, c.rms_eps, s.q.floats());
  }
  ops.Rope(s.q.floats(), positions, c.n_head, c.head_dim, model.rope());
  ops.Attention({.q = s.q.floats(),
                 .out = s.attn.floats(),
                 .rows = rows,
                 .kv = kv,
                 .shape = kv_shape,
                 .n_head = c.n_head,
                 .scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim)),
                 .window = c.sliding_window});
  const kernels::MatMulTarget o{.w = w.wo.get(), .y = x, .accumulate = true, .low_rank = w.lo.get()};
  ops.MatMul({&o, 1}, {s.attn.floats()}, n_tok);

  // Feed-forward: x += Wdown (silu(norm(x) Wgate) * norm(x) Wup).
  ops.FeedForward(model.feed_forward(layer), {.x = normalized(x, w.ffn_norm),
                                              .n_tok = n_tok,
                                              .y = x,
                                              .gate = s.gate.floats(),
                                              .up = s.up.floats(),
                                              .sparse_share = model.sparsity().sparse_share});
  if (wanted_only) ops.ScatterRows(x, *batch.wanted, c.d_model, whole_x);
}

// hidden: [n_tok, d_model]
void Embed(const Model& model, const Batch& batch, float* hidden, Scratch& s) {
  kernels::Ops& ops = model.ops();
  ops.EmbedRows(model.embedding(), batch.tokens, hidden);
  const EmbeddingLowRank* const low_rank = model.embedding_low_rank();
  if (low_rank == nullptr) return;
  ops.EmbedRows(*low_rank->a, batch.tokens, s.embedding.floats());
  const kernels::MatMulTarget target{.w = low_rank->b.get(), .y = hidden, .accumulate = true};
  ops.MatMul({&target, 1}, {s.embedding.floats()}, batch.n_tok());
}

}  // namespace

void Forward(const Model& model, const Batch& batch, LayerRange layers, std::span<float> hidden, KvStore& kv,
             Scratch& scratch) {
  const bool some_wanted = batch.wanted && static_cast<int>(batch.wanted->size()) < batch.n_tok();
  try {
    if (!Prepare(model, batch, some_wanted, kv.block_tokens(), scratch)) return;
  } catch (const std::bad_alloc&) {  // of the lists on the host
    return model.ops().Fail(kernels::Fault::kOutOfMemory);
  }
  if (layers.from == 0) Embed(model, batch, hidden.data(), scratch);
  for (int i = layers.from; i < layers.to; ++i) {
    DecoderLayer(model, i, batch, some_wanted && i == layers.to - 1, kv, hidden.data(), scratch);
  }
}

void ComputeLogits(const Model& model, int exit, std::span<const float> hidden_rows, int n_rows,
                   std::span<float> logits) {
  const kernels::Buffer& gain = exit < 0 ? model.output_norm() : model.exit_norm(exit);
  const kernels::MatMulTarget head{.w = &model.output(), .y = logits.data(), .low_rank = model.output_low_rank()};
  model.ops().MatMul({&head, 1}, {.x = hidden_rows.data(), .gain = gain.floats(), .eps = model.config().rms_eps},
                     n_rows);
}

}  // namespace updraft
