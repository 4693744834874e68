#include "tests/edge/agent/recording_script.h"

#include <algorithm>
#include <iterator>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/text/detokenizer.h"
#include "tests/random.h"

namespace updraft::testing {
namespace {

class Random : public SplitMix {
 public:
  using SplitMix::SplitMix;
  int Below(int n) { return static_cast<int>(Next() % static_cast<uint64_t>(n)); }
  bool Percent(int p) { return Below(100) < p; }
  template <typename T, size_t n>
  const T& Of(const T (&values)[n]) {
    return values[Below(n)];
  }
};

const char* CodeName(grpc::StatusCode code) {
  switch (code) {
    case grpc::StatusCode::CANCELLED:
      return "cancelled";
    case grpc::StatusCode::UNKNOWN:
      return "unknown";
    case grpc::StatusCode::INVALID_ARGUMENT:
      return "invalid";
    case grpc::StatusCode::DEADLINE_EXCEEDED:
      return "late";
    case grpc::StatusCode::FAILED_PRECONDITION:
      return "precondition";
    case grpc::StatusCode::RESOURCE_EXHAUSTED:
      return "exhausted";
    case grpc::StatusCode::INTERNAL:
      return "internal";
    case grpc::StatusCode::UNAVAILABLE:
      return "unavailable";
    default:
      return "other";
  }
}

std::string RandomText(Random& random, int n_words) {
  constexpr const char* kWords[] = {"hello", "there", "warm",   "the",  "seat", "please",   "window", "in",
                                    "a",     "the",   "12.5",   "on",   "off",  "left",     "night",  "\u6211\u60f3",
                                    "it's",  "rain",  "\u20ac", "then", "stop", "hellhole", "7",      "tonight"};
  std::string text;
  for (int i = 0; i < n_words; ++i) text += (i > 0 ? " " : "") + std::string(random.Of(kWords));
  return text;
}

class Maker {
 public:
  Maker(uint64_t seed, const Tokenizers& tokenizers, const Fingerprints& fingerprints)
      : random_(seed), tokenizers_(tokenizers), fingerprints_(fingerprints) {}

  std::vector<RecordedGroup> Make() {
    constexpr void (Maker::*kKinds[])(RecordedGroup&) = {
        &Maker::Keep,       &Maker::HandOver, &Maker::Between,  &Maker::Upstream, &Maker::Local,    &Maker::HandOver,
        &Maker::NoUpstream, &Maker::Short,    &Maker::TooSlow,  &Maker::Between,  &Maker::BackOff,  &Maker::HandOver,
        &Maker::Other,      &Maker::Stalls,   &Maker::Short,    &Maker::Delay,    &Maker::Upstream, &Maker::Unknown,
        &Maker::Gone,       &Maker::Exits,    &Maker::HandOver, &Maker::Wrong,    &Maker::Cancels,  &Maker::Between,
        &Maker::Twice,      &Maker::Upstream, &Maker::Other,    &Maker::NoRoom,   &Maker::Draining, &Maker::Overflow};
    std::vector<RecordedGroup> groups;
    for (size_t i = 0; n_requests_ < kRecordedRequests; ++i) {
      RecordedGroup& group = groups.emplace_back();
      group.index = static_cast<int>(i);
      // By turns over the rounds, too: no kind has one vocabulary to itself.
      group.vocabulary = kVocabularies[(i + i / std::size(kKinds)) % kVocabularies.size()];
      group.policy.unreachable_retry_s = 0.0;  // no back-off, whatever failed before
      (this->*kKinds[i % std::size(kKinds)])(group);
    }
    return groups;
  }

 private:
  // ---- Kinds of groups --------------------------------------------------------------------------------------------

