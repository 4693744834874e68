// How a model is loaded, and what came of its packed file.
#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace updraft {

struct LoadOptions {
  int n_threads = 0;  // 0: what the process may use; fixed from here on
  // kernels::CpuOptions::pin_threads. Load confines no thread of its caller's; the thread that runs the model it does
  // confine, from its first forward pass on.
  bool pin_threads = false;
  // Folder of packed files (packed_file.h), made if it is missing; empty: none. Who may write there decides what the
  // weights are.
  std::string packed_cache = {};
  // Bytes of matrices in the file: laid out so far, and all. Called by one thread, which need not be the caller's, at
  // most 20 times a second and once at the end, when both are equal; not at all after an error. May be empty.
  std::function<void(uint64_t done, uint64_t total)> on_progress = {};
};

// What loading did with LoadOptions::packed_cache. Trouble with it never fails a load: the weights are packed instead.
struct PackedCacheUse {
  enum class Outcome {
    kOff,      // not asked for, or all weights are read in place
    kRead,     // the weights come from the file
    kWritten,  // packed, and written for the next time
    kFailed,   // packed; the file is neither used nor written, see warnings
  };
  Outcome outcome = Outcome::kOff;
  std::string path;                   // of the packed file, where one was thought of
  std::vector<std::string> warnings;  // each says what was expected, what was found and what to do
};

const char* Name(PackedCacheUse::Outcome outcome);  // "off", "read", "written", "failed"

}  // namespace updraft
