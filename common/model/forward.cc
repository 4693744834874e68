#include "common/model/forward.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>

namespace updraft {
namespace {

// Never shrinks, so that a large prompt allocates once and decoding after it does not.
void GrowTo(kernels::AlignedVector<float>& buffer, size_t n) {
  if (buffer.size() < n) buffer.resize(n);
}

void Prepare(const ModelConfig& c, const Batch& batch, Scratch& s) {
  const size_t n_tok = batch.n_tok();
  GrowTo(s.q, n_tok * c.n_head * c.head_dim);
  GrowTo(s.k, n_tok * c.n_kv_head * c.head_dim);
  GrowTo(s.v, n_tok * c.n_kv_head * c.head_dim);
  GrowTo(s.attn, n_tok * c.n_head * c.head_dim);
  GrowTo(s.gate, n_tok * c.d_ff);
  GrowTo(s.up, n_tok * c.d_ff);
  s.rows.resize(n_tok);
  for (size_t t = 0; t < n_tok; ++t) {
    s.rows[t] = {.block_table = batch.block_tables[t], .position = batch.positions[t]};
  }
}

const float* OrNull(const std::vector<float>& v) { return v.empty() ? nullptr : v.data(); }

// Takes the wanted rows of the residual stream x out of the batch, to s.wanted_x.
void PickWanted(const ModelConfig& c, const Batch& batch, const float* x, Scratch& s) {
  const std::span<const int32_t> wanted = *batch.wanted;
  GrowTo(s.wanted_x, wanted.size() * c.d_model);
  s.wanted_positions.clear();
  s.wanted_rows.clear();
  for (size_t i = 0; i < wanted.size(); ++i) {
    std::copy_n(x + static_cast<ptrdiff_t>(wanted[i]) * c.d_model, c.d_model,
                s.wanted_x.data() + static_cast<ptrdiff_t>(i) * c.d_model);
    s.wanted_positions.push_back(batch.positions[wanted[i]]);
    s.wanted_rows.push_back(s.rows[wanted[i]]);
  }
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
  const kernels::MatMulTarget q{.w = w.wq.get(), .y = s.q.data(), .bias = OrNull(w.bq)};
  const kernels::MatMulTarget k{.w = w.wk.get(), .y = s.k.data(), .bias = OrNull(w.bk)};
  const kernels::MatMulTarget v{.w = w.wv.get(), .y = s.v.data(), .bias = OrNull(w.bv)};
  const auto normalized = [&c](const float* rows_of_x, const std::vector<float>& gain) {
    return kernels::MatMulInput{.x = rows_of_x, .gain = gain.data(), .eps = c.rms_eps};
  };
  if (wanted_only) {
    ops.MatMul(std::array{k, v}, normalized(x, w.attn_norm), n_tok);
  } else {
    ops.MatMul(std::array{q, k, v}, normalized(x, w.attn_norm), n_tok);
  }
  if (c.qk_norm) {
    ops.RmsNorm(s.k.data(), w.k_norm.data(), n_tok * c.n_kv_head, c.head_dim, c.rms_eps, s.k.data());
  }
  ops.Rope(s.k.data(), positions, c.n_kv_head, c.head_dim, model.rope());
  ops.StoreKv(s.k.data(), s.v.data(), rows, kv, kv_shape);
  float* const whole_x = x;
  if (wanted_only) {
    if (batch.wanted->empty()) return;
    PickWanted(c, batch, x, s);
    n_tok = static_cast<int>(batch.wanted->size());
    x = s.wanted_x.data();
    positions = s.wanted_positions;
    rows = s.wanted_rows;
    ops.MatMul({&q, 1}, normalized(x, w.attn_norm), n_tok);
  }
  if (c.qk_norm) {
    ops.RmsNorm(s.q.data(), w.q_norm.data(), n_tok * c.n_head, c.head_dim, c.rms_eps, s.q.data());
  }
  ops.Rope(s.q.data(), positions, c.n_head, c.head_dim, model.rope());
  ops.Attention({.q = s.q.data(),
                 .out = s.attn.data(),
                 .rows = rows,
                 .kv = kv,
                 .shape = kv_shape,
                 .n_head = c.n_head,
                 .scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim)),
                 .window = c.sliding_window});
  const kernels::MatMulTarget o{.w = w.wo.get(), .y = x, .accumulate = true};
  ops.MatMul({&o, 1}, {s.attn.data()}, n_tok);

  // Feed-forward: x += Wdown (silu(norm(x) Wgate) * norm(x) Wup).
  ops.FeedForward(model.feed_forward(layer), {.x = normalized(x, w.ffn_norm),
                                              .n_tok = n_tok,
                                              .y = x,
                                              .gate = s.gate.data(),
                                              .up = s.up.data(),
                                              .sparse_share = model.sparsity().sparse_share});
  if (!wanted_only) return;
  for (int i = 0; i < n_tok; ++i) {
    std::copy_n(x + static_cast<ptrdiff_t>(i) * c.d_model, c.d_model,
                whole_x + static_cast<ptrdiff_t>((*batch.wanted)[i]) * c.d_model);
  }
}

}  // namespace

void Forward(const Model& model, const Batch& batch, LayerRange layers, std::span<float> hidden, KvStore& kv,
             Scratch& scratch) {
  Prepare(model.config(), batch, scratch);
  if (layers.from == 0) {
    const gguf::TensorInfo& table = model.token_embedding();
    model.ops().EmbedRows(table.type, table.data.data(), model.config().d_model, batch.tokens, hidden.data());
  }
  const bool some_wanted = batch.wanted && static_cast<int>(batch.wanted->size()) < batch.n_tok();
  for (int i = layers.from; i < layers.to; ++i) {
    DecoderLayer(model, i, batch, some_wanted && i == layers.to - 1, kv, hidden.data(), scratch);
  }
}

void ComputeLogits(const Model& model, int exit, std::span<const float> hidden_rows, int n_rows,
                   std::span<float> logits) {
  const std::vector<float>& gain = exit < 0 ? model.output_norm() : model.exit_norm(exit);
  const kernels::MatMulTarget head{.w = &model.output(), .y = logits.data()};
  model.ops().MatMul({&head, 1}, {.x = hidden_rows.data(), .gain = gain.data(), .eps = model.config().rms_eps}, n_rows);
}

}  // namespace updraft
