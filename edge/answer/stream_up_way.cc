// StreamUp: upstream writes the answer, within what the request allows; when it fails, the answer is finished here.
#include <algorithm>

#include "absl/strings/cord.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/serving/request_check.h"
#include "common/status/this_request.h"
#include "common/text/utf8.h"
#include "edge/answer/ways.h"

namespace updraft {
namespace {

// What an upstream may send, whatever it is. An honest one comes near none of these.
constexpr int kMaxAnswerTokens = 1 << 20;
constexpr size_t kMaxAnswerBytes = 16 << 20;
constexpr size_t kMaxEntries = 256;     // changes of writer, so that provenance stays short
constexpr size_t kMaxTokenBytes = 512;  // of text, so that an upstream that sends text alone has to end as well

// Cuts the chunk to what the answer may still have; false when there was more.
bool Bound(const AnswerContext& answer, v1::Chunk& chunk) {
  const Asked& asked = answer.asked();
  const int most = std::min(asked.max_tokens, kMaxAnswerTokens);
  const int n_before = static_cast<int>(answer.ledger().accepted_prefix().size()) + answer.ledger().given_tokens();
  const int room = std::max(0, most - n_before);
  // One token more than that: text of the accepted prefix that the tier below could not finish.
  const size_t most_bytes = std::min(kMaxAnswerBytes, (static_cast<size_t>(most) + 1) * kMaxTokenBytes);
  const size_t room_bytes = most_bytes - std::min(most_bytes, answer.ledger().given_bytes());
  const bool fits = chunk.tokens_size() <= room && chunk.text().size() <= room_bytes;
  if (!asked.request.include_evidence() || chunk.evidence_size() != chunk.tokens_size()) chunk.clear_evidence();
  for (v1::Evidence& evidence : *chunk.mutable_evidence()) {
    const int n_asked = asked.request.top_logprobs();
    if (evidence.top_size() > n_asked) evidence.mutable_top()->DeleteSubrange(n_asked, evidence.top_size() - n_asked);
  }
  if (chunk.tokens_size() > room) chunk.mutable_tokens()->Truncate(room);
  if (chunk.evidence_size() > room) chunk.mutable_evidence()->DeleteSubrange(room, chunk.evidence_size() - room);
  if (chunk.text().size() > room_bytes) chunk.set_text(text::BoundedUtf8(chunk.text(), room_bytes));
  return fits;
}

// What upstream failed with and this tier cannot make good. It answers others all the same, so whoever passed this one
// on must not leave it alone; the retry delay, if there is one, goes on.
absl::Status PassedOn(const absl::Status& why, const std::string& message) {
  absl::Status status(why.code(), message);
  why.ForEachPayload([&status](absl::string_view url, const absl::Cord& payload) { status.SetPayload(url, payload); });
  return OfThisRequestAlone(std::move(status));
}

class StreamUpWay final : public AnswerWay {
 public:
  explicit StreamUpWay(HandedDraft draft) : draft_(draft) {}

  enum class IdsAllowed : uint8_t { kYes, kNo };

  void Call(AnswerContext& answer, IdsAllowed ids_allowed) {
    called_ = answer.now();
    phase_ = Phase::kStreaming;
    answer.Do(CallUpstream{Request(answer, ids_allowed)});
  }

  Next On(const UpstreamChunk& event, AnswerContext& answer) override {
    // An upstream that goes on after its last message would otherwise keep the request for as long as it likes.
    if (phase_ == Phase::kOver) {
      answer.Do(CancelUpstream{});
    } else {
      Take(event.chunk, answer);
      if (phase_ == Phase::kOver) answer.Do(CancelUpstream{});
    }
    return nullptr;
  }

  Next On(const UpstreamDone& done, AnswerContext& answer) override {
    if (phase_ == Phase::kOver) {
      answer.Do(CancelUpstream{});
    } else {
      // An upstream that does not say why it has ended has ended all the same.
      const bool says_why = done.finish_reason != v1::FINISH_REASON_UNSPECIFIED;
      answer.set_finish(says_why ? done.finish_reason : v1::FINISH_REASON_STOP);
      answer.TakeVerdict(done);
      phase_ = Phase::kOver;
    }
    return nullptr;
  }

