// Answers under random schedules of events on a fake clock: whatever comes in whichever order, the ledger keeps its
// invariants and the answer ends once. No thread, no link, no model.
#include "edge/answer/answer.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <deque>
#include <optional>
#include <random>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "tests/edge/answer/fake_host.h"

namespace updraft {
namespace {

using testing::FakeHost;

constexpr int kVocab = 100;
// As a piece of an answer would be: later than all others.
constexpr char kQuestion[] = "q999999 ";

// Plays worker, upstream and reader by a seed, and checks what the answer wants of them.
class Schedule {
 public:
  explicit Schedule(uint32_t seed) : rng_(seed) {
    tier_.name = "edge";
    const bool has_upstream = !OneIn(4);
    tier_.vocab_size = kVocab;
    tier_.max_sequence_tokens = OneIn(6) ? 24 : 4096;
    tier_.tokenizer_fingerprint = "ours";
    tier_.adds_space_prefix = OneIn(4);
    tier_.acts = OneIn(3);
    RoutingPolicy policy;
    policy.confidence_threshold = Below(5) / 4.0;
    policy.mode = OneIn(5) ? PolicyMode::kLocal : OneIn(4) ? PolicyMode::kUpstream : PolicyMode::kAuto;
    may_go_up_ = policy.mode != PolicyMode::kLocal && has_upstream;
    host_.emplace(policy, has_upstream ? 1 : 0);
    host_->ids_agree = OneIn(2);
    host_->encode_fails = OneIn(8);
    host_->verdict.disposition = Disposition::kAct;
    host_->verdict.doubtful = OneIn(2);
    host_->question = kQuestion;
    if (has_upstream && OneIn(4)) {
      host_->session().OnFailure(0, Failure::kLinkDead, kUnknown, now_.seconds());
    }
    answer_.emplace(&tier_, &*host_, MakeAsked(seed, policy.mode));
    reader_takes_ = OneIn(4) ? Below(6) + 1 : 1 << 20;
  }

  void Run() {
    if (OneIn(20)) Deliver(Interrupt{absl::UnavailableError("shutting down")});  // before it was taken in
    Deliver(OneIn(20) ? Event(Refused{absl::ResourceExhaustedError("full")}) : Event(Admitted()));
    for (int i = 0; i < 10000 && !answer_->ended() && !::testing::Test::HasFailure(); ++i) {
      now_ = now_ + absl::Milliseconds(Below(5));
      if (OneIn(60))
        Deliver(Interrupt{OneIn(2) ? absl::CancelledError("gone") : absl::UnavailableError("shutting down")});
      if (answer_->ended()) break;
      ASSERT_TRUE(local_ || call_) << "not ended, and nothing goes on";
      local_ ? AdvanceLocal() : AdvanceUpstream();
    }
    ASSERT_TRUE(answer_->ended()) << "it never ended";
    EXPECT_EQ(n_ends_, 1);
    // What comes late, or twice, finds nobody.
    for (const Event& event : {Event(Admitted()), Event(Interrupt{}), Event(LocalStopped()), Event(UpstreamEnded())}) {
      EXPECT_TRUE(answer_->On(event, now_).empty());
    }
  }

  const std::string& given() const { return given_; }
  const absl::Status& status() const { return status_; }
  int n_writers() const { return n_writers_; }

 private:
  struct Local {
    int n_prompt_pieces = 0;
    int n_left = 0;
    enum { kQueued, kRunning } state = kQueued;
    bool stopping = false;
  };
  struct Call {
    int n_left = 0;
    enum { kWriting, kDone, kWithoutDone } state = kWriting;
    bool cancelled = false;
    absl::Status end;
  };

  int Below(int n) { return static_cast<int>(rng_() % static_cast<uint32_t>(n)); }
  bool OneIn(int n) { return Below(n) == 0; }

  Asked MakeAsked(uint32_t seed, PolicyMode mode) {
    Asked asked;
    asked.arrived = now_;
    asked.mode = mode;
    asked.max_tokens = Below(30) + 1;
    asked.fits_locally = !OneIn(8);
    asked.prompt.tokens.assign(static_cast<size_t>(Below(10) + 1), 5);
    asked.prompt.at_text_start = OneIn(2);
    asked.request.set_request_id(absl::StrCat("r", seed));
    asked.request.set_max_tokens(asked.max_tokens);
    asked.request.set_include_evidence(OneIn(3));
    if (OneIn(4)) {
      asked.request.mutable_tokens()->add_ids(5);
      for (int i = Below(3); i > 0; --i) asked.request.add_accepted_prefix(6);
    } else if (OneIn(2)) {
      asked.request.mutable_conversation()->add_messages()->set_content("x");
    } else {
      asked.request.set_prompt("x");
    }
    if (OneIn(6)) asked.deadline = now_ + absl::Milliseconds(Below(200) - 10);
    return asked;
  }

