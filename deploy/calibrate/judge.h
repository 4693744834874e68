// Whether an answer is as good as upstream's, with or without labels.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "absl/status/statusor.h"
#include "deploy/calibrate/progress_file.h"
#include "deploy/calibrate/upstream.h"
#include "deploy/task/task.h"

namespace updraft {

enum class JudgedBy : uint8_t {
  kLabel,     // the item says what is right
  kEquality,  // it is upstream's answer, or what upstream offers first where it asks back, or means the same settings,
              // or has its words whatever their case
  kLikelihood,  // upstream finds it nearly as likely as its own
  kDifference,  // it is another one, and one of both asks back or was cut off, or upstream does not say how likely it
                // is
};
std::string_view NameOf(JudgedBy by);

struct Judgement {
  JudgedBy by = JudgedBy::kLabel;
  bool right = false;          // by the label; without one: as good as upstream's, which is the measure then
  bool upstream_right = true;  // by the label
  std::string upstream;        // its answer; empty: it was not asked
  double gap =
      0.0;  // with kLikelihood: nats per token by which upstream finds its own likelier (each by its own length)

  bool as_good() const { return right || !upstream_right; }
};

// An answer of the model that is judged.
struct Said {
  std::string text;
  bool finished = true;  // false: max_tokens or the context ran out
};

struct JudgeOptions {
  // The largest gap that counts as nearly as likely. Greedy answers are about the likeliest that upstream knows, so
  // that another wording of the same has a gap, too.
  double likelihood_margin = 0.05;
  int n_workers = 2;
  ProgressFile* progress = nullptr;  // what has been asked already; null: nothing is kept
  std::function<void(const std::string& stage, int done, int total)> on_progress = {};  // may be empty
  // Once, where upstream does not say how likely it finds answers: why. May be empty.
  std::function<void(const std::string& why)> on_silent = {};
};

// Of a conversation, for findings about it.
std::string KeyOf(const Conversation& conversation);

// Same settings where both are answers of the cockpit; otherwise the same words, but for case, spaces, and quotes,
// brackets and the marks of sentences around words.
bool SameAnswer(std::string_view a, std::string_view b);

// One judgement per item. The first error of upstream ends it and says how far it came; what was asked by then is in
// the progress file. answers: one per item.
absl::StatusOr<std::vector<Judgement>> JudgeAgainst(Upstream& upstream, std::span<const TaskItem> items,
                                                    std::span<const Said> answers, const JudgeOptions& options);

}  // namespace updraft
