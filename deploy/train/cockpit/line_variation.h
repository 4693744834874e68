// Written requests varied: a few thousand lines that a model of millions of weights sees often it learns by heart. What
// changes here never changes what a line means: other names, other numbers, two lines said in one breath, a slip of the
// finger.
#ifndef UPDRAFT_DEPLOY_TRAIN_COCKPIT_LINE_VARIATION_H_
#define UPDRAFT_DEPLOY_TRAIN_COCKPIT_LINE_VARIATION_H_

#include <map>
#include <optional>
#include <span>
#include <string_view>
#include <utility>
#include <vector>

#include "deploy/train/cockpit/example.h"
#include "deploy/train/cockpit/name_variation.h"
#include "deploy/train/cockpit/random.h"

namespace updraft::cockpit {

// How many of the lines that can be varied in a way are, 0 to 1 each.
struct VariationShares {
  double names = 0;    // name_variation.h
  double numbers = 0;  // a number that is set as it was said becomes another one
  double joined = 0;   // two lines in one breath
  double typos = 0;    // in requests without names
};

// Const functions may be called by several threads.
class LineVariation {
 public:
  // Refers to `written`, which outlives it.
  explicit LineVariation(std::span<const Example> written);

  // Any line, varied. There is at least one.
  Example Draw(const VariationShares& shares, Random* random) const { return Draw(Any(random), shares, random); }
  // `line`, which need not be one of the written, varied; where it is joined, with any of them.
  Example Draw(const Example& line, const VariationShares& shares, Random* random) const;

  // One message whose numbers are others: those that stand in it once, in digits or in words, and are the value of a
  // setting; each stays within what the lines say of that signal. Nullopt: it has none.
  std::optional<Example> WithOtherNumbers(const Example& from, Random* random) const;

 private:
  const Example& Any(Random* random) const { return written_[random->Below(static_cast<uint32_t>(written_.size()))]; }
  Example Vary(const Example& line, const VariationShares& shares, Random* random) const;

  std::span<const Example> written_;
  NameVariation names_;
  std::map<std::string_view, std::pair<int, int>> said_;  // signal's path in the catalogue -> least and most
};

// Two messages as one: both are done, in order; what one of them wants and this car does not do is left out. Nullopt:
// not two single messages of one language, or both set the same, or both call, or one is hardly more than a name.
std::optional<Example> Joined(const Example& first, const Example& second, Random* random);

}  // namespace updraft::cockpit

#endif  // UPDRAFT_DEPLOY_TRAIN_COCKPIT_LINE_VARIATION_H_
