#include "common/routing/names.h"

#include <array>
#include <cstddef>

namespace updraft {
namespace {

// ---- The names ----------------------------------------------------------------------------------------------------
// Switches without a default: a value that was added without a name does not compile (-Wswitch).

constexpr std::string_view Named(Stage value) {
  switch (value) {
    case Stage::kBefore:
      return "before";
    case Stage::kDuring:
      return "during";
    case Stage::kAfter:
      return "after";
  }
  return "";
}

constexpr std::string_view Named(PolicyMode value) {
  switch (value) {
    case PolicyMode::kAuto:
      return "auto";
    case PolicyMode::kLocal:
      return "local";
    case PolicyMode::kUpstream:
      return "upstream";
  }
  return "";
}

constexpr std::string_view Named(Decision value) {
  switch (value) {
    case Decision::kKeep:
      return "keep";
    case Decision::kHandOver:
      return "hand-over";
    case Decision::kVerify:
      return "verify";
    case Decision::kStreamUpstream:
      return "stream-upstream";
    case Decision::kDefer:
      return "defer";
  }
  return "";
}

constexpr std::string_view Named(Way value) {
  switch (value) {
    case Way::kUnspecified:
      return "unspecified";
    case Way::kLocal:
      return "local";
    case Way::kDraftThenDecide:
      return "draft-then-decide";
    case Way::kStreamUp:
      return "stream-up";
    case Way::kDraftVerify:
      return "draft-verify";
    case Way::kDefer:
      return "defer";
  }
  return "";
}

constexpr std::string_view Named(Failure value) {
  switch (value) {
    case Failure::kLinkDead:
      return "link-dead";
    case Failure::kOverloaded:
      return "overloaded";
    case Failure::kRefusedThis:
      return "refused-this";
    case Failure::kSlow:
      return "slow";
    case Failure::kBroken:
      return "broken";
  }
  return "";
}

constexpr std::string_view Named(Disposition value) {
  switch (value) {
    case Disposition::kUnspecified:
      return "unspecified";
    case Disposition::kAct:
      return "act";
    case Disposition::kRefuse:
      return "refuse";
    case Disposition::kClarify:
      return "clarify";
  }
  return "";
}

constexpr std::string_view Named(ReasonCode value) {
  switch (value) {
    case ReasonCode::kNone:
      return "none";
    case ReasonCode::kPolicyLocal:
      return "policy-local";
    case ReasonCode::kPolicyUpstream:
      return "policy-upstream";
    case ReasonCode::kDoesNotFit:
      return "does-not-fit";
    case ReasonCode::kDraftFirst:
      return "draft-first";
    case ReasonCode::kExpectedGain:
      return "expected-gain";
    case ReasonCode::kLocalTooSlow:
      return "local-too-slow";
    case ReasonCode::kConfident:
      return "confident";
    case ReasonCode::kUnsure:
      return "unsure";
    case ReasonCode::kNoUpstream:
      return "no-upstream";
    case ReasonCode::kTooManyHops:
      return "too-many-hops";
    case ReasonCode::kUnreachable:
      return "unreachable";
    case ReasonCode::kBusy:
      return "busy";
    case ReasonCode::kTooSlow:
      return "too-slow";
    case ReasonCode::kTooLate:
      return "too-late";
  }
  return "";
}

// ---- Tables of them -----------------------------------------------------------------------------------------------

constexpr size_t kMostValues = 256;  // of one byte

template <typename E>
constexpr size_t CountOf() {
  size_t n = 0;
  for (size_t i = 0; i < kMostValues; ++i) n += Named(static_cast<E>(i)).empty() ? 0 : 1;
  return n;
}

template <typename E>
constexpr std::array<E, CountOf<E>()> ValuesOf() {
  std::array<E, CountOf<E>()> values{};
  for (size_t i = 0; i < values.size(); ++i) values[i] = static_cast<E>(i);
  return values;
}

template <typename E>
constexpr std::array<E, CountOf<E>()> kValues = ValuesOf<E>();

}  // namespace

template <typename E>
std::string_view NameOf(E value) {
  static_assert(!Named(kValues<E>.back()).empty(), "the values are 0, 1, 2, ...");
  const std::string_view name = Named(value);
  return name.empty() ? "unknown" : name;
}

template <typename E>
std::optional<E> FromName(std::string_view name) {
  for (const E value : kValues<E>) {
    if (Named(value) == name) return value;
  }
  return std::nullopt;
}

template <typename E>
std::span<const E> AllOf() {
  return kValues<E>;
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
