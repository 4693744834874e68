#include "common/model/forward.h"

#include <array>
#include <cmath>

namespace updraft {
namespace {

// Never shrinks, so that a large prompt allocates once and decoding after it does not.
void GrowTo(std::vector<float>& buffer, size_t n) {
  if (buffer.size() < n) buffer.resize(n);
}

void Prepare(const ModelConfig& c, const Batch& batch, Scratch& s) {
  const size_t n_tok = batch.n_tok();
  GrowTo(s.norm, n_tok * c.d_model);
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

// x: [n_tok, d_model], the residual stream, updated in place.
void DecoderLayer(const Model& model, int layer, std::span<const int32_t> positions, kernels::KvLayer kv,
                  const kernels::KvShape& kv_shape, float* x, Scratch& s) {
  const ModelConfig& c = model.config();
  const LayerWeights& w = model.layer(layer);
  kernels::Ops& ops = model.ops();
  const int n_tok = static_cast<int>(positions.size());

  // Attention: x += Wo attend(rope(norm(x) Wq), rope(norm(x) Wk), norm(x) Wv).
  ops.RmsNorm(x, w.attn_norm.data(), n_tok, c.d_model, c.rms_eps, s.norm.data());
  ops.MatMul(std::array<kernels::MatMulTarget, 3>{{{.w = w.wq.get(), .y = s.q.data(), .bias = OrNull(w.bq)},
                                                   {.w = w.wk.get(), .y = s.k.data(), .bias = OrNull(w.bk)},
                                                   {.w = w.wv.get(), .y = s.v.data(), .bias = OrNull(w.bv)}}},
             s.norm.data(), n_tok);
  if (c.qk_norm) {
    ops.RmsNorm(s.q.data(), w.q_norm.data(), n_tok * c.n_head, c.head_dim, c.rms_eps, s.q.data());
    ops.RmsNorm(s.k.data(), w.k_norm.data(), n_tok * c.n_kv_head, c.head_dim, c.rms_eps, s.k.data());
  }
  ops.Rope(s.q.data(), positions, c.n_head, c.head_dim, model.rope());
  ops.Rope(s.k.data(), positions, c.n_kv_head, c.head_dim, model.rope());
  ops.StoreKv(s.k.data(), s.v.data(), s.rows, kv, kv_shape);
  ops.Attention({.q = s.q.data(),
                 .out = s.attn.data(),
                 .rows = s.rows,
                 .kv = kv,
                 .shape = kv_shape,
                 .n_head = c.n_head,
                 .scale = 1.0f / std::sqrt(static_cast<float>(c.head_dim)),
                 .window = c.sliding_window});
  ops.MatMul(std::array<kernels::MatMulTarget, 1>{{{.w = w.wo.get(), .y = x, .accumulate = true}}}, s.attn.data(),
             n_tok);

  // Feed-forward: x += Wdown (silu(norm(x) Wgate) * norm(x) Wup).
  ops.RmsNorm(x, w.ffn_norm.data(), n_tok, c.d_model, c.rms_eps, s.norm.data());
  ops.FeedForward(model.feed_forward(layer), {.x = s.norm.data(),
                                              .n_tok = n_tok,
                                              .y = x,
                                              .gate = s.gate.data(),
                                              .up = s.up.data(),
                                              .sparse_share = model.sparsity().sparse_share});
}

}  // namespace

void Forward(const Model& model, const Batch& batch, LayerRange layers, std::span<float> hidden, KvPool& kv,
             Scratch& scratch) {
  Prepare(model.config(), batch, scratch);
  if (layers.from == 0) {
    const gguf::TensorInfo& table = model.token_embedding();
    model.ops().EmbedRows(table.type, table.data.data(), model.config().d_model, batch.tokens, hidden.data());
  }
  for (int i = layers.from; i < layers.to; ++i) {
    DecoderLayer(model, i, batch.positions, kv.layer(i), kv.shape(), hidden.data(), scratch);
  }
}

void ComputeLogits(const Model& model, int exit, std::span<const float> hidden_rows, int n_rows,
                   std::span<float> logits, Scratch& scratch) {
  const ModelConfig& c = model.config();
  const std::vector<float>& gain = exit < 0 ? model.output_norm() : model.exit_norm(exit);
  GrowTo(scratch.norm, static_cast<size_t>(n_rows) * c.d_model);
  model.ops().RmsNorm(hidden_rows.data(), gain.data(), n_rows, c.d_model, c.rms_eps, scratch.norm.data());
  model.ops().MatMul(std::array<kernels::MatMulTarget, 1>{{{.w = &model.output(), .y = logits.data()}}},
                     scratch.norm.data(), n_rows);
}

}  // namespace updraft
