#include "common/jinja/sourced_text.h"

#include <algorithm>

namespace updraft::jinja {
namespace {

// The run that holds `pos`.
SourcedText::Runs::const_iterator RunAt(const SourcedText::Runs& runs, size_t pos) {
  return std::upper_bound(runs.begin(), runs.end(), pos,
                          [](size_t at, const SourcedText::Run& run) { return at < run.end; });
}

}  // namespace

Source SourcedText::SourceAt(size_t pos) const { return RunAt(runs_, pos)->source; }

void SourcedText::Append(std::string_view bytes, Source source) {
  if (bytes.empty()) return;
  bytes_ += bytes;
  if (!runs_.empty() && runs_.back().source == source) {
    runs_.back().end = bytes_.size();
  } else {
    runs_.push_back({bytes_.size(), source});
  }
}

void SourcedText::AppendPart(const SourcedText& other, size_t begin, size_t end) {
  for (auto run = RunAt(other.runs_, begin); begin < end; ++run) {
    const size_t stop = std::min(end, run->end);
    Append(std::string_view(other.bytes_).substr(begin, stop - begin), run->source);
    begin = stop;
  }
}

SourcedText SourcedText::Part(size_t begin, size_t end) const {
  SourcedText part;
  part.is_markup_ = is_markup_;
  part.AppendPart(*this, begin, end);
  return part;
}

void SourcedText::Truncate(size_t size) {
  bytes_.resize(size);
  while (!runs_.empty() && runs_.back().end > size) {
    const size_t begin = runs_.size() > 1 ? runs_[runs_.size() - 2].end : 0;
    if (begin < size) {
      runs_.back().end = size;
    } else {
      runs_.pop_back();
    }
  }
}

}  // namespace updraft::jinja
