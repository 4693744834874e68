#include "deploy/train/adapter/mixed_stream.h"

#include <cmath>
#include <numeric>
#include <stdexcept>
#include <string>
#include <utility>

#include "deploy/train/cockpit/random.h"

namespace updraft::train {
namespace {

constexpr int64_t kPoolExamples = 2048;

template <typename T>
void Shuffle(uint64_t seed, std::vector<T>* items) {
  cockpit::Random random(seed);
  for (size_t i = items->size(); i > 1; --i) {
    std::swap((*items)[i - 1], (*items)[random.Below(static_cast<uint32_t>(i))]);
  }
}

std::vector<cockpit::Example> Round(const AdapterRecipe& recipe, const std::vector<Sheet>& sheets) {
  std::vector<cockpit::Example> lines;
  for (size_t sheet = 0; sheet < sheets.size(); ++sheet) {
    for (int time = 0; time < recipe.sheets[sheet].second; ++time) {
      lines.insert(lines.end(), sheets[sheet].examples.begin(), sheets[sheet].examples.end());
    }
  }
  return lines;
}

}  // namespace

MixedStream::MixedStream(const AdapterRecipe& recipe, const std::vector<Sheet>& sheets, const ChatEncoder& encoder)
    : recipe_(recipe), encoder_(encoder), lines_(Round(recipe, sheets)), variation_(lines_) {
  if (!lines_.empty()) {
    written_per_pool_ = std::llround(static_cast<double>(kPoolExamples) * (1 - recipe_.generated_share));
  }
  FillPool();
}

const cockpit::Example& MixedStream::Written(int64_t draw) {
  const auto size = static_cast<int64_t>(lines_.size());
  if (draw / size != round_number_) {
    round_number_ = draw / size;
    round_.resize(lines_.size());
    std::iota(round_.begin(), round_.end(), 0u);
    Shuffle(cockpit::HashCombine(recipe_.seed, 0x5EE7 + static_cast<uint64_t>(round_number_)), &round_);
  }
  return lines_[round_[static_cast<size_t>(draw % size)]];
}

void MixedStream::Add(const cockpit::Example& example, uint64_t draw, std::vector<Sequence>* sequences) {
  cockpit::Random random(draw);
  LossWeights weights;
  weights.reply = static_cast<float>(recipe_.reply_weight);
  if (random.Below(10000) < recipe_.question_share * 10000) {
    weights.question = static_cast<float>(recipe_.question_weight);
  }
  absl::StatusOr<Sequence> sequence = encoder_.Encode(example, weights);
  if (!sequence.ok()) throw std::runtime_error(example.id + ": " + std::string(sequence.status().message()));
  if (sequence->length() > recipe_.max_tokens) {
    ++left_out_;
    return;
  }
  sequences->push_back(*std::move(sequence));
}

void MixedStream::FillPool() {
  const uint64_t seed = cockpit::HashCombine(recipe_.seed, 0x9001 + static_cast<uint64_t>(place_.pool));
  place_.taken = 0;
  std::vector<Sequence> sequences;
  uint64_t draw = seed;
  for (int64_t i = 0; i < written_per_pool_; ++i) {
    cockpit::Random random(cockpit::HashCombine(seed, static_cast<uint64_t>(i)));
    Add(variation_.Draw(Written(place_.pool * written_per_pool_ + i), recipe_.vary, &random), ++draw, &sequences);
  }
  cockpit::Generator generator(seed, cockpit::Split::kTrain, recipe_.mix);
  cockpit::Random languages(seed ^ 0x1A46);
  for (int64_t i = written_per_pool_; i < kPoolExamples; ++i) {
    const cockpit::Language wanted = languages.Below(10000) < recipe_.english_share * 10000
                                         ? cockpit::Language::kEnglish
                                         : cockpit::Language::kChinese;
    cockpit::Example example = generator.Next();
    while (example.language != wanted) example = generator.Next();
    Add(example, ++draw, &sequences);
  }
  if (sequences.empty()) {
    throw std::runtime_error("none of " + std::to_string(kPoolExamples) +
                             " examples fits in max_tokens = " + std::to_string(recipe_.max_tokens));
  }
  pool_ = CutBatches(std::move(sequences), recipe_.batch_tokens);
  Shuffle(seed ^ 0xBA7C4, &pool_);
}

Batch MixedStream::Next() {
  if (place_.taken == static_cast<int64_t>(pool_.size())) {
    ++place_.pool;
    FillPool();
  }
  return pool_[static_cast<size_t>(place_.taken++)];
}

void MixedStream::Restore(const Place& place) {
  place_ = place;
  FillPool();
  place_.taken = place.taken;
}

double MixedStream::rounds() const {
  if (lines_.empty()) return 0;
  const double in_pool = static_cast<double>(place_.taken) / static_cast<double>(pool_.size());
  return (static_cast<double>(place_.pool) + in_pool) * static_cast<double>(written_per_pool_) /
         static_cast<double>(lines_.size());
}

}  // namespace updraft::train
