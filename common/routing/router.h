// Before the first token: how much a request would gain from going up, by the words of its prompt alone.
//
// Two logistic heads over the same inputs: P(fixes) that this tier is wrong where upstream is right, P(breaks) that it
// is right where upstream is wrong. Their difference is the gain that requests are ranked by. Fitted by deploy/router
// on outcomes of both tiers; a model file may hold one under updraft.router.*.
#pragma once

#include <algorithm>
#include <array>
#include <cmath>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/gguf/reader.h"
#include "common/gguf/writer.h"

namespace updraft {

// What is read of a prompt. Deterministic: bytes alone decide, no locale, no seed; any bytes are allowed.
struct RouterInput {
  // Counts and shares of the whole prompt; names and order are part of the file format. All values are finite.
  static constexpr int kFacts = 24;
  static std::span<const std::string_view> FactNames();
  // N-grams are told apart by so many bits of their hash; a router keeps those alone that its table has twice.
  static constexpr int kHashBits = 22;
  // Of a longer prompt the last so many bytes count: what is asked stands at its end.
  static constexpr size_t kMaxBytes = size_t{1} << 15;

  std::array<float, kFacts> facts{};
  std::vector<uint32_t> grams;  // hashes in [0, 2^kHashBits), ascending, each once; the order of words, not how often
};

// Words are runs of letters (ASCII in lower case; other bytes beyond ASCII as they are), runs of digits, or one Han,
// kana or Hangul character; grams are single words and pairs of neighbours.
RouterInput RouterInputOf(std::string_view prompt);

// Immutable; thread-safe to read.
class Router {
 public:
  struct Score {
    double fixes = 0.0, breaks = 0.0;               // probabilities
    double gain() const { return fixes - breaks; }  // in [-1, 1]: expected gain in right answers from going up
  };

  // What a file holds, under
  // updraft.router.{version,facts,mean,scale,fact_weights,intercepts,grams,rarity,fixes,breaks, data_fingerprint}. n
  // grams that are known, in ascending order; of two heads, fixes comes first.
  struct Metadata {
    std::vector<std::string> facts;    // [kFacts] names
    std::vector<float> mean, scale;    // [kFacts]
    std::vector<float> fact_weights;   // [2 * kFacts]
    std::vector<float> intercepts;     // [2]
    std::vector<uint32_t> grams;       // [n]
    std::vector<float> rarity;         // [n], positive: weight of a gram in a prompt
    std::vector<float> fixes, breaks;  // [n]
    std::string data_fingerprint;      // of the table it was fitted on
  };
  static constexpr uint32_t kVersion = 1;
  static constexpr size_t kMaxGrams = size_t{1} << 20;
  static constexpr double kFactScale = 0.05;  // of a standardized fact beside the grams, whose vector has length 1

  // InvalidArgument names the field that cannot be used, as in a file.
  static absl::StatusOr<Router> FromMetadata(Metadata metadata);
  // nullopt: the file has none. InvalidArgument: damaged, or of another version.
  static absl::StatusOr<std::optional<Router>> FromGguf(const gguf::File& file);
  // Sets the keys, before the writer's first tensor data.
  void AddTo(gguf::Writer& writer) const;
  const Metadata& metadata() const { return metadata_; }

  // The inputs that the heads see, the same for the fit and Predict: calls `use(column, value)` for each known gram
  // (column: its index in metadata().grams), whose values have length 1 together, then for each fact (column: number of
  // grams + its index). No heap.
  template <typename Use>
  void ForEachInput(const RouterInput& input, Use use) const;
  // No heap, O(grams * log(known grams)).
  Score Predict(const RouterInput& input) const;

 private:
  explicit Router(Metadata metadata) : metadata_(std::move(metadata)) {}
  // Calls `use(index)` for each gram of the input that is known.
  template <typename Use>
  void ForEachKnown(const RouterInput& input, Use use) const;
  double FactInput(const RouterInput& input, int fact) const;

  Metadata metadata_;
};

template <typename Use>
void Router::ForEachKnown(const RouterInput& input, Use use) const {
  auto at = metadata_.grams.begin();
  for (const uint32_t gram : input.grams) {  // both ascend
    at = std::lower_bound(at, metadata_.grams.end(), gram);
    if (at == metadata_.grams.end()) return;
    if (*at == gram) use(static_cast<size_t>(at - metadata_.grams.begin()));
  }
}

template <typename Use>
void Router::ForEachInput(const RouterInput& input, Use use) const {
  double squares = 0.0;
  ForEachKnown(input, [&](size_t i) { squares += static_cast<double>(metadata_.rarity[i]) * metadata_.rarity[i]; });
  const double scale = squares > 0.0 ? 1.0 / std::sqrt(squares) : 0.0;
  ForEachKnown(input, [&](size_t i) { use(i, metadata_.rarity[i] * scale); });
  for (int f = 0; f < RouterInput::kFacts; ++f) use(metadata_.grams.size() + f, FactInput(input, f));
}

}  // namespace updraft
