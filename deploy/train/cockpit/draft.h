#ifndef UPDRAFT_DEPLOY_TRAIN_COCKPIT_DRAFT_H_
#define UPDRAFT_DEPLOY_TRAIN_COCKPIT_DRAFT_H_

#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "deploy/train/cockpit/composer.h"
#include "deploy/train/cockpit/example.h"
#include "deploy/train/cockpit/intents.h"

namespace updraft::cockpit {

// An example before politeness, fillers and typos.
struct Draft {
  std::vector<ChatTurn> context;  // earlier turns, as the model sees them
  std::string context_text;       // what the user said in them
  std::string core;
  bool imperative = true;
  std::string work;
  Meaning meaning;
  nlohmann::ordered_json result = nlohmann::ordered_json::object();
  bool refuse = false;
  std::string say;
};

// The answer's JSON text, as common/cockpit writes it.
std::string AnswerText(const Draft& draft);

// One family each. Nullopt: this draw cannot be said (a value out of range, say); draw again.
std::optional<Draft> DraftSlot(Composer* composer);
std::optional<Draft> DraftImplicit(Composer* composer);
std::optional<Draft> DraftMulti(Composer* composer);
std::optional<Draft> DraftFollowup(Composer* composer);
std::optional<Draft> DraftArithmetic(Composer* composer);
std::optional<Draft> DraftScope(Composer* composer);

}  // namespace updraft::cockpit

#endif  // UPDRAFT_DEPLOY_TRAIN_COCKPIT_DRAFT_H_
