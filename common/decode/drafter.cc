#include "common/decode/drafter.h"

#include <algorithm>
#include <cassert>

#include "absl/strings/str_format.h"

namespace updraft {

absl::Status NgramOptions::Validate() const {
  if (min_ngram < 1 || max_ngram < min_ngram || max_ngram > 16) {
    return absl::InvalidArgumentError(
        absl::StrFormat("n-grams: expected 1 <= min_ngram <= max_ngram <= 16, found %d and %d", min_ngram, max_ngram));
  }
  return absl::OkStatus();
}

NgramDrafter::NgramDrafter(const NgramOptions& options) : options_(options) { assert(options.Validate().ok()); }

void NgramDrafter::Draft(std::span<const int32_t> context, int n, std::vector<int32_t>& drafts) {
  const auto size = static_cast<int64_t>(context.size());
  for (int64_t length = std::min<int64_t>(options_.max_ngram, size - 1); length >= options_.min_ngram; --length) {
    const std::span<const int32_t> end = context.last(length);
    for (int64_t from = size - length - 1; from >= 0; --from) {
      if (!std::equal(end.begin(), end.end(), context.begin() + from)) continue;
      const auto next = context.subspan(from + length);
      const auto n_drafts = std::min<size_t>(next.size(), std::max(n, 0));
      drafts.insert(drafts.end(), next.begin(), next.begin() + n_drafts);
      return;
    }
  }
}

}  // namespace updraft
