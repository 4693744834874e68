#include "deploy/synth/shapes.h"

#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"

namespace updraft {
namespace {

// Figures of the published config.json files.
const std::vector<SynthShape>& Shapes() {
  static const auto* const shapes = new std::vector<SynthShape>{
      {.name = "tinyllama-1.1b",
       .n_layer = 22,
       .d_model = 2048,
       .n_head = 32,
       .n_kv_head = 4,
       .head_dim = 64,
       .d_ff = 5632,
       .n_vocab = 32000,
       .context_length = 2048},
      {.name = "smollm-135m",
       .n_layer = 30,
       .d_model = 576,
       .n_head = 9,
       .n_kv_head = 3,
       .head_dim = 64,
       .d_ff = 1536,
       .n_vocab = 49152,
       .context_length = 2048,
       .tied_output = true},
      {.name = "llama-3.2-1b",
       .n_layer = 16,
       .d_model = 2048,
       .n_head = 32,
       .n_kv_head = 8,
       .head_dim = 64,
       .d_ff = 8192,
       .n_vocab = 128256,
       .context_length = 131072,
       .rope_freq_base = 500000.0f,
       .tied_output = true,
       .rope_freqs = true},
      {.name = "mistral-7b",
       .n_layer = 32,
       .d_model = 4096,
       .n_head = 32,
       .n_kv_head = 8,
       .head_dim = 128,
       .d_ff = 14336,
       .n_vocab = 32768,
       .context_length = 32768,
       .rope_freq_base = 1e6f},
      {.name = "qwen2.5-0.5b",
       .architecture = Architecture::kQwen2,
       .n_layer = 24,
       .d_model = 896,
       .n_head = 14,
       .n_kv_head = 2,
       .head_dim = 64,
       .d_ff = 4864,
       .n_vocab = 151936,
       .context_length = 32768,
       .rms_eps = 1e-6f,
       .rope_freq_base = 1e6f,
       .tied_output = true},
      {.name = "qwen2.5-1.5b",
       .architecture = Architecture::kQwen2,
       .n_layer = 28,
       .d_model = 1536,
       .n_head = 12,
       .n_kv_head = 2,
       .head_dim = 128,
       .d_ff = 8960,
       .n_vocab = 151936,
       .context_length = 32768,
       .rms_eps = 1e-6f,
       .rope_freq_base = 1e6f,
       .tied_output = true},
      {.name = "qwen3-0.6b",
       .architecture = Architecture::kQwen3,
       .n_layer = 28,
       .d_model = 1024,
       .n_head = 16,
       .n_kv_head = 8,
       .head_dim = 128,
       .d_ff = 3072,
       .n_vocab = 151936,
       .context_length = 40960,
       .rms_eps = 1e-6f,
       .rope_freq_base = 1e6f,
       .tied_output = true},
      {.name = "tiny-llama"},
      {.name = "tiny-qwen2", .architecture = Architecture::kQwen2, .rms_eps = 1e-6f, .tied_output = true},
      {.name = "tiny-qwen3", .architecture = Architecture::kQwen3, .head_dim = 32, .rms_eps = 1e-6f},
      {.name = "tiny-exits",
       .n_layer = 6,
       .d_model = 64,
       .n_head = 4,
       .n_kv_head = 2,
       .head_dim = 16,
       .d_ff = 128,
       .n_vocab = 320,
       .context_length = 256,
       .exit_layers = {2, 4}},
  };
  return *shapes;
}

}  // namespace

std::vector<std::string> ShapeNames() {
  std::vector<std::string> names;
  for (const SynthShape& shape : Shapes()) names.push_back(shape.name);
  return names;
}

absl::StatusOr<SynthShape> FindShape(std::string_view name) {
  for (const SynthShape& shape : Shapes()) {
    if (shape.name == name) return shape;
  }
  return absl::NotFoundError(absl::StrCat("shape '", std::string(name), "' is not known; expected one of ",
                                          absl::StrJoin(ShapeNames(), ", ")));
}

}  // namespace updraft