  Next On(const UpstreamEnded& ended, AnswerContext& answer) override {
    v1::Provenance& provenance = answer.provenance();
    provenance.set_bytes_up(provenance.bytes_up() + ended.bytes_up);
    provenance.set_bytes_down(provenance.bytes_down() + ended.bytes_down);
    provenance.set_upstream_ms(provenance.upstream_ms() + absl::ToDoubleMilliseconds(answer.now() - called_));
    if (!answer.Interrupted().ok()) {
      answer.EndInterrupted();
      return nullptr;
    }
    absl::Status status = ended.status;
    if (answer.finish() != v1::FINISH_REASON_UNSPECIFIED) {
      status = absl::OkStatus();  // the answer is whole, however the call ended after it
    } else if (status.ok()) {
      status = absl::UnavailableError("the stream ended without its last message");
    }
    if (status.ok()) {
      answer.End(status);
      return nullptr;
    }
    if (absl::IsFailedPrecondition(status) && sent_ == Sent::kIds && !answer.ledger().given_any()) {
      answer.Do(ForgetVocabulary{});
      Call(answer, IdsAllowed::kNo);
      return nullptr;
    }
    return FallBack(status, answer);
  }

  void OnInterrupt(AnswerContext& answer) override {
    phase_ = Phase::kOver;
    answer.Do(CancelUpstream{});
  }

 private:
  enum class Phase : uint8_t {
    kStreaming,
    kOver  // upstream's last message came, or all that the answer may have, or nobody wants more: what follows is not
           // read
  };
  enum class Sent : uint8_t {
    kText,
    kIds,      // in place of the text that the caller sent
    kOnlyIds,  // the caller sent ids: there is nothing else to send, and upstream refuses what is not its own
  };

  v1::GenerateRequest Request(const AnswerContext& answer, IdsAllowed ids_allowed) {
    const Asked& asked = answer.asked();
    const TierFacts& tier = answer.tier();
    v1::GenerateRequest request = asked.request;
    request.set_hops(request.hops() + 1);
    request.set_tier(v1::TIER_CHOICE_UNSPECIFIED);  // the caller chose among our tiers, not upstream's
    if (request.sampling().has_logit_bias() && request.sampling().logit_bias().tokenizer_fingerprint().empty()) {
      request.mutable_sampling()->mutable_logit_bias()->set_tokenizer_fingerprint(tier.tokenizer_fingerprint);
    }
    if (request.input_case() == v1::GenerateRequest::kTokens) {
      sent_ = Sent::kOnlyIds;
      ids_ = IdSpace::kOurs;
      return request;
    }
    // An upstream that refused our ids is not believed to write ours either, whatever it said of itself.
    const bool same_vocabulary = ids_allowed == IdsAllowed::kYes && answer.host().UpstreamReadsOurIds();
    ids_ = same_vocabulary ? IdSpace::kOurs : IdSpace::kForeign;
    const bool ids_say_all = asked.prompt.at_text_start || !tier.adds_space_prefix;
    sent_ = same_vocabulary && ids_say_all ? Sent::kIds : Sent::kText;
    if (sent_ == Sent::kText) return request;
    const bool raw = IsRaw(request);
    request.clear_parse_special();  // the ids are what it made of the text
    v1::TokenIds* tokens = request.mutable_tokens();
    tokens->set_tokenizer_fingerprint(tier.tokenizer_fingerprint);
    tokens->mutable_ids()->Add(asked.prompt.tokens.begin(), asked.prompt.tokens.end());
    tokens->set_n_turns(asked.prompt.features.n_turns);
    tokens->set_n_digits(asked.prompt.features.n_digits);
    tokens->set_raw(raw);
    // The chat format's own stop strings stay here: upstream adds them to ids itself (ServedModel::FromTokens), and
    // beside them the client's might be more than a request may have.
    return request;
  }

