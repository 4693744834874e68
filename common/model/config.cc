#include "common/model/config.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <string_view>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/model/adapter.h"
#include "kernels/ops.h"

namespace updraft {
namespace {

struct Family {
  const char* name;
  Architecture architecture;
  bool rope_interleaved;
  bool qkv_bias;
  bool qk_norm;
};

constexpr Family kFamilies[] = {
    {"llama", Architecture::kLlama, true, false, false},
    {"qwen2", Architecture::kQwen2, false, true, false},
    {"qwen3", Architecture::kQwen3, false, false, true},
};

// Far above every published model, and low enough that the products the code forms (d_model * d_ff, n_tok * n_vocab,
// n_head * head_dim) stay in range of their types.
constexpr int64_t kMaxLayers = 1024;
constexpr int64_t kMaxHeads = 1024;
constexpr int64_t kMaxHeadDim = 1024;
constexpr int64_t kMaxWidth = int64_t{1} << 20;
constexpr int64_t kMaxVocab = int64_t{1} << 24;
constexpr int64_t kMaxContext = int64_t{1} << 28;

// Reads `<architecture>.<name>` keys and remembers the first error, so that the list of fields reads as a list.
class KeyReader {
 public:
  KeyReader(const gguf::File& file, std::string_view prefix) : file_(file), prefix_(prefix) {}

  const absl::Status& status() const { return status_; }

  bool Has(std::string_view name) const { return file_.Has(Key(name)); }

  int Int(std::string_view name, int64_t min, int64_t max) {
    const absl::StatusOr<uint64_t> found = file_.GetU64(Key(name));
    if (!found.ok()) return Fail<int>(found.status());
    if (*found > static_cast<uint64_t>(max) || static_cast<int64_t>(*found) < min) {
      return Fail<int>(absl::InvalidArgumentError(absl::StrFormat("model '%s': key '%s': expected %d to %d, found %d",
                                                                  file_.path(), Key(name), min, max, *found)));
    }
    return static_cast<int>(*found);
  }
  int IntOr(std::string_view name, int fallback, int64_t min, int64_t max) {
    return Has(name) ? Int(name, min, max) : fallback;
  }

  float Float(std::string_view name, float min, float max) {
    const absl::StatusOr<float> found = file_.GetF32(Key(name));
    if (!found.ok()) return Fail<float>(found.status());
    if (!(*found >= min && *found <= max)) {  // false for NaN
      return Fail<float>(absl::InvalidArgumentError(absl::StrFormat("model '%s': key '%s': expected %g to %g, found %g",
                                                                    file_.path(), Key(name), min, max, *found)));
    }
    return *found;
  }
  float FloatOr(std::string_view name, float fallback, float min, float max) {
    return Has(name) ? Float(name, min, max) : fallback;
  }

  std::string StringOr(std::string_view name, std::string_view fallback) {
    const absl::StatusOr<std::string_view> found = file_.GetStringOr(Key(name), fallback);
    if (!found.ok()) return Fail<std::string>(found.status());
    return std::string(*found);
  }

  void Refuse(absl::Status status) { status_.Update(std::move(status)); }

 private:
  std::string Key(std::string_view name) const { return prefix_ + "." + std::string(name); }

  template <typename T>
  T Fail(absl::Status status) {
    status_.Update(std::move(status));
    return T{};
  }

