// The forward pass again, in plain double-precision loops over dequantized weights: what common/model/forward.cc is
// measured against. Shares no arithmetic with it, and is slow on purpose.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "common/model/model.h"

namespace updraft {

struct ReferenceOptions {
  // Keys and values are stored as half precision by the product; rounding them here too leaves only the errors of
  // arithmetic.
  bool half_precision_kv = false;
};

// Borrows the weights of a loaded model, which must outlive it. Dequantizes a copy: 4 bytes per weight.
class ReferenceModel {
 public:
  explicit ReferenceModel(const Model& model, const ReferenceOptions& options = {});

  // The residual stream after `n_layers` layers of every position of one sequence: [n_tok, d_model].
  std::vector<double> Hidden(std::span<const int32_t> tokens, int n_layers) const;
  // Exit head (index), or the final head when exit < 0, of rows [n_rows, d_model]: [n_rows, n_vocab].
  std::vector<double> Logits(std::span<const double> hidden_rows, int exit = -1) const;

  const ModelConfig& config() const { return model_.config(); }

 private:
  // A tensor's values, which every supported type can state exactly in float, with what an adapter adds to them. Of
  // output.weight where it is tied: the embedding's.
  std::vector<float> Weights(const std::string& name) const;
  void Merge(const std::string& name, int64_t n_in, std::vector<float>& w) const;

  std::vector<float> WeightsOrNone(const std::string& name) const;

  struct Layer {
    std::vector<float> attn_norm, ffn_norm;
    std::vector<float> bq, bk, bv, q_norm, k_norm;  // empty: none
    std::vector<float> wq, wk, wv, wo, w_gate, w_up, w_down;
  };
  void RunLayer(int i, std::vector<double>& x, int64_t n_tok) const;
  void Rotate(std::vector<double>& x, int n_head, int64_t n_tok) const;
  // softmax(q k^T / sqrt(head_dim)) v over earlier positions; q: [n_tok, n_head, head_dim], k and v: [n_tok, n_kv_head,
  // head_dim].
  std::vector<double> Attend(const std::vector<double>& q, const std::vector<double>& k, const std::vector<double>& v,
                             int64_t n_tok) const;

  const Model& model_;
  const ReferenceOptions options_;
  std::vector<float> embedding_;  // [n_vocab, d_model]
  std::vector<float> output_;     // [n_vocab, d_model]; empty: tied
  std::vector<Layer> layers_;
};

}  // namespace updraft
