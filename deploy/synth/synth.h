// Model files with random weights of a real shape: for speed work and for tests, where what matters is that the file is
// as a published one would be and not what the model says. They load in other GGUF programs too.
#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "absl/status/status.h"
#include "deploy/synth/shapes.h"
#include "kernels/formats/dtype.h"

namespace updraft {

struct SynthOptions {
  uint64_t seed = 1;  // the same seed gives the same bytes, whatever the number of threads
  int n_threads = 0;  // 0: one per processor
  // Type of the output head, or of the embedding where it is the head too. Unset: q6_k for types of fewer bits, as
  // published files have it; otherwise the type of the other matrices.
  std::optional<kernels::DType> head_type = {};
  // Type of the feed-forward matrices. Unset: that of the others.
  std::optional<kernels::DType> ffn_type = {};
  // Type of the gate among them, which every token reads where neurons are skipped. Unset: that of the others.
  std::optional<kernels::DType> gate_type = {};
  // Six bits for attn_v and ffn_down in half of the layers, as files called Q4_K_M have it.
  bool mixed = false;
};

// Writes a GGUF file of the shape with matrices of `type`. A matrix whose rows are no whole number of blocks gets the
// nearest type with smaller blocks (q2_k, q3_k, iq4_xs: iq4_nl, tq1_0, tq2_0: q4_0, q4_k: q5_0, q5_k: q5_1, q6_k: q8_0,
// blocks of 32: f16). Norms and biases are f32. Matrix elements are normal with deviation 1/sqrt(n_in), so that
// activations keep their size. The tokenizer is byte-level BPE with synthetic merges, the ChatML control tokens, and
// exactly n_vocab tokens. InvalidArgument for a shape that cannot be (n_vocab below 300, ...) and for types without an
// encoder; errors of the file system as gguf::Writer has them.
absl::Status Synthesize(const SynthShape& shape, kernels::DType type, const std::string& path,
                        const SynthOptions& options = {});

// The same for a shape by name; NotFound lists the names.
absl::Status Synthesize(const std::string& shape, kernels::DType type, const std::string& path,
                        const SynthOptions& options = {});

}  // namespace updraft
