// THE forward pass: one function over a ragged batch of tokens, for edge and cloud alike.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <vector>

#include "common/model/kv_store.h"
#include "common/model/model.h"
#include "kernels/memory.h"

namespace updraft {

// A ragged batch: row t is token tokens[t] of some sequence at positions[t], whose block table is block_tables[t].
// Rows of one sequence come in ascending position; every position below a row's own is either in the KV store already
// (for the layers that run) or in the same batch. The spans must stay valid during the call.
struct Batch {
  std::span<const int32_t> tokens;               // [n_tok], each in [0, n_vocab)
  std::span<const int32_t> positions;            // [n_tok], each in [0, context_length)
  std::span<const int32_t* const> block_tables;  // [n_tok]; room for positions[t] is reserved
  // Rows whose state after the layers is wanted, ascending; unset: all. Of the others the last layer computes keys and
  // values alone, which is all that a prompt's tokens but the last are needed for.
  std::optional<std::span<const int32_t>> wanted = std::nullopt;

  int n_tok() const { return static_cast<int>(tokens.size()); }
};

// Scratch of one forward pass, grown to the largest batch seen and then reused. One per engine thread and model.
struct Scratch {
  // In the memory of the model's Ops.
  kernels::Buffer q;                        // [n_tok, n_head * head_dim]
  kernels::Buffer k, v;                     // [n_tok, n_kv_head * head_dim]
  kernels::Buffer attn;                     // [n_tok, n_head * head_dim]
  kernels::Buffer gate;                     // [n_tok, d_ff]
  kernels::Buffer up;                       // [n_tok, d_ff]
  kernels::Buffer wanted_x;                 // [n_wanted, d_model], in the last layer
  kernels::Buffer embedding;                // [n_tok, rank], where an adapter works beside the embedding
  std::vector<kernels::AttentionRow> rows;  // [n_tok]
  // Of the wanted rows alone, in the last layer.
  std::vector<int32_t> wanted_positions;
  std::vector<kernels::AttentionRow> wanted_rows;
};

struct LayerRange {
  int from = 0;  // 0: embeds the tokens first; otherwise `hidden` holds the residual stream after `from` layers
  int to = 0;    // exclusive, <= n_layer
};

// hidden: [n_tok, d_model], the residual stream, written (from == 0) or updated in place; what it holds afterwards is
// the state at boundary `to`, which the caller may keep and continue later with layers [to, ...): the result is the
// same bits. (Of rows that are not wanted it holds nothing of use.) Writes this step's K, V of layers [from, to) at
// each row's position. Shapes were checked at load and admission; what can still go wrong, memory for the scratch or a
// device, is a fault of model.ops() (step_status.h), after which this and the next passes do nothing.
//
// `hidden` and the rows and logits below lie in the memory of model.ops(), e.g. in a kernels::Buffer: spans say where,
// and only Ops read or write there. REQUIRES: batch.n_tok() >= 1; a shared block is never written (see SequenceKv).
void Forward(const Model& model, const Batch& batch, LayerRange layers, std::span<float> hidden, KvStore& kv,
             Scratch& scratch);

// Head of exit `exit` (index into config.exit_layers), or the final head when exit < 0: norm and output projection of
// rows [n_rows, d_model] to logits [n_rows, n_vocab].
void ComputeLogits(const Model& model, int exit, std::span<const float> hidden_rows, int n_rows,
                   std::span<float> logits);

}  // namespace updraft