  void Keep(RecordedGroup& group) { Fill(group, "keep", 0.0, 8); }
  void HandOver(RecordedGroup& group) { Fill(group, "hand-over", 1.0, 14); }
  // The synthetic models' confidence lies between a hundredth and a tenth.
  void Between(RecordedGroup& group) {
    constexpr double kHysteresis[] = {0.0, 0.0, 0.004, 0.01}, kMargin[] = {0.0, 0.002, 0.01, 0.1};
    group.policy.hysteresis = random_.Of(kHysteresis);
    group.policy.during_margin = random_.Of(kMargin);
    Fill(group, "between", 0.012 + 0.004 * random_.Below(8), 14);
  }
  void Upstream(RecordedGroup& group) {
    group.policy.mode = PolicyMode::kUpstream;
    Fill(group, "mode-upstream", random_.Below(2), 10);
  }
  void Local(RecordedGroup& group) {
    group.policy.mode = PolicyMode::kLocal;
    Fill(group, "mode-local", 1.0, 6);
  }
  void NoUpstream(RecordedGroup& group) {
    group.above = RecordedGroup::Above::kNone;
    if (random_.Percent(30)) group.policy.mode = PolicyMode::kUpstream;
    if (random_.Percent(50)) group.kv_tokens = 64;
    Fill(group, "alone", random_.Below(2), 7);
  }
  void Short(RecordedGroup& group) {
    constexpr int kContexts[] = {0, 96, 160, 4096};
    group.kv_tokens = random_.Percent(50) ? 48 : 64;
    group.context_above = random_.Of(kContexts);
    words_ = 40;
    Fill(group, "short", random_.Below(2), 9);
    words_ = 10;
  }
  // What upstream wrote before it failed may leave no room to go on here.
  void Overflow(RecordedGroup& group) {
    group.policy.mode = PolicyMode::kUpstream;
    group.kv_tokens = 48;
    words_ = 14;
    Fill(group, "fills-up", 0.0, 6);
    words_ = 10;
    for (RecordedRequest& request : group.requests) MustEnd(request, 100, grpc::StatusCode::UNAVAILABLE, "late");
  }
  void TooSlow(RecordedGroup& group) {
    group.policy.max_upstream_wait_s = 0.0;
    if (random_.Percent(40)) group.kv_tokens = 48;
    Fill(group, "too-slow", random_.Below(2), 7);
  }
  void BackOff(RecordedGroup& group) {
    group.policy.unreachable_retry_s = 60.0;
    Fill(group, "back-off", 1.0, 5);
    MustEnd(group.requests[1], random_.Below(4), grpc::StatusCode::UNAVAILABLE, "gone");
  }
  void Delay(RecordedGroup& group) {
    Fill(group, "told-to-wait", 1.0, 6);
    for (int i : {1, 3}) {
      MustEnd(group.requests[i], 0, grpc::StatusCode::RESOURCE_EXHAUSTED, "full");
      group.requests[i].script.retry_delay_ms = i == 1 ? 0 : 3600000;
      absl::StrAppend(&group.requests[i].what, i == 1 ? " for-0-ms" : " for-an-hour");
    }
  }
  void Other(RecordedGroup& group) {
    group.above = RecordedGroup::Above::kOther;
    if (random_.Percent(30)) group.policy.mode = PolicyMode::kUpstream;
    Fill(group, "other-vocabulary", 1.0, 10);
  }
  void Unknown(RecordedGroup& group) {
    group.above = RecordedGroup::Above::kUnknown;
    Fill(group, "unknown-vocabulary", 1.0, 6);
  }
  void Gone(RecordedGroup& group) {
    group.above = RecordedGroup::Above::kGone;
    Fill(group, "gone", 1.0, 4);
  }
  void Exits(RecordedGroup& group) {
    group.exit_mode = random_.Percent(50) ? ExitMode::kLossless : ExitMode::kLossy;
    Fill(group, group.exit_mode == ExitMode::kLossy ? "exits-lossy" : "exits-lossless", 0.02, 8);
  }
  void Stalls(RecordedGroup& group) {
    group.stall_timeout_s = 3.0;
    Fill(group, "stalls", 1.0, 3);
    for (RecordedRequest& request : group.requests) {
      MustEnd(request, random_.Below(5), grpc::StatusCode::OK, "");
      request.script.end = Script::End::kStall;
      request.what = absl::StrCat("stall@", request.script.end_after);
    }
  }
  void NoRoom(RecordedGroup& group) {
    group.max_queued = 0;
    Fill(group, "queue-full", 0.0, 3);
  }
  void Draining(RecordedGroup& group) {
    group.draining = true;
    Fill(group, "draining", 0.0, 3);
  }
  void Cancels(RecordedGroup& group) { FillStalled(group, "cancels", Handling::kCancel, 5); }
  void Twice(RecordedGroup& group) { FillStalled(group, "twice", Handling::kPassTwice, 2); }

