// Asking back: an answer that sets nothing and names what could have been meant.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace updraft::cockpit {

inline constexpr size_t kMaxAlternatives = 3;

// What carrying an answer out would come to.
enum class Effect : uint8_t {
  kNone,     // nothing is set or called: something is only told, or it is no answer of the task at all
  kAct,      // something is set or called, all of it legal (CheckLegal)
  kRefuse,   // it says that it does nothing
  kAsk,      // it asks back
  kIllegal,  // it would set or call what cannot be
};
// Any bytes; any thread.
Effect EffectOf(std::string_view answer);

struct AskedBack {
  std::string text;  // the answer, JSON (answer.h)
  std::vector<std::string>
      alternatives;  // as JSON answers; 1 to kMaxAlternatives. None: nothing was worth offering, and text refuses
};

// candidates: answers of a model to one request, its own choice first, then any number of samples. The alternatives are
// those that act or refuse, each meaning once (CanonicalSettings), without working-out: the first one's, then those of
// most candidates. request: what the user said last, in whose language is asked;
// empty: not known, then the candidates' own.
AskedBack AskBack(std::span<const std::string> candidates, std::string_view request);

}  // namespace updraft::cockpit
