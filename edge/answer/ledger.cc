#include "edge/answer/ledger.h"

#include <utility>

namespace updraft {

void Ledger::Draft(v1::Chunk chunk, int n_tokens, IdSpace ids) {
  if (n_tokens == 0 && chunk.text().empty()) return;
  if (ids == IdSpace::kForeign) {
    // Ids of another vocabulary would be misread by whoever takes ours.
    chunk.clear_tokens();
    chunk.clear_evidence();
  }
  Entry* last = entries_.empty() ? nullptr : &entries_.back();
  const bool goes_on =
      last != nullptr && last->decided_by.empty() && last->drafted_by == chunk.tier() && last->id_space == ids;
  if (!goes_on) {
    entries_.push_back({.drafted_by = chunk.tier(), .decided_by = {}, .ids = {}, .id_space = ids, .bytes = {}});
    last = &entries_.back();
  }
  last->ids.insert(last->ids.end(), chunk.tokens().begin(), chunk.tokens().end());
  last->n_tokens += n_tokens;
  last->bytes += chunk.text();
  waiting_.push_back({std::move(chunk), n_tokens});
  ++n_undecided_;
}

void Ledger::Decide(const std::string& by) {
  std::vector<Entry> undecided;
  while (!entries_.empty() && entries_.back().decided_by.empty()) {
    undecided.push_back(std::move(entries_.back()));
    entries_.pop_back();
  }
  n_undecided_ = 0;
  for (; !undecided.empty(); undecided.pop_back()) {
    Entry& entry = undecided.back();
    entry.decided_by = by;
    Entry* last = entries_.empty() ? nullptr : &entries_.back();
    if (last != nullptr && last->drafted_by == entry.drafted_by && last->decided_by == by &&
        last->id_space == entry.id_space) {
      last->ids.insert(last->ids.end(), entry.ids.begin(), entry.ids.end());
      last->n_tokens += entry.n_tokens;
      last->bytes += entry.bytes;
    } else {
      entries_.push_back(std::move(entry));
    }
  }
}

void Ledger::Withdraw() {
  while (!entries_.empty() && entries_.back().decided_by.empty()) entries_.pop_back();
  waiting_.resize(waiting_.size() - n_undecided_);
  n_undecided_ = 0;
}

std::vector<v1::Chunk> Ledger::Give() {
  std::vector<v1::Chunk> given;
  const size_t n_decided = waiting_.size() - n_undecided_;
  given.reserve(n_decided);
  for (size_t i = 0; i < n_decided; ++i) {
    given_bytes_ += waiting_[i].chunk.text().size();
    given_tokens_ += waiting_[i].n_tokens;
    given.push_back(std::move(waiting_[i].chunk));
  }
  waiting_.erase(waiting_.begin(), waiting_.begin() + static_cast<std::ptrdiff_t>(n_decided));
  given_any_ = given_any_ || !given.empty();
  return given;
}

std::vector<int32_t> Ledger::Ids() const {
  std::vector<int32_t> ids = prefix_;
  for (const Entry& entry : entries_) {
    if (!entry.decided_by.empty()) ids.insert(ids.end(), entry.ids.begin(), entry.ids.end());
  }
  return ids;
}

bool Ledger::ids_known() const {
  for (const Entry& entry : entries_) {
    if (!entry.decided_by.empty() && entry.id_space == IdSpace::kForeign) return false;
  }
  return true;
}

std::string Ledger::Text() const {
  std::string text;
  for (const Entry& entry : entries_) {
    if (!entry.decided_by.empty()) text += entry.bytes;
  }
  return text;
}

std::vector<int32_t> Ledger::AllIds() const {
  std::vector<int32_t> ids = prefix_;
  for (const Entry& entry : entries_) ids.insert(ids.end(), entry.ids.begin(), entry.ids.end());
  return ids;
}

std::string Ledger::AllText() const {
  std::string text;
  for (const Entry& entry : entries_) text += entry.bytes;
  return text;
}

std::vector<v1::Provenance::Span> Ledger::Spans() const {
  std::vector<v1::Provenance::Span> spans;
  for (const Entry& entry : entries_) {
    if (entry.decided_by.empty()) continue;
    if (spans.empty() || spans.back().tier() != entry.drafted_by) spans.emplace_back().set_tier(entry.drafted_by);
    spans.back().set_n_tokens(spans.back().n_tokens() + entry.n_tokens);
  }
  return spans;
}

}  // namespace updraft