  void FillStalled(RecordedGroup& group, const char* kind, Handling handling, int n) {
    Fill(group, kind, 1.0, n);
    for (RecordedRequest& request : group.requests) {
      MustEnd(request, random_.Below(5), grpc::StatusCode::OK, "");
      request.script.end = Script::End::kStall;
      request.handling = handling;
      request.what = absl::StrCat(handling == Handling::kCancel ? "cancel@" : "twice@", request.script.end_after);
    }
    if (handling == Handling::kPassTwice) n_requests_ += n;  // ids follow one another, the second asking included
    int id = group.requests.front().id;
    for (RecordedRequest& request : group.requests) {
      SetId(request, id);
      id += handling == Handling::kPassTwice ? 2 : 1;
    }
  }

  // What CheckRequest, MakePrompt and the room refuse.
  void Wrong(RecordedGroup& group) {
    Fill(group, "wrong", 1.0, 12);
    for (RecordedRequest& wrong : group.requests) {
      v1::GenerateRequest& request = wrong.request;
      constexpr const char* kWhat[] = {"role",      "blank",        "no-input", "no-messages", "prefix",
                                       "prefix-id", "empty-prompt", "max",      "hops",        "stop",
                                       "stops",     "id",           "tenant",   "temperature", "top-p",
                                       "print",     "id-range",     "no-ids",   "far-too-long"};
      wrong.what = random_.Of(kWhat);
      if (wrong.what == "role") Chat(request)->set_role("king");
      if (wrong.what == "blank") Chat(request)->set_content(" \n");
      if (wrong.what == "no-input") request.clear_input();
      if (wrong.what == "no-messages") request.mutable_conversation()->clear_messages();
      if (wrong.what == "prefix") request.set_prompt("hello"), request.add_accepted_prefix(1);
      if (wrong.what == "prefix-id") Ids(group, request, {65, 66}), request.add_accepted_prefix(1 << 30);
      if (wrong.what == "empty-prompt") request.set_prompt(""), request.clear_accepted_prefix();
      if (wrong.what == "max") request.set_max_tokens(-1);
      if (wrong.what == "hops") request.set_hops(-1);
      if (wrong.what == "stop") request.add_stop("");
      if (wrong.what == "stops") {
        for (int i = 0; i < 17; ++i) request.add_stop("x");
      }
      if (wrong.what == "id") request.set_request_id(std::string(129, 'x'));
      if (wrong.what == "tenant") request.set_tenant("a b");
      if (wrong.what == "temperature") request.mutable_sampling()->set_temperature(-1.0f);
      if (wrong.what == "top-p") request.mutable_sampling()->set_top_p(1.5f);
      if (wrong.what == "print") Ids(group, request, {65}), request.mutable_tokens()->set_tokenizer_fingerprint("abc");
      if (wrong.what == "id-range") Ids(group, request, {-1});
      if (wrong.what == "no-ids") Ids(group, request, {});
      if (wrong.what == "far-too-long") {
        request.clear_accepted_prefix();
        request.set_prompt(std::string(100000, 'x'));
      }
    }
  }

  // ---- Requests ---------------------------------------------------------------------------------------------------

