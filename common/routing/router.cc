#include "common/routing/router.h"

#include <algorithm>
#include <cmath>
#include <string>
#include <utility>

#include "absl/strings/str_format.h"

namespace updraft {
namespace {

constexpr int kFacts = RouterInput::kFacts;
const std::string kPrefix = "updraft.router.";

double Sigmoid(double x) { return x >= 0 ? 1.0 / (1.0 + std::exp(-x)) : std::exp(x) / (1.0 + std::exp(x)); }

absl::Status BadField(const std::string& field, const std::string& expected, const std::string& found) {
  return absl::InvalidArgumentError(absl::StrFormat("%s%s: expected %s, found %s; run `updraft train router` again",
                                                    kPrefix, field, expected, found));
}

absl::Status CheckNumbers(const char* field, const std::vector<float>& values, size_t expected_size, bool positive) {
  if (values.size() != expected_size) {
    return BadField(field, absl::StrFormat("%d numbers", expected_size), absl::StrFormat("%d", values.size()));
  }
  for (const float value : values) {
    // What a fit can give lies far within; beyond it sums could leave what a double holds exactly.
    if (!(std::abs(value) <= 1e6f) || (positive && value <= 0.0f)) {
      return BadField(field, positive ? "positive numbers of at most 1e6" : "numbers of at most 1e6",
                      absl::StrFormat("%g", value));
    }
  }
  return absl::OkStatus();
}

absl::Status CheckGrams(const std::vector<uint32_t>& grams) {
  if (grams.size() > Router::kMaxGrams) {
    return BadField("grams", absl::StrFormat("at most %d", Router::kMaxGrams), absl::StrFormat("%d", grams.size()));
  }
  for (size_t i = 0; i < grams.size(); ++i) {
    if ((grams[i] >> RouterInput::kHashBits) == 0 && (i == 0 || grams[i] > grams[i - 1])) continue;
    return BadField("grams", absl::StrFormat("ascending hashes below 2^%d", RouterInput::kHashBits),
                    absl::StrFormat("%d at %d", grams[i], i));
  }
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<Router> Router::FromMetadata(Metadata metadata) {
  const auto names = RouterInput::FactNames();
  if (!std::equal(names.begin(), names.end(), metadata.facts.begin(), metadata.facts.end())) {
    return BadField("facts", absl::StrFormat("this build's %d", kFacts),
                    absl::StrFormat("another list of %d", metadata.facts.size()));
  }
  if (auto s = CheckGrams(metadata.grams); !s.ok()) return s;
  const size_t n = metadata.grams.size();
  if (auto s = CheckNumbers("mean", metadata.mean, kFacts, false); !s.ok()) return s;
  if (auto s = CheckNumbers("scale", metadata.scale, kFacts, true); !s.ok()) return s;
  if (auto s = CheckNumbers("fact_weights", metadata.fact_weights, 2 * kFacts, false); !s.ok()) return s;
  if (auto s = CheckNumbers("intercepts", metadata.intercepts, 2, false); !s.ok()) return s;
  if (auto s = CheckNumbers("rarity", metadata.rarity, n, true); !s.ok()) return s;
  if (auto s = CheckNumbers("fixes", metadata.fixes, n, false); !s.ok()) return s;
  if (auto s = CheckNumbers("breaks", metadata.breaks, n, false); !s.ok()) return s;
  return Router(std::move(metadata));
}

double Router::FactInput(const RouterInput& input, int fact) const {
  const double z = (static_cast<double>(input.facts[fact]) - metadata_.mean[fact]) / metadata_.scale[fact];
  // Four deviations: a prompt unlike any seen at fit time must not swing the sum by one fact alone.
  return kFactScale * std::clamp(z, -4.0, 4.0);
}

Router::Score Router::Predict(const RouterInput& input) const {
  double fixes = metadata_.intercepts[0], breaks = metadata_.intercepts[1];
  const size_t n = metadata_.grams.size();
  ForEachInput(input, [&](size_t column, double value) {
    fixes += value * (column < n ? metadata_.fixes[column] : metadata_.fact_weights[column - n]);
    breaks += value * (column < n ? metadata_.breaks[column] : metadata_.fact_weights[column - n + kFacts]);
  });
  return {Sigmoid(fixes), Sigmoid(breaks)};
}

void Router::AddTo(gguf::Writer& writer) const {
  writer.SetU32(kPrefix + "version", kVersion);
  writer.SetStrings(kPrefix + "facts", std::span<const std::string>(metadata_.facts));
  writer.SetF32s(kPrefix + "mean", metadata_.mean);
  writer.SetF32s(kPrefix + "scale", metadata_.scale);
  writer.SetF32s(kPrefix + "fact_weights", metadata_.fact_weights);
  writer.SetF32s(kPrefix + "intercepts", metadata_.intercepts);
  writer.SetU32s(kPrefix + "grams", metadata_.grams);
  writer.SetF32s(kPrefix + "rarity", metadata_.rarity);
  writer.SetF32s(kPrefix + "fixes", metadata_.fixes);
  writer.SetF32s(kPrefix + "breaks", metadata_.breaks);
  writer.SetString(kPrefix + "data_fingerprint", metadata_.data_fingerprint);
}

absl::StatusOr<std::optional<Router>> Router::FromGguf(const gguf::File& file) {
  if (!file.Has(kPrefix + "version")) return std::optional<Router>();
  // A file that names a version and lacks a part of it is damaged: to the caller no part of it is "not found".
  const auto damaged = [](const absl::Status& status) {
    return absl::InvalidArgumentError(std::string(status.message()));
  };
  auto version = file.GetU32(kPrefix + "version");
  if (!version.ok()) return damaged(version.status());
  if (*version != kVersion) {
    return BadField("version", absl::StrFormat("%d", kVersion), absl::StrFormat("%d", *version));
  }
  Metadata metadata;
  auto facts = file.GetStrings(kPrefix + "facts");
  if (!facts.ok()) return damaged(facts.status());
  metadata.facts.assign(facts->begin(), facts->end());
  auto grams = file.GetU32s(kPrefix + "grams");
  if (!grams.ok()) return damaged(grams.status());
  metadata.grams = *std::move(grams);
  const std::pair<const char*, std::vector<float>*> arrays[] = {{"mean", &metadata.mean},
                                                                {"scale", &metadata.scale},
                                                                {"fact_weights", &metadata.fact_weights},
                                                                {"intercepts", &metadata.intercepts},
                                                                {"rarity", &metadata.rarity},
                                                                {"fixes", &metadata.fixes},
                                                                {"breaks", &metadata.breaks}};
  for (const auto& [key, target] : arrays) {
    auto values = file.GetF32s(kPrefix + key);
    if (!values.ok()) return damaged(values.status());
    *target = *std::move(values);
  }
  auto fingerprint = file.GetStringOr(kPrefix + "data_fingerprint", "");
  if (!fingerprint.ok()) return damaged(fingerprint.status());
  metadata.data_fingerprint = std::string(*fingerprint);
  auto router = FromMetadata(std::move(metadata));
  if (!router.ok()) return router.status();
  return std::optional<Router>(*std::move(router));
}

}  // namespace updraft