  const gguf::File& file_;
  const std::string prefix_;
  absl::Status status_;
};

// The tokenizer's list is the vocabulary; a file without one may state the size alone.
int VocabularySize(const gguf::File& file, KeyReader& keys) {
  const gguf::Value* tokens = file.Find("tokenizer.ggml.tokens");
  if (tokens == nullptr) return keys.Int("vocab_size", 1, kMaxVocab);
  const auto* array = std::get_if<gguf::ArrayView>(tokens);
  const uint64_t size = array == nullptr ? 0 : array->size;
  if (size < 1 || size > kMaxVocab) {
    keys.Refuse(absl::InvalidArgumentError(
        absl::StrFormat("model '%s': key 'tokenizer.ggml.tokens': expected an array of 1 to %d strings, found %s",
                        file.path(), kMaxVocab, array == nullptr ? "no array" : absl::StrCat(size))));
    return 0;
  }
  return static_cast<int>(size);
}

void ReadAttention(const gguf::File& file, KeyReader& keys, ModelConfig& config) {
  config.n_head = keys.Int("attention.head_count", 1, kMaxHeads);
  config.n_kv_head = keys.IntOr("attention.head_count_kv", config.n_head, 1, kMaxHeads);
  if (!keys.status().ok()) return;
  if (config.n_head % config.n_kv_head != 0) {
    keys.Refuse(absl::InvalidArgumentError(absl::StrFormat(
        "model '%s': expected attention.head_count to be a multiple of attention.head_count_kv, found %d and %d",
        file.path(), config.n_head, config.n_kv_head)));
  }
  if (keys.Has("attention.key_length")) {
    config.head_dim = keys.Int("attention.key_length", 2, kMaxHeadDim);
  } else if (config.d_model % config.n_head == 0 && config.d_model / config.n_head <= kMaxHeadDim) {
    config.head_dim = config.d_model / config.n_head;
  } else {
    keys.Refuse(absl::InvalidArgumentError(absl::StrFormat(
        "model '%s': without attention.key_length, expected embedding_length to be attention.head_count times at most "
        "%d, found %d and %d",
        file.path(), kMaxHeadDim, config.d_model, config.n_head)));
    return;
  }
  const int value_length = keys.IntOr("attention.value_length", config.head_dim, 1, kMaxHeadDim);
  if (keys.status().ok() && value_length != config.head_dim) {
    keys.Refuse(absl::UnimplementedError(
        absl::StrFormat("model '%s': attention.value_length %d differs from attention.key_length %d, which this build "
                        "does not support",
                        file.path(), value_length, config.head_dim)));
  }
  config.sliding_window = keys.IntOr("attention.sliding_window", 0, 0, std::numeric_limits<int>::max());
}

void ReadRope(const gguf::File& file, KeyReader& keys, ModelConfig& config) {
  config.n_rot = keys.IntOr("rope.dimension_count", config.head_dim, 2, kMaxHeadDim);
  if (keys.status().ok() && (config.n_rot % 2 != 0 || config.n_rot > config.head_dim)) {
    keys.Refuse(absl::InvalidArgumentError(
        absl::StrFormat("model '%s': expected an even rope.dimension_count of at most the head width %d, found %d",
                        file.path(), config.head_dim, config.n_rot)));
  }
  config.rope_freq_base = keys.FloatOr("rope.freq_base", 10000.0f, 1.01f, 1e12f);
  config.rope_orig_context = keys.IntOr("rope.scaling.original_context_length", config.context_length, 1, kMaxContext);

  const std::string scaling = keys.StringOr("rope.scaling.type", "linear");
  if (scaling != "none" && scaling != "linear" && scaling != "yarn") {
    keys.Refuse(absl::UnimplementedError(absl::StrFormat(
        "model '%s': rope.scaling.type '%s' is not supported; expected none, linear or yarn", file.path(), scaling)));
    return;
  }
  if (scaling == "none") return;
  // Files state a factor of 0 where there is no scaling; rope.scale_linear is the key of older ones.
  const char* factor_key = keys.Has("rope.scaling.factor") ? "rope.scaling.factor" : "rope.scale_linear";
  const float factor = keys.FloatOr(factor_key, 0.0f, 0.0f, 1e6f);
  if (factor == 0.0f) return;
  config.rope_freq_scale = 1.0f / factor;
  config.rope_attn_factor = keys.FloatOr("rope.scaling.attn_factor", 1.0f, 1e-3f, 1e3f);
  if (scaling == "yarn") {
    if (factor < 1.0f) {
      keys.Refuse(absl::InvalidArgumentError(absl::StrFormat(
          "model '%s': key '%s': expected a YaRN factor of at least 1, found %g", file.path(), factor_key, factor)));
    }
    config.rope_ext_factor = keys.FloatOr("rope.scaling.yarn_ext_factor", 1.0f, 0.0f, 1.0f);
    config.rope_beta_fast = keys.FloatOr("rope.scaling.yarn_beta_fast", 32.0f, 1e-3f, 1e6f);
    config.rope_beta_slow = keys.FloatOr("rope.scaling.yarn_beta_slow", 1.0f, 1e-3f, 1e6f);
  }
}

void ReadExits(const gguf::File& file, KeyReader& keys, ModelConfig& config) {
  if (!file.Has("updraft.exit.layers")) return;
  const absl::StatusOr<std::vector<uint32_t>> layers = file.GetU32s("updraft.exit.layers");
  if (!layers.ok()) return keys.Refuse(layers.status());
  uint32_t previous = 0;
  for (const uint32_t layer : *layers) {
    if (layer <= previous || layer >= static_cast<uint32_t>(config.n_layer)) {
      return keys.Refuse(absl::InvalidArgumentError(absl::StrFormat(
          "model '%s': key 'updraft.exit.layers': expected ascending layer counts in [1, %d), found %d after %d",
          file.path(), config.n_layer, layer, previous)));
    }
    config.exit_layers.push_back(static_cast<int>(layer));
    previous = layer;
  }
  keys.Refuse(config.ReadExitThresholds(file));
}

void ReadSparsity(const gguf::File& file, KeyReader& keys, ModelConfig& config) {
  if (!file.Has("updraft.ffn_sparsity.group")) return;
  const absl::StatusOr<uint64_t> group = file.GetU64("updraft.ffn_sparsity.group");
  const absl::StatusOr<std::vector<float>> thresholds = file.GetF32s("updraft.ffn_sparsity.thresholds");
  if (!group.ok()) return keys.Refuse(group.status());
  if (!thresholds.ok()) return keys.Refuse(thresholds.status());
  if (*group == 0 || *group % kernels::kNeuronGroup != 0 || static_cast<uint64_t>(config.d_ff) % *group != 0) {
    return keys.Refuse(
        absl::InvalidArgumentError(absl::StrFormat("model '%s': key 'updraft.ffn_sparsity.group': expected a multiple "
                                                   "of %d that divides the feed-forward width %d, "
                                                   "found %d",
                                                   file.path(), kernels::kNeuronGroup, config.d_ff, *group)));
  }
  if (thresholds->size() != static_cast<size_t>(config.n_layer)) {
    return keys.Refuse(absl::InvalidArgumentError(absl::StrFormat(
        "model '%s': key 'updraft.ffn_sparsity.thresholds': expected one for each of %d layers, found %d", file.path(),
        config.n_layer, thresholds->size())));
  }
  for (const float threshold : *thresholds) {
    if (!(threshold >= 0.0f && std::isfinite(threshold))) {
      return keys.Refuse(absl::InvalidArgumentError(
          absl::StrFormat("model '%s': key 'updraft.ffn_sparsity.thresholds': expected numbers of at least 0, found %g",
                          file.path(), threshold)));
    }
  }
  config.ffn_group = static_cast<int>(*group);
  config.ffn_thresholds = *thresholds;
}

}  // namespace

const char* ArchitectureName(Architecture architecture) {
  for (const Family& family : kFamilies) {
    if (family.architecture == architecture) return family.name;
  }
  return "unknown";
}

absl::Status ModelConfig::ReadExitThresholds(const gguf::File& file) {
  absl::StatusOr<std::vector<float>> thresholds = file.GetF32s("updraft.exit.thresholds");
  if (!thresholds.ok()) return thresholds.status();
  if (thresholds->size() != exit_layers.size()) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "model '%s': expected one updraft.exit.thresholds entry for each of the %d updraft.exit.layers, found %d",
        file.path(), exit_layers.size(), thresholds->size()));
  }
  for (const float threshold : *thresholds) {
    if (!(threshold >= 0.0f && std::isfinite(threshold))) {
      return absl::InvalidArgumentError(absl::StrFormat(
          "model '%s': key 'updraft.exit.thresholds': expected probabilities, found %g", file.path(), threshold));
    }
  }
  exit_thresholds = *std::move(thresholds);
  return absl::OkStatus();
}

