// How fast a model reads and writes on this machine.
#pragma once

#include <cstddef>

#include "absl/status/statusor.h"
#include "common/model/model.h"
#include "kernels/bench/machine_probe.h"

namespace updraft {

struct BenchModelOptions {
  int prefill = 512;  // tokens read at once; 0: not measured
  int decode = 128;   // tokens that each sequence writes one by one from an empty context; 0: not measured
  int sequences = 1;  // that decode together, one row each in every pass
  int repeat = 5;     // measured runs, after one that is not; a probe of memory before and after each that decodes
  int batch = 256;    // rows of a prefill pass
  kernels::KvType kv_type = kernels::KvType::kF16;
  bool pin_threads = false;  // of the probe of memory: as the model was loaded
};

using kernels::Spread;

struct BenchModelResult {
  Spread prefill_tok_s;
  Spread decode_tok_s;         // of all sequences together
  size_t bytes_per_token = 0;  // weights read per decoding pass, which writes one token of every sequence
  double bandwidth_gb_s = 0;   // of those bytes, at the median decoding speed: 10^9 bytes per second
  double roof_gb_s = 0;        // what memory gave right before and after each decoding run, median
  double roof_fraction = 0;    // median over the runs of (bandwidth used) / (what memory gave around that run)
};

// Deterministic token ids; every run ends with the final head for the last token (prefill) or each token (decode).
// InvalidArgument when the model's context is too short or a figure is negative.
absl::StatusOr<BenchModelResult> BenchModel(const Model& model, const BenchModelOptions& options);

}  // namespace updraft
