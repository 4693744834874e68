#ifndef UPDRAFT_DEPLOY_TRAIN_RECIPE_FIELDS_H_
#define UPDRAFT_DEPLOY_TRAIN_RECIPE_FIELDS_H_

#include <nlohmann/json.hpp>
#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "deploy/train/cockpit/generator.h"
#include "deploy/train/cockpit/line_variation.h"

namespace updraft::train {

// Reads the fields of one object; the first error sticks. Finish refuses what nobody asked for.
class RecipeFields {
 public:
  RecipeFields(const nlohmann::json& object, std::string where) : object_(object), where_(std::move(where)) {
    if (!object_.is_object()) Fail(absl::StrCat(where_, ": expected an object"));
  }

  template <typename T>
  void Number(const char* key, double low, double high, T* out) {
    const nlohmann::json* value = Find(key);
    if (value == nullptr) return;
    if (!value->is_number()) return Fail(absl::StrCat(where_, ".", key, ": expected a number"));
    const double number = value->get<double>();
    if (!(number >= low && number <= high) || static_cast<double>(static_cast<T>(number)) != number) {
      return Fail(
          absl::StrCat(where_, ".", key, ": expected a number from ", low, " to ", high, ", found ", value->dump()));
    }
    *out = static_cast<T>(number);
  }
  void Text(const char* key, std::string* out) {
    const nlohmann::json* value = Find(key);
    if (value == nullptr) return;
    if (!value->is_string()) return Fail(absl::StrCat(where_, ".", key, ": expected a text"));
    *out = value->get<std::string>();
  }
  template <typename T>
  void Numbers(const char* key, double low, double high, std::vector<T>* out) {
    const nlohmann::json* value = Find(key);
    if (value == nullptr) return;
    if (!value->is_array()) return Fail(absl::StrCat(where_, ".", key, ": expected a list"));
    out->clear();
    for (const nlohmann::json& item : *value) {
      if (!item.is_number() || !(item.get<double>() >= low && item.get<double>() <= high)) {
        return Fail(absl::StrCat(where_, ".", key, ": expected numbers from ", low, " to ", high));
      }
      out->push_back(item.get<T>());
    }
  }
  const nlohmann::json* Find(const char* key) {
    known_.insert(key);
    if (!status_.ok()) return nullptr;
    const auto it = object_.find(key);
    return it == object_.end() ? nullptr : &*it;
  }
  void Fail(std::string message) {
    if (status_.ok()) status_ = absl::InvalidArgumentError("recipe: " + message);
  }
  void Fail(const char* key, std::string_view message) {
    Fail(absl::StrCat(where_, ".", key, ": ", std::string(message)));
  }
  void Absorb(const absl::Status& status) {
    if (status_.ok()) status_ = status;
  }
  absl::Status Finish() {
    if (!status_.ok()) return status_;
    for (const auto& [key, value] : object_.items()) {
      if (known_.count(key) == 0) {
        std::string names;
        for (const std::string& name : known_) absl::StrAppend(&names, names.empty() ? "" : ", ", name);
        Fail(absl::StrCat(where_, ": unknown field '", key, "'; known fields are ", names));
      }
    }
    return status_;
  }

 private:
  const nlohmann::json& object_;
  std::string where_;
  std::set<std::string> known_;
  absl::Status status_;
};

// {"slot": 2, "scope": 1}: shares of the families, 0 for those that are not named.
absl::Status ParseMix(const nlohmann::json& object, const std::string& where, cockpit::FamilyMix* mix);

// {"names": 0.75, "joined": 0.2}: shares of the ways to vary what was written, 0 for those that are not named.
absl::Status ParseVariation(const nlohmann::json& object, const std::string& where, cockpit::VariationShares* shares);

// "sheets": {name: how often each line counts, ...}; none: `sheets` stays as it is.
void ParseSheets(RecipeFields* fields, std::vector<std::pair<std::string, int>>* sheets);

}  // namespace updraft::train

#endif  // UPDRAFT_DEPLOY_TRAIN_RECIPE_FIELDS_H_
