#include "common/routing/names.h"

#include <algorithm>
#include <array>
#include <utility>

namespace updraft {
namespace {

// Entry i names value i, which the static_assert below holds; a value that was added without a name is missed by
// names_test, which asks for each enum's last.
template <typename E, size_t N>
struct Table {
  std::array<E, N> values;
  std::array<std::string_view, N> names;
};

template <typename E, size_t N>
constexpr Table<E, N> MakeTable(const std::pair<E, std::string_view> (&entries)[N]) {
  Table<E, N> table{};
  for (size_t i = 0; i < N; ++i) {
    table.values[i] = entries[i].first;
    table.names[i] = entries[i].second;
  }
  return table;
}

template <typename E, size_t N>
constexpr bool InOrder(const Table<E, N>& table) {
  for (size_t i = 0; i < N; ++i) {
    if (static_cast<size_t>(table.values[i]) != i || table.names[i].empty()) return false;
  }
  return true;
}

template <typename E>
struct NamesOf;

// ---- The names ----------------------------------------------------------------------------------------------------

template <>
struct NamesOf<Stage> {
  static constexpr auto kTable =
      MakeTable<Stage>({{Stage::kBefore, "before"}, {Stage::kDuring, "during"}, {Stage::kAfter, "after"}});
};

template <>
struct NamesOf<PolicyMode> {
  static constexpr auto kTable = MakeTable<PolicyMode>(
      {{PolicyMode::kAuto, "auto"}, {PolicyMode::kLocal, "local"}, {PolicyMode::kUpstream, "upstream"}});
};

template <>
struct NamesOf<Decision> {
  static constexpr auto kTable = MakeTable<Decision>({{Decision::kKeep, "keep"},
                                                      {Decision::kHandOver, "hand-over"},
                                                      {Decision::kVerify, "verify"},
                                                      {Decision::kStreamUpstream, "stream-upstream"},
                                                      {Decision::kDefer, "defer"}});
};

template <>
struct NamesOf<Way> {
  static constexpr auto kTable = MakeTable<Way>({{Way::kUnspecified, "unspecified"},
                                                 {Way::kLocal, "local"},
                                                 {Way::kDraftThenDecide, "draft-then-decide"},
                                                 {Way::kStreamUp, "stream-up"},
                                                 {Way::kDraftVerify, "draft-verify"},
                                                 {Way::kDefer, "defer"}});
};

template <>
struct NamesOf<Failure> {
  static constexpr auto kTable = MakeTable<Failure>({{Failure::kLinkDead, "link-dead"},
                                                     {Failure::kOverloaded, "overloaded"},
                                                     {Failure::kRefusedThis, "refused-this"},
                                                     {Failure::kSlow, "slow"},
                                                     {Failure::kBroken, "broken"}});
};

template <>
struct NamesOf<Disposition> {
  static constexpr auto kTable = MakeTable<Disposition>({{Disposition::kUnspecified, "unspecified"},
                                                         {Disposition::kAct, "act"},
                                                         {Disposition::kRefuse, "refuse"},
                                                         {Disposition::kClarify, "clarify"}});
};

template <>
struct NamesOf<ReasonCode> {
  static constexpr auto kTable = MakeTable<ReasonCode>({{ReasonCode::kNone, "none"},
                                                        {ReasonCode::kPolicyLocal, "policy-local"},
                                                        {ReasonCode::kPolicyUpstream, "policy-upstream"},
                                                        {ReasonCode::kDoesNotFit, "does-not-fit"},
                                                        {ReasonCode::kDraftFirst, "draft-first"},
                                                        {ReasonCode::kLocalTooSlow, "local-too-slow"},
                                                        {ReasonCode::kConfident, "confident"},
                                                        {ReasonCode::kUnsure, "unsure"},
                                                        {ReasonCode::kNoUpstream, "no-upstream"},
                                                        {ReasonCode::kTooManyHops, "too-many-hops"},
                                                        {ReasonCode::kUnreachable, "unreachable"},
                                                        {ReasonCode::kTooSlow, "too-slow"},
                                                        {ReasonCode::kTooLate, "too-late"}});
};

}  // namespace

template <typename E>
std::string_view NameOf(E value) {
  constexpr auto& kNames = NamesOf<E>::kTable.names;
  static_assert(InOrder(NamesOf<E>::kTable));
  const auto i = static_cast<size_t>(value);
  return i < kNames.size() ? kNames[i] : "unknown";
}

template <typename E>
std::optional<E> FromName(std::string_view name) {
  constexpr auto& kNames = NamesOf<E>::kTable.names;
  const auto it = std::find(kNames.begin(), kNames.end(), name);
  if (it == kNames.end()) return std::nullopt;
  return NamesOf<E>::kTable.values[static_cast<size_t>(it - kNames.begin())];
}

template <typename E>
std::span<const E> AllOf() {
  return NamesOf<E>::kTable.values;
}

#define UPDRAFT_NAMED(E)                                   \
  template std::string_view NameOf<E>(E);                  \
  template std::optional<E> FromName<E>(std::string_view); \
  template std::span<const E> AllOf<E>()
UPDRAFT_NAMED(Stage);
UPDRAFT_NAMED(PolicyMode);
UPDRAFT_NAMED(Decision);
UPDRAFT_NAMED(Way);
UPDRAFT_NAMED(Failure);
UPDRAFT_NAMED(Disposition);
UPDRAFT_NAMED(ReasonCode);
#undef UPDRAFT_NAMED

}  // namespace updraft