  // Nobody gets a part of it.
  bool Holds() const {
    return tier_.acts && !answer_->asked().request.has_prompt() && !upstream_wrote_ &&
           answer_->ledger().accepted_prefix().empty();
  }

  // ---- The answer's side ----
  void Deliver(const Event& event) {
    const std::vector<Ledger::Entry> before = answer_->ledger().entries();
    const std::string given_before = given_;
    Actions actions = answer_->On(event, now_);
    for (Action& action : actions) {
      EXPECT_EQ(n_ends_, 0) << "an action after the end";
      std::visit([this](auto& a) { Carry(a); }, action);
    }
    if (interrupted_) {
      EXPECT_EQ(given_, given_before) << "nobody wants it any more";
    }
    interrupted_ = interrupted_ || std::holds_alternative<Interrupt>(event);
    CheckLedger(before);
    CheckGiven();
    while (!posted_.empty()) {
      const Event next = posted_.front();
      posted_.pop_front();
      Deliver(next);
    }
  }

  void CheckLedger(const std::vector<Ledger::Entry>& before) {
    const Ledger& ledger = answer_->ledger();
    EXPECT_EQ(given_, ledger.Text()) << "all that is decided is given, in order, once";
    EXPECT_EQ(ledger.given_bytes(), given_.size());
    bool undecided = false;
    n_writers_ = static_cast<int>(ledger.Spans().size());
    for (size_t i = 0; i < ledger.entries().size(); ++i) {
      const Ledger::Entry& entry = ledger.entries()[i];
      EXPECT_FALSE(entry.drafted_by.empty());
      EXPECT_TRUE(entry.decided_by.empty() || !undecided) << "a decided entry after an undecided one";
      if (entry.decided_by.empty()) undecided = true;
      if (i >= before.size() || before[i].decided_by.empty()) continue;
      EXPECT_EQ(entry.drafted_by, before[i].drafted_by) << "one writer per entry";
      EXPECT_EQ(entry.decided_by, before[i].decided_by);
      EXPECT_EQ(entry.bytes.substr(0, before[i].bytes.size()), before[i].bytes) << "what stands only grows";
    }
  }

  // What the reader has, as a person would read it: pieces in the order in which they were written, none twice, and
  // where upstream wrote, nothing of the draft that was handed over.
  void CheckGiven() const {
    int last = -1, first_from_above = -1;
    std::vector<int> written_here;
    for (const absl::string_view piece : absl::StrSplit(given_, ' ', absl::SkipEmpty())) {
      int number = -1;
      ASSERT_TRUE(absl::SimpleAtoi(piece.substr(1), &number)) << given_;
      EXPECT_GT(number, last) << given_;
      last = number;
      if (piece[0] == 'c' && first_from_above < 0) first_from_above = number;
      if (piece[0] == 'e') written_here.push_back(number);
    }
    if (Holds() && n_ends_ == 0) {
      EXPECT_EQ(given_, "") << "half of an answer that acts";
    }
    for (const int number : written_here) EXPECT_GT(number, first_from_above) << "of the withdrawn draft: " << given_;
    const int n_prefix = static_cast<int>(answer_->ledger().accepted_prefix().size());
    EXPECT_LE(n_from_above_, std::max(answer_->asked().max_tokens, n_prefix))
        << "upstream wrote more than was asked for";
  }