  void Fill(RecordedGroup& group, const std::string& kind, double threshold, int n) {
    group.kind = kind;
    group.policy.confidence_threshold = threshold;
    for (int i = 0; i < n && n_requests_ < kRecordedRequests; ++i) {
      RecordedRequest& request = group.requests.emplace_back();
      SetId(request, n_requests_++);
      FillRequest(group, request.request);
      if (random_.Percent(8)) request.deadline = AskedDeadline::kOver;
      if (random_.Percent(12)) request.deadline = AskedDeadline::kFar;
      FillScript(group, request);
      if (random_.Percent(10)) SetAccepts(request, random_.Below(6));
    }
  }

  static void SetId(RecordedRequest& request, int id) {
    request.id = id;
    request.request.set_request_id(absl::StrFormat("r%04d", id));
  }

  void FillRequest(const RecordedGroup& group, v1::GenerateRequest& request) {
    FillInput(group, request);
    constexpr int kMax[] = {1, 2, 5, 8, 9, 12, 12, 16, 20, 24};
    if (!random_.Percent(10)) request.set_max_tokens(random_.Of(kMax));
    constexpr const char* kStops[] = {"e", "a", "th", "\n", "he", " t", "</s>", "\u20ac", "q"};
    if (random_.Percent(30)) request.add_stop(random_.Of(kStops));
    if (random_.Percent(8)) request.add_stop(random_.Of(kStops));
    if (random_.Percent(3)) {
      while (request.stop_size() < 16) request.add_stop(absl::StrCat("never said ", request.stop_size()));
    }
    const int tier = random_.Below(100);
    if (tier < 10) request.set_tier(v1::TIER_CHOICE_LOCAL_ONLY);
    if (tier >= 85) request.set_tier(v1::TIER_CHOICE_UPSTREAM_ONLY);
    if (random_.Percent(25)) request.set_hops(random_.Below(6));
    request.set_include_evidence(random_.Percent(25));
    if (random_.Percent(5)) request.set_tenant("fleet");
    if (random_.Percent(15)) {
      request.mutable_sampling()->set_temperature(0.8f);
      request.mutable_sampling()->set_seed(random_.Below(1000));
    }
  }

  void FillInput(const RecordedGroup& group, v1::GenerateRequest& request) {
    const std::string text = RandomText(random_, 1 + random_.Below(words_));
    const int input = random_.Below(100);
    if (input < 50) {
      if (random_.Percent(20)) Say(request, "system", "be brief");
      if (random_.Percent(20)) Say(request, "user", "hello"), Say(request, "assistant", "hello there");
      Say(request, "user", text);
    } else if (input < 68) {
      request.set_prompt(text);
    } else {
      const text::Tokenizer& tokenizer = *TokenizerOf(group);
      Ids(group, request, *tokenizer.Encode(text));
      if (random_.Percent(60)) {
        const std::vector<int32_t> prefix = *tokenizer.Encode(RandomText(random_, 3), {.add_special = false});
        const int n = std::min(static_cast<int>(prefix.size()), 1 + random_.Below(8));
        request.mutable_accepted_prefix()->Add(prefix.begin(), prefix.begin() + n);
      }
    }
  }

  static void Say(v1::GenerateRequest& request, const char* role, const std::string& content) {
    v1::Message* message = request.mutable_conversation()->add_messages();
    message->set_role(role);
    message->set_content(content);
  }
  static v1::Message* Chat(v1::GenerateRequest& request) {
    request.clear_accepted_prefix();
    request.mutable_conversation()->clear_messages();
    Say(request, "user", "hello");
    return request.mutable_conversation()->mutable_messages(0);
  }
  void Ids(const RecordedGroup& group, v1::GenerateRequest& request, const std::vector<int32_t>& ids) {
    request.clear_accepted_prefix();
    request.mutable_tokens()->Clear();
    request.mutable_tokens()->set_tokenizer_fingerprint(fingerprints_[static_cast<size_t>(group.vocabulary)]);
    request.mutable_tokens()->mutable_ids()->Add(ids.begin(), ids.end());
  }

