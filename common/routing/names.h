// The vocabulary of routing. Every value has exactly one name, in the one table of names.cc; logs, records, HTTP,
// metrics and reports use it, so that a value added here is known everywhere. What the wire calls them is in
// common/rpc/convert.h.
#pragma once

#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

namespace updraft {

// Of local generation.
enum class Stage : uint8_t { kBefore, kDuring, kAfter };

// kLocal: privacy or offline by choice; kUpstream: no local generation.
enum class PolicyMode : uint8_t { kAuto, kLocal, kUpstream };

// What becomes of a request, as its provenance says it: what DecisionOf(record) reads from a way and a stage.
enum class Decision : uint8_t { kKeep, kHandOver, kVerify, kStreamUpstream, kDefer };

// A way to answer. Handing over is no way of its own: it is how the second half of kDraftThenDecide may begin.
enum class Way : uint8_t { kUnspecified, kLocal, kDraftThenDecide, kStreamUp, kDraftVerify, kDefer };

// Why an upstream gave no answer. Only the first two say something of the requests that follow.
enum class Failure : uint8_t {
  kLinkDead,     // unreachable or stalled: left alone for a time that doubles, until it is seen again
  kOverloaded,   // its queue is full, or it shuts down: left alone for as long as it said
  kRefusedThis,  // this request and no other: too large, of another vocabulary, passed on in a circle
  kSlow,         // the deadline came first, or it was at it for too long
  kBroken        // it failed, or answered what cannot be
};

// What an answer is.
enum class Disposition : uint8_t { kUnspecified, kAct, kRefuse, kClarify };

// Why a way was chosen, and why another could not be.
enum class ReasonCode : uint8_t {
  kNone,  // of an option: nothing stands against it
  // ---- Why ----
  kPolicyLocal,     // the policy, or the caller, lets nothing leave this tier
  kPolicyUpstream,  // the policy, or the caller, wants no local generation
  kDoesNotFit,      // the prompt leaves no room for an answer on this tier
  kDraftFirst,      // nothing speaks against a local draft
  kExpectedGain,    // its words promise that upstream would do better (RoutingPolicy::router_gain)
  kLocalTooSlow,    // a local answer is predicted to miss the deadline
  kConfident,       // the draft's confidence reaches the threshold
  kUnsure,          // it does not
  // ---- What stands against an upstream ----
  kNoUpstream,   // none is configured
  kTooManyHops,  // too many tiers have passed the request on
  kUnreachable,  // it failed, and is left alone for a while
  kBusy,         // its queue was full, and it is left alone for as long as it asked
  kTooSlow,      // predicted to take longer than the policy allows
  kTooLate       // predicted to miss the deadline
};

// E: any of the enums above. NameOf a value that is none of E's (a damaged byte) is "unknown".
template <typename E>
std::string_view NameOf(E value);
template <typename E>
std::optional<E> FromName(std::string_view name);
// All values in ascending order.
template <typename E>
std::span<const E> AllOf();

}  // namespace updraft