absl::StatusOr<ModelConfig> ModelConfig::FromGguf(const gguf::File& file) {
  if (IsAdapter(file)) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "model '%s': expected a whole model, found an adapter; give it as --adapter, and the model that "
        "it was trained on as --model",
        file.path()));
  }
  const absl::StatusOr<std::string_view> architecture = file.GetString("general.architecture");
  if (!architecture.ok()) return architecture.status();
  const Family* family = nullptr;
  for (const Family& candidate : kFamilies) {
    if (*architecture == candidate.name) family = &candidate;
  }
  if (family == nullptr) {
    return absl::UnimplementedError(
        absl::StrFormat("model '%s': architecture '%s' is not supported; expected llama, qwen2 or qwen3", file.path(),
                        std::string(architecture->substr(0, 64))));
  }

  KeyReader keys(file, family->name);
  ModelConfig config;
  config.architecture = family->architecture;
  config.rope_interleaved = family->rope_interleaved;
  config.qk_norm = family->qk_norm;
  config.qkv_bias = family->qkv_bias || file.FindTensor("blk.0.attn_q.bias") != nullptr;
  config.tied_output = file.FindTensor("output.weight") == nullptr;

  const absl::StatusOr<std::string_view> name = file.GetStringOr("general.name", family->name);
  if (!name.ok()) return name.status();
  config.name = std::string(name->substr(0, 256));  // appears in messages

  config.n_layer = keys.Int("block_count", 1, kMaxLayers);
  config.d_model = keys.Int("embedding_length", 1, kMaxWidth);
  config.d_ff = keys.Int("feed_forward_length", 1, kMaxWidth);
  config.context_length = keys.Int("context_length", 1, kMaxContext);
  config.rms_eps = keys.Float("attention.layer_norm_rms_epsilon", 0.0f, 1.0f);
  config.n_vocab = VocabularySize(file, keys);
  if (keys.IntOr("expert_count", 0, 0, kMaxWidth) > 0) {
    keys.Refuse(absl::UnimplementedError(
        absl::StrFormat("model '%s': mixtures of experts (%s.expert_count) are not supported; use a dense model",
                        file.path(), family->name)));
  }
  if (!keys.status().ok()) return keys.status();
  ReadAttention(file, keys, config);
  if (!keys.status().ok()) return keys.status();
  ReadRope(file, keys, config);
  ReadExits(file, keys, config);
  ReadSparsity(file, keys, config);
  if (!keys.status().ok()) return keys.status();
  return config;
}

}  // namespace updraft