  // The request goes up and ends there as said, whatever was drawn for it.
  static void MustEnd(RecordedRequest& request, int after, grpc::StatusCode code, const std::string& message) {
    request.deadline = AskedDeadline::kNone;
    request.accepts = 1 << 30;
    request.refuses_ids = false;
    request.request.set_hops(0);
    request.request.set_tier(v1::TIER_CHOICE_UPSTREAM_ONLY);
    SetCut(request, std::min(after, ChunksWithin(request)), code, message);
  }

  // ---- What upstream does -----------------------------------------------------------------------------------------

  void FillScript(const RecordedGroup& group, RecordedRequest& request) {
    MakeChunks(group, request);
    Script& script = request.script;
    const int n = static_cast<int>(script.chunks.size());
    constexpr grpc::StatusCode kCodes[] = {grpc::StatusCode::UNAVAILABLE,        grpc::StatusCode::INTERNAL,
                                           grpc::StatusCode::RESOURCE_EXHAUSTED, grpc::StatusCode::FAILED_PRECONDITION,
                                           grpc::StatusCode::INVALID_ARGUMENT,   grpc::StatusCode::CANCELLED,
                                           grpc::StatusCode::DEADLINE_EXCEEDED,  grpc::StatusCode::UNKNOWN};
    constexpr const char* kMessages[] = {"scripted", "", "two\nlines \xff", "max_tokens: not today"};
    const int plan = random_.Below(100);
    if (plan < 30) {
      request.what = absl::StrCat("answer#", n);
      if (random_.Percent(20)) script.finish = v1::FINISH_REASON_LENGTH;
    } else if (plan < 35) {
      request.what = absl::StrCat("slow#", n);
      script.gap = absl::Milliseconds(2);
    } else if (plan < 60) {
      SetCut(request, random_.Below(n + 1), random_.Of(kCodes), random_.Of(kMessages));
    } else if (plan < 70) {
      SetCut(request, 0, random_.Of(kCodes), random_.Of(kMessages));
    } else if (plan < 78) {
      SetCut(request, random_.Below(n + 1), grpc::StatusCode::OK, "");
      script.end = Script::End::kNoDone;
      request.what = absl::StrCat("no-done@", script.end_after);
    } else if (plan < 84) {
      request.refuses_ids = true;
      request.what = absl::StrCat("text-only#", n);
    } else if (plan < 90) {
      const int after = random_.Below(n);
      constexpr int32_t kBad[] = {-5, 100000, 2000000000};
      script.chunks[after].add_tokens(random_.Of(kBad));
      request.what = absl::StrCat("unknown-id@", after);
      if (random_.Percent(50)) {
        SetCut(request, after + 1 + random_.Below(n - after), grpc::StatusCode::UNAVAILABLE, "scripted");
        request.what = absl::StrCat("unknown-id@", after, " cut@", script.end_after);
      }
    } else if (plan < 95) {
      for (v1::Chunk& chunk : script.chunks) chunk.clear_tokens(), chunk.clear_evidence();
      if (random_.Percent(50)) SetCut(request, random_.Below(n + 1), grpc::StatusCode::UNAVAILABLE, "scripted");
      request.what = absl::StrCat("no-ids ", request.what.empty() ? absl::StrCat("answer#", n) : request.what);
    } else {
      script.after_done.push_back(CloudChunk("more", {6}));
      request.what = absl::StrCat("after-done#", n);
    }
    StopWhereItIsCutOff(request);
  }

  static void SetCut(RecordedRequest& request, int after, grpc::StatusCode code, const std::string& message) {
    Script& script = request.script;
    script.after_done.clear();
    script.end = Script::End::kStatus;
    script.end_after = std::min(after, static_cast<int>(script.chunks.size()));
    script.status = grpc::Status(code, message);
    request.what = absl::StrCat("cut@", script.end_after, ":", CodeName(code));
  }

