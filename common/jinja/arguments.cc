#include "common/jinja/arguments.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_format.h"

namespace updraft::jinja {

Bound::Bound(Interpreter& in, std::string_view what, Arguments arguments, std::initializer_list<const char*> parameters,
             size_t n_required)
    : in_(in), what_(what), parameters_(parameters), values_(parameters.size()), given_(parameters.size(), false) {
  if (arguments.positional.size() > parameters_.size()) {
    in.Fail(absl::StrFormat("%s: expected at most %u arguments, found %u", what_, parameters_.size(),
                            arguments.positional.size()));
    return;
  }
  for (size_t i = 0; i < arguments.positional.size(); ++i) {
    values_[i] = std::move(arguments.positional[i]);
    given_[i] = true;
  }
  for (auto& [name, value] : arguments.named) {
    const auto at = std::find(parameters_.begin(), parameters_.end(), name);
    const auto i = static_cast<size_t>(at - parameters_.begin());
    if (at == parameters_.end() || given_[i]) {
      in.Fail(absl::StrFormat("%s: expected no%s argument named '%s', found one", what_,
                              at == parameters_.end() ? "" : " second", name.substr(0, 40)));
      return;
    }
    values_[i] = std::move(value);
    given_[i] = true;
  }
  for (size_t i = 0; i < n_required; ++i) {
    if (!given_[i]) in.Fail(absl::StrFormat("%s: expected a value for '%s', found none", what_, parameters_[i]));
  }
}

int64_t Bound::Integer(size_t i, int64_t otherwise) const {
  if (!has_value(i)) return otherwise;
  if (values_[i].is_number() && !values_[i].is_float()) return values_[i].integer();
  in_.Fail(absl::StrFormat("%s: expected an integer for '%s', found %s", what_, parameters_[i], KindName(values_[i])));
  return otherwise;
}

SourcedText Bound::Text(size_t i, std::string_view otherwise) const {
  if (!given_[i]) return SourcedText(std::string(otherwise));
  if (values_[i].is_text()) return values_[i].text();
  in_.Fail(absl::StrFormat("%s: expected a string for '%s', found %s", what_, parameters_[i], KindName(values_[i])));
  return {};
}

}  // namespace updraft::jinja
