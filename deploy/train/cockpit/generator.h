#ifndef UPDRAFT_DEPLOY_TRAIN_COCKPIT_GENERATOR_H_
#define UPDRAFT_DEPLOY_TRAIN_COCKPIT_GENERATOR_H_

#include <array>
#include <cstdint>

#include "deploy/train/cockpit/example.h"
#include "deploy/train/cockpit/random.h"

namespace updraft::cockpit {

// Raised whenever the same seed no longer gives the same examples: a model card names the version it learned from.
inline constexpr int kDataVersion = 6;

// Relative shares of the families, in the order of Family.
using FamilyMix = std::array<int, kFamilies>;
inline constexpr FamilyMix kEvenMix = {1, 1, 1, 1, 1, 1};

// An endless, reproducible stream of examples of one split. Training, calibration and test share no utterance, no
// entity, no value of a setting's zone and no pair of factors, and the latter two are worded in ways training never is
// (composer.h). Not thread-safe; streams with different seeds are independent.
class Generator {
 public:
  Generator(uint64_t seed, Split split, const FamilyMix& mix = kEvenMix);

  Example Next();
  Example Next(Family family);

  // For exact resumption.
  uint64_t state() const { return random_.state(); }
  int64_t count() const { return count_; }
  void Restore(uint64_t state, int64_t count) {
    random_.set_state(state);
    count_ = count;
  }

 private:
  Random random_;
  Split split_;
  FamilyMix mix_;
  int total_ = 0;
  int64_t count_ = 0;
};

// The user's words of a whole conversation, normalised: what decides the side that an example lies on.
std::string NormalizedConversation(const Example& example);

}  // namespace updraft::cockpit

#endif  // UPDRAFT_DEPLOY_TRAIN_COCKPIT_GENERATOR_H_
