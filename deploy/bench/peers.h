// The same model file through this program and through other people's `llama-bench` programs, in turn, so that a
// machine whose speed drifts is fair to all.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace updraft {

struct Peer {
  std::string name;  // the path below the folder searched, up to the build folder: "llama.cpp"
  std::string program;
};

// Every executable file named `llama-bench` under `folder`, sorted by name. NotFound says where it looked.
absl::StatusOr<std::vector<Peer>> FindPeers(const std::string& folder);

struct PeerBenchOptions {
  std::string self;   // this program, asked by its own `bench model --json`
  std::string model;  // GGUF file
  int n_threads = 0;
  int prefill = 512, decode = 128;     // tokens
  int rounds = 5;                      // each runs every program once, starting with another one
  std::vector<std::string> peer_args;  // added to each llama-bench command
};

struct Speed {
  double prefill_tok_s = 0, decode_tok_s = 0;
};

// One program's measured rounds; `[0]` of RunPeers' answer is this project.
struct PeerSpeeds {
  std::string name;
  std::vector<Speed> rounds;
};

// Progress: (program's name, round, its speed). A program that fails ends the measurement with its output.
absl::StatusOr<std::vector<PeerSpeeds>> RunPeers(const std::vector<Peer>& peers, const PeerBenchOptions& options,
                                                 const std::function<void(const std::string&, int, Speed)>& on_speed);

// Of one round's figures: ours / theirs, round by round, so that drift cancels.
struct Ratio {
  double median = 0, min = 0, max = 0;
};
Ratio RatioOf(const PeerSpeeds& ours, const PeerSpeeds& theirs, double Speed::*of);

// What `llama-bench -o json` printed -> speeds. InvalidArgument when a test is missing.
absl::StatusOr<Speed> ParseLlamaBench(const std::string& output);

}  // namespace updraft