  void Carry(const GiveChunk& give) {
    given_ += give.chunk.text();
    given_ids_.insert(given_ids_.end(), give.chunk.tokens().begin(), give.chunk.tokens().end());
    if (call_) {
      upstream_wrote_ = true;
      n_from_above_ = static_cast<int>(answer_->ledger().accepted_prefix().size()) + answer_->ledger().given_tokens();
    }
    EXPECT_FALSE(give.chunk.tier().empty());
    for (const int32_t id : give.chunk.tokens()) EXPECT_LT(id, kVocab) << "an id that is none of ours";
    if (--reader_takes_ == 0) posted_.push_back(Interrupt{absl::CancelledError("gone")});
  }
  void Carry(const StartLocal& start) {
    EXPECT_FALSE(local_) << "two local runs";
    EXPECT_FALSE(call_) << "the call has not let go";
    EXPECT_TRUE(answer_->asked().fits_locally);
    EXPECT_TRUE(!complete_here_ || upstream_wrote_) << "the answer was whole already";
    complete_here_ = false;
    if (start.so_far.given_bytes) {
      std::vector<int32_t> accepted = answer_->ledger().accepted_prefix();
      accepted.insert(accepted.end(), given_ids_.begin(), given_ids_.end());
      if (Holds()) {
        EXPECT_EQ(start.so_far.tokens, answer_->ledger().AllIds()) << "it goes on after the draft that nobody has seen";
        EXPECT_EQ(*start.so_far.given_bytes, answer_->ledger().AllText().size());
      } else {
        EXPECT_EQ(start.so_far.tokens, accepted) << "it goes on after the very tokens that were given";
        EXPECT_EQ(*start.so_far.given_bytes, given_.size());
      }
    } else {
      EXPECT_FALSE(answer_->ledger().ids_known());
    }
    const size_t n_answer = start.so_far.tokens.size();
    EXPECT_TRUE(n_answer == answer_->ledger().accepted_prefix().size() ||
                answer_->asked().prompt.tokens.size() + n_answer < static_cast<size_t>(tier_.max_sequence_tokens));
    local_ = Local{.n_prompt_pieces = Below(3) + 1, .n_left = Below(20) + 1};
  }
  void Carry(const StopLocal&) {
    ASSERT_TRUE(local_) << "nothing to stop";
    local_->stopping = true;
  }
  void Carry(const CallUpstream& call) {
    EXPECT_FALSE(call_) << "two calls";
    EXPECT_FALSE(local_) << "the run has not let go";
    EXPECT_TRUE(may_go_up_) << "nothing may leave this tier";
    EXPECT_EQ(given_, "") << "what was given cannot be replaced";
    EXPECT_EQ(call.request.hops(), answer_->asked().request.hops() + 1);
    const absl::Status ends[] = {absl::OkStatus(),
                                 absl::OkStatus(),
                                 absl::OkStatus(),
                                 absl::UnavailableError("gone"),
                                 absl::FailedPreconditionError("fingerprints differ"),
                                 absl::ResourceExhaustedError("full"),
                                 absl::InternalError("broken")};
    call_ = Call{.n_left = Below(12), .end = ends[Below(7)]};
    if (!call_->end.ok() || OneIn(8)) call_->state = Call::kWithoutDone;
  }
  void Carry(const CancelUpstream&) {
    ASSERT_TRUE(call_) << "nothing to cancel";
    call_->cancelled = true;
  }
  void Carry(const ForgetVocabulary&) { host_->ids_agree = false; }
  void Carry(const EndAnswer& end) {
    ++n_ends_;
    status_ = end.status;
    EXPECT_FALSE(local_) << "ended while a local run goes on";
    EXPECT_FALSE(call_) << "ended while a call goes on";
    int n_tokens = 0;
    for (const auto& span : end.done.provenance().spans()) n_tokens += span.n_tokens();
    EXPECT_EQ(n_tokens, end.done.usage().completion_tokens());
    EXPECT_THAT(std::string(end.status.message()), ::testing::Not(::testing::HasSubstr("without a reason")));
    if (Holds() && !end.status.ok()) {
      EXPECT_EQ(given_, "");
    }
    if (end.status.ok()) {
      EXPECT_NE(end.done.finish_reason(), v1::FINISH_REASON_UNSPECIFIED) << "whole, but it does not say why";
    }
  }

  // ---- The world's side ----
  void AdvanceLocal() {
    if (local_->stopping && (local_->state == Local::kQueued || OneIn(2))) return StopRun(absl::OkStatus());
    if (local_->state == Local::kQueued) {
      local_->state = Local::kRunning;
      return Deliver(LocalBegan{absl::Milliseconds(1)});
    }
    if (OneIn(80)) return StopRun(absl::ResourceExhaustedError("no room"));
    if (local_->n_prompt_pieces-- > 0) return Deliver(LocalAdvanced());
    LocalStep step;
    step.chunk.set_tier("edge");
    step.evidence = TokenEvidence{};
    step.evidence->top_prob = static_cast<float>(Below(101)) / 100.0f;
    if (--local_->n_left > 0) {
      step.chunk.add_tokens(Below(kVocab));
      if (!OneIn(4)) step.chunk.set_text(absl::StrCat("e", n_written_++, " "));
      return Deliver(step);
    }
    step.end = OneIn(2) ? AnswerEnd::kStop : AnswerEnd::kLength;
    if (OneIn(2)) step.chunk.add_tokens(1);
    complete_here_ = !local_->stopping;
    Deliver(step);
    StopRun(absl::OkStatus());
  }