  void Take(v1::Chunk chunk, AnswerContext& answer) {
    chunk.set_tier(chunk.tier().empty() ? "upstream" : text::BoundedUtf8(chunk.tier(), kMaxIdBytes));
    if (!Bound(answer, chunk)) {
      answer.set_finish(v1::FINISH_REASON_LENGTH);
      phase_ = Phase::kOver;
    }
    const int n_tokens = chunk.tokens_size();
    const int vocab_size = answer.tier().vocab_size;
    const bool ids_known = std::all_of(chunk.tokens().begin(), chunk.tokens().end(),
                                       [vocab_size](int32_t id) { return id >= 0 && id < vocab_size; });
    if (!ids_known) ids_ = IdSpace::kForeign;
    if (n_tokens == 0 && chunk.text().empty()) return;
    // Text without ids cannot be gone on from by ids.
    IdSpace ids = n_tokens > 0 ? ids_ : IdSpace::kForeign;
    // Who changes its name with every chunk keeps the last one.
    const std::vector<Ledger::Entry>& entries = answer.ledger().entries();
    if (entries.size() >= kMaxEntries) {
      chunk.set_tier(entries.back().drafted_by);
      if (entries.back().id_space == IdSpace::kForeign) ids = IdSpace::kForeign;  // nor alternates ids and text
    }
    answer.ledger().Withdraw();  // the draft, if there was one: upstream has taken over
    answer.Write(std::move(chunk), n_tokens, ids);
  }

  Next FallBack(const absl::Status& why, AnswerContext& answer) {
    v1::Provenance& provenance = answer.provenance();
    const std::string cause =
        absl::StrFormat("upstream failed (%s: %s)", absl::StatusCodeToString(why.code()), std::string(why.message()));
    if (!answer.asked().fits_locally) {
      answer.End(PassedOn(why, cause));
      return nullptr;
    }
    provenance.set_degraded(true);
    if (answer.ledger().given_any()) {
      provenance.set_reason(absl::StrFormat("%s; %s: finished locally", provenance.reason(), cause));
    } else {
      provenance.set_decision(v1::DECISION_KIND_KEEP);
      provenance.set_reason(absl::StrFormat("%s; %s: answered locally", provenance.reason(), cause));
      answer.set_finish(FinishReasonOf(draft_.end));
      // The draft, if there is one. A whole one is judged: nobody stands above this tier now. A part of one stands as
      // it is, and is given unless it is held until it is whole.
      if (draft_.end != AnswerEnd::kOpen) {
        answer.Conclude(LastTier::kYes);
      } else if (!answer.Holds()) {
        answer.ledger().Decide(answer.tier().name);
        answer.Give();
      }
      if (draft_.end != AnswerEnd::kOpen) {
        answer.End(absl::OkStatus());
        return nullptr;
      }
    }
    return GoOnLocally(PassedOn(why, cause), answer);
  }

  static Next GoOnLocally(const absl::Status& why, AnswerContext& answer) {
    const Ledger& ledger = answer.ledger();
    AnswerSoFar so_far;
    so_far.n_prefix_tokens = static_cast<int>(ledger.accepted_prefix().size());
    if (answer.Holds()) {
      so_far.tokens = ledger.AllIds();
      so_far.given_bytes = ledger.AllText().size();
    } else if (ledger.ids_known()) {
      so_far.tokens = ledger.Ids();
      so_far.given_bytes = ledger.given_bytes();
    } else {
      // Upstream wrote in another vocabulary: go on from the text.
      const bool begins_text = answer.asked().prompt.at_text_start && ledger.accepted_prefix().empty();
      auto tokens = answer.host().Encode(ledger.Text(), begins_text);
      if (!tokens.ok()) {
        answer.End(tokens.status());
        return nullptr;
      }
      so_far.tokens = ledger.accepted_prefix();
      so_far.tokens.insert(so_far.tokens.end(), tokens->begin(), tokens->end());
    }
    const size_t n_tokens = answer.asked().prompt.tokens.size() + so_far.tokens.size();
    if (n_tokens >= static_cast<size_t>(answer.tier().max_sequence_tokens)) {
      answer.End(PassedOn(why, absl::StrCat(why.message(), "; the answer so far is more than this tier can hold")));
      return nullptr;
    }
    return BeginLocal(answer, StreamsBecause::kUpstreamFailed, std::move(so_far), StartLocal::Turn::kFirst);
  }

  const HandedDraft draft_;
  Phase phase_ = Phase::kStreaming;
  Sent sent_ = Sent::kText;
  IdSpace ids_ = IdSpace::kForeign;  // whose the ids of the next chunk are, as far as is known
  SteadyTime called_;
};

}  // namespace

AnswerWay::Next BeginStreamUp(AnswerContext& answer, HandedDraft draft) {
  auto way = std::make_unique<StreamUpWay>(draft);
  way->Call(answer, StreamUpWay::IdsAllowed::kYes);
  return way;
}

}  // namespace updraft
