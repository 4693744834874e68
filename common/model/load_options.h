// How a model is loaded, and what came of its packed file.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"

namespace updraft {

struct ModelConfig;
struct WeightsNeed;
// Says whether a model may be loaded, from its configuration and what its weights will take (memory_need.h).
using AdmitModel = std::function<absl::Status(const ModelConfig&, const WeightsNeed&)>;

struct LoadOptions {
  int n_threads = 0;  // 0: what the process may use; fixed from here on
  // kernels::CpuOptions::pin_threads. Load packs on a thread of its own, so that its caller's is not confined; where
  // the system has no thread to give it packs on the caller's, which is then confined to one CPU for good. The thread
  // that runs the model is confined in any case, from its first forward pass on.
  bool pin_threads = false;
  // GGUF file of an adapter that is applied beside the model's weights (adapter.h); empty: none.
  std::string adapter = {};
  // Folder of packed files (packed_file.h), made if it is missing; empty: none. Who may write there decides what the
  // weights are.
  std::string packed_cache = {};
  // Bytes of matrices in the file: laid out so far, and all. Called by one thread, which need not be the caller's, at
  // most 20 times a second and once at the end, when both are equal; not at all after an error. May be empty.
  std::function<void(uint64_t done, uint64_t total)> on_progress = {};
  // Asked when all is known of the model and nothing is packed yet; what it refuses is not loaded. May be empty.
  AdmitModel admit = {};
};

// What loading did with LoadOptions::packed_cache. Trouble with the folder or the file never fails a load: the weights
// are packed instead.
struct PackedCacheUse {
  enum class Outcome {
    kOff,      // not asked for, or all weights are read in place
    kRead,     // the weights come from the file
    kWritten,  // packed, and written for the next time
    // Packed; the file was not used and could not be written, see warnings. When flushing the folder alone failed, the
    // file is there for the next load, unless the system crashes first.
    kFailed,
  };
  Outcome outcome = Outcome::kOff;
  std::string path;                   // of the packed file, where one was thought of
  std::vector<std::string> warnings;  // each says what was expected, what was found and what to do
};

const char* Name(PackedCacheUse::Outcome outcome);  // "off", "read", "written", "failed"

}  // namespace updraft
