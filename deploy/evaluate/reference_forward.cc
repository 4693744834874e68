#include "deploy/evaluate/reference_forward.h"

#include <algorithm>
#include <cmath>
#include <numbers>

#include "absl/strings/str_format.h"
#include "kernels/formats/codec.h"
#include "kernels/formats/float16.h"

namespace updraft {
namespace {

// y [n_tok, n_out] = x [n_tok, n_in] W^T + bias.
std::vector<double> MatMul(std::span<const double> x, const std::vector<float>& w, const std::vector<float>& bias,
                           int64_t n_in) {
  const int64_t n_tok = static_cast<int64_t>(x.size()) / n_in;
  const int64_t n_out = static_cast<int64_t>(w.size()) / n_in;
  std::vector<double> y(n_tok * n_out);
  for (int64_t t = 0; t < n_tok; ++t) {
    for (int64_t o = 0; o < n_out; ++o) {
      double sum = bias.empty() ? 0.0 : bias[o];
      for (int64_t i = 0; i < n_in; ++i) sum += x[t * n_in + i] * w[o * n_in + i];
      y[t * n_out + o] = sum;
    }
  }
  return y;
}

std::vector<double> RmsNorm(std::span<const double> x, const std::vector<float>& gain, double eps) {
  const size_t width = gain.size();
  std::vector<double> y(x.size());
  for (size_t row = 0; row < x.size(); row += width) {
    double squares = 0;
    for (size_t i = 0; i < width; ++i) squares += x[row + i] * x[row + i];
    const double scale = 1.0 / std::sqrt(squares / static_cast<double>(width) + eps);
    for (size_t i = 0; i < width; ++i) y[row + i] = x[row + i] * scale * gain[i];
  }
  return y;
}

void AddTo(std::vector<double>& x, const std::vector<double>& y) {
  for (size_t i = 0; i < x.size(); ++i) x[i] += y[i];
}

void RoundToHalf(std::vector<double>& x) {
  for (double& value : x) value = kernels::F16ToF32(kernels::F32ToF16(static_cast<float>(value)));
}

}  // namespace

ReferenceModel::ReferenceModel(const Model& model, const ReferenceOptions& options)
    : model_(model), options_(options), embedding_(Weights("token_embd.weight")) {
  // An adapter of the embedding leaves the head alone, tied or not.
  if (!config().tied_output || model.adapter() != nullptr) output_ = Weights("output.weight");
  for (int i = 0; i < config().n_layer; ++i) {
    const std::string blk = absl::StrFormat("blk.%d.", i);
    layers_.push_back({.attn_norm = Weights(blk + "attn_norm.weight"),
                       .ffn_norm = Weights(blk + "ffn_norm.weight"),
                       .bq = WeightsOrNone(blk + "attn_q.bias"),
                       .bk = WeightsOrNone(blk + "attn_k.bias"),
                       .bv = WeightsOrNone(blk + "attn_v.bias"),
                       .q_norm = WeightsOrNone(blk + "attn_q_norm.weight"),
                       .k_norm = WeightsOrNone(blk + "attn_k_norm.weight"),
                       .wq = Weights(blk + "attn_q.weight"),
                       .wk = Weights(blk + "attn_k.weight"),
                       .wv = Weights(blk + "attn_v.weight"),
                       .wo = Weights(blk + "attn_output.weight"),
                       .w_gate = Weights(blk + "ffn_gate.weight"),
                       .w_up = Weights(blk + "ffn_up.weight"),
                       .w_down = Weights(blk + "ffn_down.weight")});
  }
}

std::vector<float> ReferenceModel::Weights(const std::string& name) const {
  const gguf::TensorInfo* found = model_.file().FindTensor(name);
  const gguf::TensorInfo& tensor = found != nullptr ? *found : *model_.file().FindTensor("token_embd.weight");
  std::vector<float> values(tensor.elements());
  kernels::DequantizeRow(tensor.type, tensor.data.data(), values.data(), tensor.elements());
  Merge(name, tensor.dims[0], values);
  return values;
}

void ReferenceModel::Merge(const std::string& name, int64_t n_in, std::vector<float>& w) const {
  if (model_.adapter() == nullptr) return;
  const auto pair = model_.adapter()->Pair(name);
  if (!pair.ok() || !pair->has_value()) return;  // refused when the model was loaded
  const auto& [rank, a, b] = **pair;
  const int64_t n_out = static_cast<int64_t>(w.size()) / n_in;
  const bool by_row = name == "token_embd.weight";  // a [n_out, rank] and b [n_in, rank], else a [rank, n_in]
  for (int64_t out = 0; out < n_out; ++out) {
    for (int64_t in = 0; in < n_in; ++in) {
      double sum = w[out * n_in + in];
      for (int64_t k = 0; k < rank; ++k) {
        sum += by_row ? double{a[out * rank + k]} * b[in * rank + k] : double{b[out * rank + k]} * a[k * n_in + in];
      }
      w[out * n_in + in] = static_cast<float>(sum);
    }
  }
}

std::vector<float> ReferenceModel::WeightsOrNone(const std::string& name) const {
  return model_.file().FindTensor(name) == nullptr ? std::vector<float>() : Weights(name);
}

std::vector<double> ReferenceModel::Hidden(std::span<const int32_t> tokens, int n_layers) const {
  const int64_t d_model = config().d_model;
  std::vector<double> x;
  for (const int32_t token : tokens) {
    const auto row = embedding_.begin() + token * d_model;
    x.insert(x.end(), row, row + d_model);
  }
  for (int i = 0; i < n_layers; ++i) RunLayer(i, x, static_cast<int64_t>(tokens.size()));
  return x;
}

std::vector<double> ReferenceModel::Logits(std::span<const double> hidden_rows, int exit) const {
  const std::vector<float> gain = Weights(
      exit < 0 ? "output_norm.weight" : absl::StrFormat("updraft.exit.%d.norm.weight", config().exit_layers[exit]));
  return MatMul(RmsNorm(hidden_rows, gain, config().rms_eps), output_.empty() ? embedding_ : output_, {},
                config().d_model);
}

void ReferenceModel::RunLayer(int i, std::vector<double>& x, int64_t n_tok) const {
  const ModelConfig& c = config();
  const Layer& w = layers_[i];

  const std::vector<double> attention_input = RmsNorm(x, w.attn_norm, c.rms_eps);
  std::vector<double> q = MatMul(attention_input, w.wq, w.bq, c.d_model);
  std::vector<double> k = MatMul(attention_input, w.wk, w.bk, c.d_model);
  std::vector<double> v = MatMul(attention_input, w.wv, w.bv, c.d_model);
  if (c.qk_norm) {
    q = RmsNorm(q, w.q_norm, c.rms_eps);
    k = RmsNorm(k, w.k_norm, c.rms_eps);
  }
  Rotate(q, c.n_head, n_tok);
  Rotate(k, c.n_kv_head, n_tok);
  if (options_.half_precision_kv) {
    RoundToHalf(k);
    RoundToHalf(v);
  }
  AddTo(x, MatMul(Attend(q, k, v, n_tok), w.wo, {}, int64_t{c.n_head} * c.head_dim));

  const std::vector<double> ffn_input = RmsNorm(x, w.ffn_norm, c.rms_eps);
  std::vector<double> gate = MatMul(ffn_input, w.w_gate, {}, c.d_model);
  const std::vector<double> up = MatMul(ffn_input, w.w_up, {}, c.d_model);
  for (double& g : gate) g /= 1.0 + std::exp(-g);
  if (c.ffn_group > 0) {
    for (auto group = gate.begin(); group != gate.end(); group += c.ffn_group) {
      const bool below =
          std::all_of(group, group + c.ffn_group, [&](double g) { return std::fabs(g) < double{c.ffn_thresholds[i]}; });
      if (below) std::fill_n(group, c.ffn_group, 0.0);
    }
  }
  for (size_t j = 0; j < gate.size(); ++j) gate[j] *= up[j];
  AddTo(x, MatMul(gate, w.w_down, {}, c.d_ff));
}

void ReferenceModel::Rotate(std::vector<double>& x, int n_head, int64_t n_tok) const {
  const ModelConfig& c = config();
  const int half = c.n_rot / 2;
  // YaRN (Peng et al. 2023, section 3.2): dimensions that turn more than beta_fast times within the original context
  // keep their frequency, those that turn less than beta_slow times are interpolated, with a linear ramp between.
  const auto dimension_that_turns = [&](double turns) {
    return c.n_rot * std::log(c.rope_orig_context / (turns * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(static_cast<double>(c.rope_freq_base)));
  };
  const bool yarn = c.rope_ext_factor != 0.0f;
  const double low = yarn ? std::max(0.0, std::floor(dimension_that_turns(c.rope_beta_fast))) : 0.0;
  const double high = yarn ? std::min(c.n_rot - 1.0, std::ceil(dimension_that_turns(c.rope_beta_slow))) : 0.0;
  const double magnitude =
      c.rope_attn_factor * (yarn ? 1.0 + 0.1 * std::log(1.0 / static_cast<double>(c.rope_freq_scale)) : 1.0);

  for (int64_t t = 0; t < n_tok; ++t) {
    for (int i = 0; i < half; ++i) {
      double frequency = std::pow(static_cast<double>(c.rope_freq_base), -2.0 * i / c.n_rot);
      if (!model_.rope_freq_factors().empty()) frequency /= model_.rope_freq_factors()[i];
      const double kept =
          yarn ? c.rope_ext_factor * (1.0 - std::clamp((i - low) / std::max(0.001, high - low), 0.0, 1.0)) : 0.0;
      const double angle = t * frequency * (c.rope_freq_scale * (1.0 - kept) + kept);
      const double cosine = std::cos(angle) * magnitude;
      const double sine = std::sin(angle) * magnitude;
      for (int head = 0; head < n_head; ++head) {
        double* row = x.data() + (t * n_head + head) * c.head_dim;
        double& a = row[c.rope_interleaved ? 2 * i : i];
        double& b = row[c.rope_interleaved ? 2 * i + 1 : i + half];
        const double rotated = a * cosine - b * sine;
        b = a * sine + b * cosine;
        a = rotated;
      }
    }
  }
}

std::vector<double> ReferenceModel::Attend(const std::vector<double>& q, const std::vector<double>& k,
                                           const std::vector<double>& v, int64_t n_tok) const {
  const ModelConfig& c = config();
  const int group = c.n_head / c.n_kv_head;
  std::vector<double> out(q.size(), 0.0);
  std::vector<double> weights(n_tok);
  for (int64_t t = 0; t < n_tok; ++t) {
    const int64_t first = c.sliding_window > 0 ? std::max<int64_t>(0, t - c.sliding_window + 1) : 0;
    for (int head = 0; head < c.n_head; ++head) {
      const double* query = q.data() + (t * c.n_head + head) * c.head_dim;
      const auto row_of = [&](const std::vector<double>& m, int64_t position) {
        return m.data() + (position * c.n_kv_head + head / group) * c.head_dim;
      };
      double peak = -INFINITY;
      for (int64_t p = first; p <= t; ++p) {
        double score = 0;
        for (int d = 0; d < c.head_dim; ++d) score += query[d] * row_of(k, p)[d];
        weights[p] = score / std::sqrt(static_cast<double>(c.head_dim));
        peak = std::max(peak, weights[p]);
      }
      double mass = 0;
      for (int64_t p = first; p <= t; ++p) mass += weights[p] = std::exp(weights[p] - peak);
      double* result = out.data() + (t * c.n_head + head) * c.head_dim;
      for (int64_t p = first; p <= t; ++p) {
        for (int d = 0; d < c.head_dim; ++d) result[d] += weights[p] / mass * row_of(v, p)[d];
      }
    }
  }
  return out;
}

}  // namespace updraft
