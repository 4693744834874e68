#ifndef UPDRAFT_DEPLOY_TRAIN_COCKPIT_COMPOSER_H_
#define UPDRAFT_DEPLOY_TRAIN_COCKPIT_COMPOSER_H_

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "deploy/train/cockpit/example.h"
#include "deploy/train/cockpit/random.h"

namespace updraft::cockpit {

// Which side of the split something belongs to, decided by its hash alone.
Split SideOf(uint64_t hash);

// The side of a number in [low, high]: one contiguous range (which may run over the end) is the test's, the next one
// the calibration's. `turn`, in sixteenths of the whole, says where they begin.
Split SideOfNumber(int value, int low, int high, int turn);

// Lower case, no punctuation, fillers or doubled spaces: two utterances with one normal form count as the same.
std::string NormalizeUtterance(std::string_view text);

// The side of a whole utterance (all user turns, normalised). A training example lies on the training side, a test
// example on the test side: no text can be in both.
Split SideOfUtterance(std::string_view normalized);

using Slots = std::vector<std::pair<std::string_view, std::string>>;

// Draws the wording of one example and keeps to its split: every combination of choices that a pattern leaves open and
// every entity has a side by its hash, and every number by its range. Training sees only the training side; a test
// utterance has no calibration wording, only held-out entities and values, and at least one held-out wording in its
// last turn. Where that turn leaves nothing open but a name or a number ("navigate to ..."), the held-out name or
// number suffices.
class Composer {
 public:
  Composer(Random* random, Language language, Split split) : random_(*random), language_(language), split_(split) {}

  Random& random() { return random_; }
  Language language() const { return language_; }
  bool english() const { return language_ == Language::kEnglish; }
  Split split() const { return split_; }

  // `pattern`: text with [a|b|c] alternatives (they nest) and {name} slots. The choices made together are one wording;
  // a single choice is vocabulary, open to every side.
  std::string Say(std::string_view pattern, const Slots& slots = {});
  std::string SayOne(const std::vector<std::string_view>& patterns, const Slots& slots = {});

  // Draws until the text, or the value, lies on this split's side. Marks the example as unusable when none does.
  std::string DrawEntity(const std::function<std::string()>& draw);
  int DrawValue(const std::function<int()>& draw, const std::function<Split(int)>& side);
  // The side is that of the value's hash within `domain`: pairs of factors and the like, which have no range.
  int DrawKey(std::string_view domain, const std::function<int()>& draw);
  // Whether something that was worked out, not drawn, may be in an example of this split: training keeps to its side.
  bool Allows(Split side) const { return split_ != Split::kTrain || side == Split::kTrain; }

  // While true, wording is background: an earlier turn of the conversation, which need not be held out itself.
  void set_in_context(bool in_context) { in_context_ = in_context; }

  // Whether what was drawn makes an example of this split; asked once.
  bool Acceptable();
  // The last turn is one held-out wording and nothing else: no training request has these words.
  bool IsOneHeldOutWording() const { return open_wordings_ == 1 && held_out_wordings_ == 1 && held_out_contents_ == 0; }

 private:
  // Which of the combinations of a pattern's choices this is.
  struct Wording {
    uint64_t hash;
    int choices;
    uint64_t index;         // in [0, combinations)
    uint64_t combinations;  // along the alternatives that were taken
  };
  static Split SideOfWording(std::string_view pattern, const Wording& wording);
  std::string Expand(std::string_view pattern, const Slots& slots, Wording* wording);

  Random& random_;
  Language language_;
  Split split_;
  bool in_context_ = false;
  bool failed_ = false;
  // Of the last turn.
  int open_wordings_ = 0;
  int held_out_wordings_ = 0;
  int held_out_contents_ = 0;  // entities and values
};

// Text that fillers and typos must leave alone (names, numbers) is kept between these marks until the end.
inline constexpr char kProtectBegin = '\x02';
inline constexpr char kProtectEnd = '\x03';
std::string Protect(std::string_view text);

// Wraps a core request in politeness, adds fillers and typos, and removes the marks. `imperative`: the core is an order
// ("open the window"), which takes "could you ..."; otherwise a statement or a question.
std::string Dress(std::string_view core, bool imperative, Composer* composer);
// The text without marks and needless spaces.
std::string RemoveMarks(std::string_view text);

// A slip of the finger, or characters that a recogniser confuses, in a text without marks; or nothing, where it has no
// word to slip in.
void AddTypo(Language language, std::string* text, Random* random);

// 0..199 and halves in words: "twenty two and a half", "二十二点五".
std::string NumberInWords(int tenths, Language language);

}  // namespace updraft::cockpit

#endif  // UPDRAFT_DEPLOY_TRAIN_COCKPIT_COMPOSER_H_