  // Pieces of an answer of this vocabulary, or of one that shares no id with it; now and then with evidence, a tier's
  // name of its own, or more than was asked for.
  void MakeChunks(const RecordedGroup& group, RecordedRequest& request) {
    const auto& tokenizer = TokenizerOf(group);
    const bool ours = group.above == RecordedGroup::Above::kSame;
    text::StreamDetokenizer detokenizer(tokenizer, {.at_text_start = request.request.has_conversation()});
    const int asked = request.request.max_tokens() > 0 ? request.request.max_tokens() : kRecordedDefaultTokens;
    int left = asked - request.request.accepted_prefix_size();
    left = random_.Percent(6) ? left + 3 : random_.Percent(50) ? left : std::min(left, 1 + random_.Below(8));
    const std::string tier = random_.Percent(10) ? "box" : "";
    while (left > 0 || request.script.chunks.empty()) {
      v1::Chunk& chunk = request.script.chunks.emplace_back();
      chunk.set_tier(tier);
      for (int i = 1 + random_.Below(3); i > 0 && (left > 0 || chunk.tokens_size() == 0); --i, --left) {
        const int32_t id = 3 + random_.Below(tokenizer->vocab_size() - 6);  // no control tokens
        chunk.mutable_text()->append(detokenizer.Push(id));
        chunk.add_tokens(ours ? id : 70000 + id);
        if (request.request.include_evidence()) chunk.add_evidence()->set_logprob(-0.5f);
      }
    }
  }

  // Chunks before the one that is more than was asked for.
  static int ChunksWithin(const RecordedRequest& request) {
    const int asked = request.request.max_tokens() > 0 ? request.request.max_tokens() : kRecordedDefaultTokens;
    int room = std::max(0, asked - request.request.accepted_prefix_size());
    int n = 0;
    for (const v1::Chunk& chunk : request.script.chunks) {
      room -= chunk.tokens_size();
      if (room < 0) break;
      ++n;
    }
    return n;
  }

  static int ChunksSent(const Script& script) {
    const int n = static_cast<int>(script.chunks.size());
    return script.end_after < 0 ? n : std::min(script.end_after, n);
  }

  // The agent ends a call of which it has enough. How much more arrives until then is chance, so nothing more is sent.
  static void StopWhereItIsCutOff(RecordedRequest& request) {
    const int within = ChunksWithin(request);
    if (ChunksSent(request.script) <= within) return;
    request.script.end_after = within + 1;
    request.script.end = Script::End::kStall;
    absl::StrAppend(&request.what, " too-many@", within);
  }

  // The same of a sink that refuses. Chunks without anything in them do not reach it.
  static void SetAccepts(RecordedRequest& request, int accepts) {
    Script& script = request.script;
    request.accepts = accepts;
    absl::StrAppend(&request.what, " takes", accepts);
    int n_taken = 0;
    for (int i = 0; i < ChunksSent(script); ++i) {
      if (script.chunks[i].text().empty() && script.chunks[i].tokens().empty()) continue;
      if (n_taken++ < accepts) continue;
      script.end_after = i + 1;
      script.end = Script::End::kStall;
      return;
    }
  }

  const std::shared_ptr<const text::Tokenizer>& TokenizerOf(const RecordedGroup& group) const {
    return tokenizers_[static_cast<size_t>(group.vocabulary)];
  }

  Random random_;
  const Tokenizers& tokenizers_;
  const Fingerprints& fingerprints_;
  int n_requests_ = 0;
  int words_ = 10;  // most words of a prompt
};

}  // namespace

std::vector<RecordedGroup> MakeRecording(uint64_t seed, const Tokenizers& tokenizers,
                                         const Fingerprints& fingerprints) {
  return Maker(seed, tokenizers, fingerprints).Make();
}

}  // namespace updraft::testing
