// What a model file says about its architecture, as a table of facts: the forward pass has no branch per family.
// Shapes use this glossary everywhere: n_tok rows of a batch, d_model residual width, n_head query heads, n_kv_head
// key/value heads, head_dim width of one head, d_ff feed-forward width, n_vocab tokens.
#pragma once

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "common/gguf/reader.h"

namespace updraft {

enum class Architecture { kLlama, kQwen2, kQwen3 };  // kLlama: also Mistral, TinyLlama, SmolLM

// "llama", "qwen2", "qwen3": general.architecture of the file, and the prefix of its keys.
const char* ArchitectureName(Architecture architecture);

struct ModelConfig {
  Architecture architecture = Architecture::kLlama;
  std::string name;  // general.name, or the architecture's where the file has none
  int n_layer = 0;
  int d_model = 0;
  int n_head = 0;
  int n_kv_head = 0;
  int head_dim = 0;
  int d_ff = 0;
  int n_vocab = 0;
  int context_length = 0;  // tokens
  float rms_eps = 1e-5f;
  int sliding_window = 0;  // tokens; 0: none

  // Rotary embedding, see kernels::RopeParams.
  int n_rot = 0;
  bool rope_interleaved = true;
  float rope_freq_base = 10000.0f;
  float rope_freq_scale = 1.0f;
  float rope_ext_factor = 0.0f;
  float rope_attn_factor = 1.0f;  // beside YaRN's own 0.1 ln(factor) + 1, which the operation adds
  float rope_beta_fast = 32.0f;
  float rope_beta_slow = 1.0f;
  int rope_orig_context = 0;

  // Facts by table rather than branches.
  bool qkv_bias = false;     // Qwen2; Llama-style files that bring the tensors
  bool qk_norm = false;      // Qwen3: RMSNorm over each head of q and k before rotation
  bool tied_output = false;  // no output.weight: the embedding is the head

  // Early exits (updraft.exit.*): layer counts after which an exit reads the residual stream, ascending, each in [1,
  // n_layer).
  std::vector<int> exit_layers;
  std::vector<float> exit_thresholds;  // top probability at which a token may leave, one per exit; above 1: never

  // Contextual sparsity of the feed-forward layers (updraft.ffn_sparsity.*), see kernels::FeedForwardWeights.
  int ffn_group = 0;                  // neurons that are skipped together; 0: none are skipped
  std::vector<float> ffn_thresholds;  // one per layer; empty when ffn_group is 0

  // Reads and checks every field; impossible values are InvalidArgument with key, expected and found, and what this
  // build lacks (another architecture, mixture of experts, another position scaling) is Unimplemented by name.
  static absl::StatusOr<ModelConfig> FromGguf(const gguf::File& file);

  // `updraft.exit.thresholds` of a file, one for each of exit_layers; InvalidArgument as above.
  absl::Status ReadExitThresholds(const gguf::File& file);
};

}  // namespace updraft
