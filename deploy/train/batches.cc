#include "deploy/train/batches.h"

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "deploy/train/cockpit/random.h"

namespace updraft::train {
namespace {

constexpr int kPoolExamples = 2048;

}  // namespace

std::vector<Batch> CutBatches(std::vector<Sequence> sequences, int batch_tokens) {
  std::stable_sort(sequences.begin(), sequences.end(),
                   [](const Sequence& a, const Sequence& b) { return a.length() < b.length(); });
  std::vector<Batch> batches;
  for (Sequence& sequence : sequences) {
    // Sorted: the newcomer is the longest, and the batch is padded to it.
    if (batches.empty() ||
        (batches.back().size() + 1) * static_cast<size_t>(sequence.length()) > static_cast<size_t>(batch_tokens)) {
      batches.emplace_back();
    }
    batches.back().push_back(std::move(sequence));
  }
  return batches;
}

BatchStream::BatchStream(uint64_t seed, const cockpit::FamilyMix& mix, int batch_tokens, int max_tokens,
                         Encoder* encoder, const WrittenShare& written)
    : generator_(seed, cockpit::Split::kTrain, mix),
      written_(written),
      batch_tokens_(batch_tokens),
      max_tokens_(static_cast<size_t>(max_tokens)),
      encoder_(encoder),
      pool_state_(generator_.state()) {}

Sequence BatchStream::DrawWritten(cockpit::Random* draws) {
  cockpit::Random random(draws->Next());
  Sequence sequence = encoder_->EncodeExample(written_.lines->Draw(written_.vary, &random));
  // Nobody wrote a reply: what there is ends where it would begin.
  sequence.tokens.resize(static_cast<size_t>(sequence.settings_end));
  return sequence;
}

void BatchStream::FillPool() {
  pool_state_ = generator_.state();
  pool_count_ = generator_.count();
  taken_ = 0;
  std::vector<Sequence> sequences;
  cockpit::Random draws(pool_state_ ^ 0x3417);
  const bool has_written = written_.lines != nullptr;
  for (int i = 0; i < kPoolExamples; ++i) {
    const bool write = has_written && draws.Below(10000) < written_.share * 10000;
    Sequence sequence = write ? DrawWritten(&draws) : encoder_->EncodeExample(generator_.Next());
    if (sequence.tokens.size() <= max_tokens_) sequences.push_back(std::move(sequence));
  }
  if (sequences.empty()) {
    throw std::runtime_error("none of " + std::to_string(kPoolExamples) + " examples fits a context of " +
                             std::to_string(max_tokens_) + " tokens; give the model a longer one");
  }
  pool_ = CutBatches(std::move(sequences), batch_tokens_);
  cockpit::Random random(pool_state_ ^ 0xBA7C4);
  for (size_t i = pool_.size(); i > 1; --i) std::swap(pool_[i - 1], pool_[random.Below(static_cast<uint32_t>(i))]);
}

Batch BatchStream::Next() {
  if (taken_ == static_cast<int64_t>(pool_.size())) FillPool();
  return pool_[taken_++];
}

void BatchStream::Restore(const Place& place) {
  generator_.Restore(place.generator_state, place.generator_count);
  pool_.clear();
  taken_ = 0;
  if (place.batches_taken == 0) return;
  FillPool();
  taken_ = place.batches_taken;
}

}  // namespace updraft::train