  void StopRun(const absl::Status& status) {
    LocalStopped stopped;
    stopped.status = status;
    stopped.ran = absl::Milliseconds(3);
    stopped.decoded = absl::Milliseconds(2);
    local_.reset();
    Deliver(stopped);
  }

  void AdvanceUpstream() {
    if (call_->cancelled && OneIn(2)) return EndCall(absl::CancelledError("by us"));
    if (call_->n_left-- > 0) {
      UpstreamChunk event;
      if (!OneIn(8)) event.chunk.set_tier(OneIn(6) ? "box" : "cloud");
      for (int i = Below(4); i > 0; --i) event.chunk.add_tokens(Below(OneIn(10) ? 1 << 20 : kVocab));
      if (!OneIn(4)) event.chunk.set_text(absl::StrCat("c", n_written_++, " "));
      const Ledger& ledger = answer_->ledger();
      const int n_after =
          static_cast<int>(ledger.accepted_prefix().size()) + ledger.given_tokens() + event.chunk.tokens_size();
      // A chunk that brings nothing, a sign of life, is no more than what may be had.
      const bool too_many = event.chunk.tokens_size() > 0 && n_after > answer_->asked().max_tokens;
      const bool must_stop = too_many || call_->state == Call::kDone;
      Deliver(event);
      EXPECT_TRUE(!must_stop || call_->cancelled) << "an upstream that goes on for ever is to be stopped";
      return;
    }
    if (call_->state != Call::kWriting) return EndCall(call_->end);
    call_->state = Call::kDone;
    if (OneIn(4)) call_->n_left = 1;  // against the contract: it goes on after its last message
    constexpr v1::FinishReason kReasons[] = {v1::FINISH_REASON_STOP, v1::FINISH_REASON_LENGTH,
                                             v1::FINISH_REASON_UNSPECIFIED};
    Deliver(UpstreamDone{kReasons[Below(3)]});
  }

  void EndCall(absl::Status status) {
    call_.reset();
    Deliver(UpstreamEnded{.status = status, .bytes_up = 10, .bytes_down = 20});
  }

  std::mt19937 rng_;
  SteadyTime now_ = SteadyTime::FromOrigin(absl::Seconds(1000));
  TierFacts tier_;
  std::optional<FakeHost> host_;
  std::optional<Answer> answer_;
  bool may_go_up_ = false;
  std::optional<Local> local_;
  std::optional<Call> call_;
  std::deque<Event> posted_;
  int reader_takes_ = 0;
  int n_written_ = 0;
  std::string given_;
  std::vector<int32_t> given_ids_;
  int n_from_above_ = 0;  // tokens of the answer when upstream last wrote
  bool upstream_wrote_ = false;
  bool complete_here_ = false;  // the last local run wrote a whole answer
  bool interrupted_ = false;
  int n_writers_ = 0;
  int n_ends_ = 0;
  absl::Status status_;
};

TEST(AnswerTest, LedgerHoldsUnderRandomSchedules) {
  int n_ok = 0, n_error = 0, n_shared = 0;
  for (uint32_t seed = 1; seed <= 10000; ++seed) {
    SCOPED_TRACE(absl::StrCat("seed ", seed));
    Schedule schedule(seed);
    schedule.Run();
    if (::testing::Test::HasFailure()) return;
    ++(schedule.status().ok() ? n_ok : n_error);
    n_shared += schedule.n_writers() > 1 ? 1 : 0;
  }
  // The schedules reach what they are for.
  EXPECT_GT(n_ok, 3000);
  EXPECT_GT(n_error, 1000);
  EXPECT_GT(n_shared, 300) << "answers that two tiers wrote";
}

TEST(AnswerTest, SameEventsSameAnswer) {
  for (uint32_t seed = 1; seed <= 200; ++seed) {
    Schedule first(seed), second(seed);
    first.Run();
    second.Run();
    EXPECT_EQ(first.given(), second.given());
    EXPECT_EQ(first.status(), second.status());
  }
}

}  // namespace
}  // namespace updraft
