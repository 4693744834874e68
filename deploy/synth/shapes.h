// The shapes that synthetic models can have: those of published models, and tiny ones for tests.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "common/model/config.h"

namespace updraft {

// Dimensions and facts of one model, as its published configuration states them.
struct SynthShape {
  std::string name;
  Architecture architecture = Architecture::kLlama;
  int n_layer = 2;
  int d_model = 64;
  int n_head = 4;
  int n_kv_head = 2;
  int head_dim = 16;
  int d_ff = 128;
  int n_vocab = 320;
  int context_length = 256;
  float rms_eps = 1e-5f;
  float rope_freq_base = 10000.0f;
  bool tied_output = false;
  int sliding_window = 0;             // tokens; 0: none
  bool rope_freqs = false;            // Llama-3's frequency factors as a tensor
  std::string rope_scaling = {};      // "", "linear" or "yarn"
  float rope_scaling_factor = 0.0f;   // with rope_scaling
  std::vector<int> exit_layers = {};  // each with a threshold of 0.5
  // Contextual sparsity (updraft.ffn_sparsity.*, common/model/README.md): the gates of `ffn_group` consecutive neurons
  // point the same way, and the threshold leaves this share of the groups active for a token on average. 0: dense; else
  // in [0.01, 0.4], with d_ff a multiple of ffn_group and that one of 32.
  double ffn_active = 0.0;
  int ffn_group = 64;
};

// "tinyllama-1.1b", "qwen2.5-0.5b", ..., "tiny-llama": names that FindShape knows.
std::vector<std::string> ShapeNames();

// NotFound lists the names that exist.
absl::StatusOr<SynthShape> FindShape(std::string_view name);

}  // namespace updraft
