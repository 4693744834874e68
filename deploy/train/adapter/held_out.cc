#include "deploy/train/adapter/held_out.h"

#include <algorithm>
#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "deploy/train/cockpit/random.h"
#include "deploy/train/workers.h"

namespace updraft::train {
namespace {

constexpr int kGenerated = 300;

template <typename Weight>
LossBatch ToTensors(const Batch& batch, int32_t padding, const Weight& weight) {
  int64_t time = 0, learned = 0;
  for (const Sequence& sequence : batch) {
    time = std::max<int64_t>(time, sequence.length());
    for (int32_t i = 1; i < sequence.length(); ++i) learned += weight(sequence, i) > 0;
  }
  LossBatch out;
  out.tokens = torch::full({static_cast<int64_t>(batch.size()), time}, padding, torch::kInt64);
  out.selected = torch::empty({learned}, torch::kInt64);
  out.targets = torch::empty({learned}, torch::kInt64);
  out.weights = torch::empty({learned});
  int64_t at = 0;
  for (size_t row = 0; row < batch.size(); ++row) {
    const Sequence& sequence = batch[row];
    const int64_t start = static_cast<int64_t>(row) * time;
    std::copy(sequence.tokens.begin(), sequence.tokens.end(), out.tokens.data_ptr<int64_t>() + start);
    for (int32_t i = 1; i < sequence.length(); ++i) {
      const float w = weight(sequence, i);
      if (!(w > 0)) continue;
      out.selected.data_ptr<int64_t>()[at] = start + i - 1;
      out.targets.data_ptr<int64_t>()[at] = sequence.tokens[static_cast<size_t>(i)];
      out.weights.data_ptr<float>()[at++] = w;
    }
  }
  return out;
}

// The first that differ in every order of lines: a sheet begins with one kind.
template <typename T>
void Scatter(std::vector<T>* items) {
  cockpit::Random random(0x5CA7);
  for (size_t i = items->size(); i > 1; --i) {
    std::swap((*items)[i - 1], (*items)[random.Below(static_cast<uint32_t>(i))]);
  }
}

std::string Percent(const std::string& name, int right, int all) {
  return absl::StrFormat(" %s %.1f", name, 100.0 * right / std::max(1, all));
}

}  // namespace

LossBatch ToLossBatch(const Batch& batch, int32_t padding) {
  return ToTensors(batch, padding, [](const Sequence& s, int32_t i) { return s.weights[static_cast<size_t>(i)]; });
}

LossBatch ToAnswerBatch(const Batch& batch, int32_t padding) {
  return ToTensors(batch, padding, [](const Sequence& s, int32_t i) {
    return i >= s.answer_begin && i < s.settings_end ? 1.0f : 0.0f;
  });
}

absl::StatusOr<HeldOut> HeldOut::Create(const AdapterRecipe& recipe, const ChatEncoder& encoder) {
  HeldOut held;
  held.batch_tokens_ = recipe.batch_tokens;
  held.padding_ = encoder.end();
  const auto add = [&](const cockpit::Example& example, const std::string& kind, Set* set) -> absl::Status {
    absl::StatusOr<Sequence> sequence = encoder.Encode(example, {});
    if (!sequence.ok()) return sequence.status();
    if (sequence->length() <= recipe.max_tokens) set->items.push_back({*std::move(sequence), kind});
    return absl::OkStatus();
  };
  for (const std::string& name : recipe.held_out) {
    absl::StatusOr<Sheet> sheet = ReadSheet(recipe.sheet_folder, name);
    if (!sheet.ok()) return sheet.status();
    Set& set = held.sets_.emplace_back();
    set.name = name;
    for (size_t i = 0; i < sheet->examples.size(); ++i) {
      if (absl::Status status = add(sheet->examples[i], sheet->kinds[i], &set); !status.ok()) return status;
    }
  }
  Set& generated = held.sets_.emplace_back();
  generated.name = "generated";
  cockpit::Generator generator(/*seed=*/977, cockpit::Split::kCalibrate, recipe.mix);
  for (int i = 0; i < kGenerated; ++i) {
    if (absl::Status status = add(generator.Next(), "", &generated); !status.ok()) return status;
  }
  for (Set& set : held.sets_) Scatter(&set.items);
  return held;
}

std::string HeldOut::Run(const AdaptedModel& model, int per_set, int workers) const {
  // All sets in one row of batches; `group` of a sequence is its place in `kinds`.
  std::vector<Sequence> sequences;
  std::vector<std::pair<size_t, const Item*>> items;
  for (size_t s = 0; s < sets_.size(); ++s) {
    const size_t count = per_set == 0 ? sets_[s].items.size() : std::min<size_t>(per_set, sets_[s].items.size());
    for (size_t i = 0; i < count; ++i) {
      sequences.push_back(sets_[s].items[i].sequence);
      sequences.back().group = static_cast<int>(items.size());
      items.emplace_back(s, &sets_[s].items[i]);
    }
  }
  const std::vector<Batch> batches = CutBatches(std::move(sequences), batch_tokens_);
  std::vector<char> right(items.size(), 0);
  std::atomic<size_t> next{0};
  RunOnWorkers(workers, [&](int) {
    for (size_t b = next++; b < batches.size(); b = next++) {
      const LossBatch tensors = ToAnswerBatch(batches[b], padding_);
      const torch::Tensor hits = model.Argmax(tensors).eq(tensors.targets);
      const bool* hit = hits.data_ptr<bool>();
      for (const Sequence& sequence : batches[b]) {
        const int32_t n = sequence.settings_end - sequence.answer_begin;
        right[static_cast<size_t>(sequence.group)] = std::all_of(hit, hit + n, [](bool h) { return h; });
        hit += n;
      }
    }
  });
  std::vector<Count> by_set(sets_.size());
  std::map<std::string, Count> by_kind;
  Count written;
  for (size_t i = 0; i < items.size(); ++i) {
    const auto& [set, item] = items[i];
    for (Count* count :
         {&by_set[set], item->kind.empty() ? nullptr : &by_kind[item->kind], item->kind.empty() ? nullptr : &written}) {
      if (count != nullptr) count->right += right[i], ++count->all;
    }
  }
  std::string out = "exact";
  for (size_t s = 0; s < sets_.size(); ++s) out += Percent(sets_[s].name, by_set[s].right, by_set[s].all);
  if (written.all > 0) {
    out += "; by kind";
    for (const auto& [kind, count] : by_kind) out += Percent(kind, count.right, count.all);
    absl::StrAppendFormat(&out, "; written %.1f of %d", 100.0 * written.right / written.all, written.all);
  }
  return out;
}

}  // namespace updraft::train
