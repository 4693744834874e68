#include "deploy/calibrate/answer_store.h"

#include <algorithm>
#include <cmath>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>
#include <vector>

namespace updraft {
namespace {

using nlohmann::json;

constexpr std::string_view kKind = "own answers";

json EvidenceToJson(const std::vector<TokenEvidence>& evidence) {
  json list = json::array();
  for (const TokenEvidence& token : evidence) {
    list.push_back({token.exit_layer, token.top_prob, token.margin, token.entropy, token.logprob, token.text_offset});
  }
  return list;
}

LocalAnswer FromJson(const json& object) {
  LocalAnswer answer;
  answer.text = object.at("text").get<std::string>();
  answer.finished = object.at("finished").get<bool>();
  if (object.contains("end_token")) answer.end_token = object["end_token"].get<int32_t>();
  answer.prompt_tokens = object.at("prompt_tokens").get<std::vector<int32_t>>();
  answer.tokens = object.at("tokens").get<std::vector<int32_t>>();
  for (const json& token : object.at("evidence")) {
    answer.evidence.push_back({.exit_layer = token.at(0).get<int32_t>(),
                               .top_prob = token.at(1).get<float>(),
                               .margin = token.at(2).get<float>(),
                               .entropy = token.at(3).get<float>(),
                               .logprob = token.at(4).get<float>(),
                               .text_offset = token.at(5).get<uint32_t>()});
  }
  answer.prompt = {.n_prompt_tokens = static_cast<int>(answer.prompt_tokens.size()),
                   .n_turns = object.at("n_turns").get<int>(),
                   .n_digits = object.at("n_digits").get<int>()};
  answer.n_layer = object.at("n_layer").get<int>();
  return answer;
}

bool IsWhole(const LocalAnswer& answer) {
  const auto is_number = [](const TokenEvidence& token) {
    return std::isfinite(token.top_prob) && std::isfinite(token.margin) && std::isfinite(token.entropy) &&
           std::isfinite(token.logprob);
  };
  return answer.n_layer > 0 && answer.evidence.size() == answer.tokens.size() + (answer.end_token ? 1 : 0) &&
         std::all_of(answer.evidence.begin(), answer.evidence.end(), is_number);
}

}  // namespace

std::optional<LocalAnswer> StoredAnswers::Find(int i) {
  const auto found = progress_->Find(kKind, keys_[static_cast<size_t>(i)]);
  if (!found) return std::nullopt;
  try {
    LocalAnswer answer = FromJson(json::parse(*found));
    return IsWhole(answer) ? std::optional(std::move(answer)) : std::nullopt;
  } catch (const json::exception&) {
    return std::nullopt;
  }
}

absl::Status StoredAnswers::Keep(int i, const LocalAnswer& answer) {
  json object = {{"text", answer.text},
                 {"finished", answer.finished},
                 {"prompt_tokens", answer.prompt_tokens},
                 {"tokens", answer.tokens},
                 {"evidence", EvidenceToJson(answer.evidence)},
                 {"n_turns", answer.prompt.n_turns},
                 {"n_digits", answer.prompt.n_digits},
                 {"n_layer", answer.n_layer}};
  if (answer.end_token) object["end_token"] = *answer.end_token;
  return progress_->Add(kKind, keys_[static_cast<size_t>(i)],
                        object.dump(-1, ' ', false, json::error_handler_t::replace));
}

}  // namespace updraft
