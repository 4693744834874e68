// A recording of what the agent does: a thousand scripted requests (recording_script.h) against a scripted upstream,
// and of each what its client and its upstream were told, compared with tests/golden/edge_agent.txt line by line. It
// stands for "nothing changed" when the agent is rewritten from within: only the public interface is used, and only
// MakeAgent and Deadline below know how an agent is put together.
//
// UPDRAFT_RECORD=FILE writes what is found to FILE instead of comparing (one process, all tests).
#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <map>
#include <regex>
#include <thread>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "common/clock/steady.h"
#include "common/gguf/reader.h"
#include "common/text/chat_template.h"
#include "common/text/utf8.h"
#include "tests/common/model/test_models.h"
#include "tests/edge/agent/agent_fixture.h"
#include "tests/edge/agent/recording_script.h"
#include "tests/edge/agent/sentence_piece_model.h"

namespace updraft::testing {
namespace {

constexpr int kSlices = 10;  // tests, so that shards share the work
constexpr int kThreads = 6;  // groups at a time: those that wait for a stall cost no processor
constexpr absl::Duration kPatience = absl::Seconds(60);

// ---- What depends on how an agent is made -------------------------------------------------------------------------

struct Tiers {
  std::unique_ptr<FakeUpstream> cloud;
  Metrics metrics{"edge", "recording"};
  std::unique_ptr<Agent> agent;  // goes first
};

std::unique_ptr<Tiers> MakeTiers(const RecordedGroup& group, const std::string& model_path,
                                 const std::string& fingerprint) {
  using Above = RecordedGroup::Above;
  auto tiers = std::make_unique<Tiers>();
  SessionOptions session_options;
  session_options.n_upstreams = group.above == Above::kNone ? 0 : 1;
  session_options.look_interval_s = 24 * 3600;
  auto session = std::make_shared<SharedSession>(session_options);
  std::unique_ptr<Upstream> upstream;
  if (group.above != Above::kNone) {
    tiers->cloud = std::make_unique<FakeUpstream>(group.above == Above::kSame    ? fingerprint
                                                  : group.above == Above::kOther ? "another fingerprint"
                                                                                 : "");
    tiers->cloud->context_length = group.context_above;
    if (group.above == Above::kGone) tiers->cloud->Stop();
    // Asked of itself once, and never again: its load and vocabulary would change under the requests.
    auto created = GrpcUpstream::Create(
        {.address = tiers->cloud->address(), .stall_timeout = absl::Seconds(group.stall_timeout_s)}, session);
    EXPECT_TRUE(created.ok()) << created.status();
    upstream = *std::move(created);
  }
  auto model = LocalModel::Load(
      {.path = model_path, .load = {.n_threads = 1}, .kv_tokens = group.kv_tokens, .exit_mode = group.exit_mode});
  EXPECT_TRUE(model.ok()) << model.status();
  AgentOptions options;
  options.policy = group.policy;
  options.max_queued = group.max_queued;
  options.max_tokens_default = kRecordedDefaultTokens;
  tiers->agent = std::make_unique<Agent>(options, *std::move(model), session, std::move(upstream), &tiers->metrics);
  // The first look says what upstream is, the second measures the link.
  if (group.above != Above::kNone && group.above != Above::kGone) {
    const SteadyTime patience = SteadyNow() + kPatience;
    while (tiers->agent->CurrentLink().samples() == 0 && SteadyNow() < patience) {
      absl::SleepFor(absl::Milliseconds(1));
    }
    EXPECT_GT(tiers->agent->CurrentLink().samples(), 0) << "upstream was not looked at";
  }
  if (group.draining) tiers->agent->BeginDrain();
  return tiers;
}

SteadyTime Deadline(AskedDeadline asked) {
  switch (asked) {
    case AskedDeadline::kNone:
      return SteadyTime::InfiniteFuture();
    case AskedDeadline::kFar:
      return SteadyNow() + absl::Hours(24);
    case AskedDeadline::kOver:
      return SteadyNow() - absl::Seconds(1);
  }
  return SteadyTime::InfiniteFuture();
}

// ---- One line per request -----------------------------------------------------------------------------------------

// FNV-1a, folded to 32 bits.
std::string Hash(const std::string& bytes) {
  uint64_t hash = 0xcbf29ce484222325u;
  for (const char c : bytes) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100000001b3u;
  return absl::StrFormat("%08x", static_cast<uint32_t>(hash ^ (hash >> 32)));
}

template <typename Ids>
std::string Described(const Ids& ids) {
  return absl::StrCat(ids.size(), "#", Hash(absl::StrJoin(ids, ",")));
}

std::string Described(const std::string& text) { return absl::StrCat(text.size(), "#", Hash(text)); }

// Times become T; those that are set by configuration stay ("tried again after 60.0 s", "the 10.00 s allowed").
std::string WithoutTimes(const std::string& reason) {
  static const std::regex times(R"((about|another|take|of|,) -?[0-9]+\.[0-9]+ s)");
  static const std::regex connection(R"(UNAVAILABLE: [^)]*(connect|Connect)[^)]*)");
  return std::regex_replace(std::regex_replace(reason, times, "$1 T s"), connection, "UNAVAILABLE: cannot connect");
}

std::string DescribeSent(const v1::GenerateRequest& sent) {
  std::string input;
  if (sent.has_tokens()) {
    input =
        absl::StrCat("ids", Described(sent.tokens().ids()), "/", sent.tokens().tokenizer_fingerprint().substr(0, 4));
  } else if (sent.has_prompt()) {
    input = absl::StrCat("prompt", Described(sent.prompt()));
  } else {
    std::string all;
    for (const v1::Message& message : sent.conversation().messages()) {
      absl::StrAppend(&all, message.role(), ":", message.content(), "\n");
    }
    input = absl::StrCat("chat", Described(all));
  }
  std::string line = absl::StrCat(input, " max", sent.max_tokens(), " h", sent.hops());
  if (sent.accepted_prefix_size() > 0) absl::StrAppend(&line, " pre", Described(sent.accepted_prefix()));
  if (sent.stop_size() > 0) absl::StrAppend(&line, " stop", Described(absl::StrJoin(sent.stop(), "|")));
  if (sent.include_evidence()) absl::StrAppend(&line, " ev");
  if (sent.tier() != 0) absl::StrAppend(&line, " tier", static_cast<int>(sent.tier()));
  if (sent.has_sampling()) {
    absl::StrAppendFormat(&line, " t%g/%d", sent.sampling().temperature(), sent.sampling().seed());
  }
  if (!sent.tenant().empty()) absl::StrAppend(&line, " tenant=", sent.tenant());
  return line;
}

std::string DescribeEnd(const CollectingSink& sink) {
  const v1::Done& done = sink.done();
  const v1::Provenance& provenance = done.provenance();
  const std::string text = sink.text();
  std::string line(absl::StatusCodeToString(sink.status().code()));
  if (!sink.status().ok()) absl::StrAppend(&line, " '", WithoutTimes(std::string(sink.status().message())), "'");
  absl::StrAppend(&line, " text=", Described(text), "'", absl::Utf8SafeCEscape(text::BoundedUtf8(text, 10)), "'");
  absl::StrAppend(&line, " ids=", Described(sink.tokens()), " chunks=", sink.chunks().size());
  std::vector<std::string> spans;
  for (const auto& [tier, n] : sink.spans()) spans.push_back(absl::StrCat(tier, "*", n));
  absl::StrAppend(&line, " spans=", absl::StrJoin(spans, "+"));
  int n_evidence = 0;
  double logprobs = 0.0;
  for (const v1::Chunk& chunk : sink.chunks()) {
    n_evidence += chunk.evidence_size();
    for (const v1::Evidence& evidence : chunk.evidence()) logprobs += evidence.logprob();
  }
  if (n_evidence > 0) absl::StrAppendFormat(&line, " ev=%d/%.1f", n_evidence, logprobs);
  absl::StrAppend(&line, " ", v1::DecisionKind_Name(provenance.decision()).substr(sizeof("DECISION_KIND_") - 1));
  if (provenance.degraded()) absl::StrAppend(&line, " degraded");
  absl::StrAppend(&line, " ", v1::FinishReason_Name(done.finish_reason()).substr(sizeof("FINISH_REASON_") - 1));
  absl::StrAppend(&line, " usage=", done.usage().prompt_tokens(), "+", done.usage().completion_tokens());
  absl::StrAppend(&line, " draft=", provenance.draft_tokens());
  if (provenance.mean_exit_layer() > 0) absl::StrAppendFormat(&line, "/%.2f", provenance.mean_exit_layer());
  absl::StrAppendFormat(&line, " conf=%.3f", provenance.confidence());
  if (provenance.bytes_up() + provenance.bytes_down() > 0) {
    absl::StrAppend(&line, " bytes=", provenance.bytes_up(), "/", provenance.bytes_down());
  }
  if (!provenance.reason().empty()) absl::StrAppend(&line, " '", WithoutTimes(provenance.reason()), "'");
  return line;
}

// ---- Playing a group ----------------------------------------------------------------------------------------------

class Player {
 public:
  Player(const RecordedGroup& group, const std::string& model_path, const std::string& fingerprint)
      : group_(group), tiers_(MakeTiers(group, model_path, fingerprint)) {
    if (tiers_->cloud == nullptr) return;
    tiers_->cloud->on_generate = [this](const v1::GenerateRequest& request) { return ScriptFor(request); };
  }

  std::vector<std::string> Play() {
    for (const RecordedRequest& request : group_.requests) PlayOne(request);
    const v1::RoutingSummary summary = tiers_->agent->Status().routing();
    lines_.push_back(absl::StrFormat("group %d %s: %d requests, %d kept, %d handed over, %d streamed, %d degraded",
                                     group_.index, group_.kind, summary.requests(), summary.kept(),
                                     summary.handed_over(), summary.streamed_upstream(), summary.degraded()));
    return std::move(lines_);
  }

 private:
  void PlayOne(const RecordedRequest& asked) {
    const size_t n_before = NumSent();
    auto sink = std::make_shared<CollectingSink>();
    sink->set_accepts(asked.accepts);
    {
      std::lock_guard lock(mu_);
      current_ = &asked;
      sink_ = sink;
    }
    const RequestHandle handle = tiers_->agent->Submit(asked.request, Deadline(asked.deadline), sink);
    std::shared_ptr<CollectingSink> second;
    if (asked.handling != Handling::kTake) {
      EXPECT_TRUE(sink->WaitForChunks(NumChunks(asked.script))) << asked.id;
      const SteadyTime patience = SteadyNow() + kPatience;
      while (NumSent() == n_before && SteadyNow() < patience) absl::SleepFor(absl::Milliseconds(1));
      if (asked.handling == Handling::kPassTwice) {
        second = std::make_shared<CollectingSink>();
        v1::GenerateRequest again = asked.request;
        again.set_hops(1);
        tiers_->agent->Submit(again, Deadline(asked.deadline), second);
        EXPECT_TRUE(second->Wait());
      }
      handle.Cancel();
    }
    EXPECT_TRUE(sink->Wait()) << "request " << asked.id << " (" << asked.what << ") has no end";
    Write(asked, asked.id, *sink, n_before);
    if (second != nullptr) Write(asked, asked.id + 1, *second, NumSent());
  }

  void Write(const RecordedRequest& asked, int id, const CollectingSink& sink, size_t n_before) {
    std::string line = absl::StrFormat("%04d %s %s%s: ", id, group_.kind, asked.what,
                                       asked.deadline == AskedDeadline::kOver  ? " over"
                                       : asked.deadline == AskedDeadline::kFar ? " far"
                                                                               : "");
    absl::StrAppend(&line, DescribeEnd(sink));
    if (tiers_->cloud != nullptr) {
      const std::vector<v1::GenerateRequest> sent = tiers_->cloud->requests();
      for (size_t i = n_before; i < sent.size(); ++i) absl::StrAppend(&line, " up[", DescribeSent(sent[i]), "]");
    }
    lines_.push_back(std::move(line));
  }

  size_t NumSent() const { return tiers_->cloud == nullptr ? 0 : tiers_->cloud->requests().size(); }

  // Those that reach the client.
  static int NumChunks(const Script& script) {
    const auto end = script.end_after < 0 ? script.chunks.end() : script.chunks.begin() + script.end_after;
    return static_cast<int>(std::count_if(script.chunks.begin(), end, [](const v1::Chunk& chunk) {
      return !chunk.text().empty() || !chunk.tokens().empty();
    }));
  }

  Script ScriptFor(const v1::GenerateRequest& request) {
    std::lock_guard lock(mu_);
    Script script = current_->script;
    if (current_->refuses_ids && request.has_tokens()) {
      script.end = Script::End::kStatus;
      script.end_after = 0;
      script.status = grpc::Status(grpc::StatusCode::FAILED_PRECONDITION, "tokens: no");
    }
    script.before_end = [sink = sink_, n = NumChunks(script)] {
      EXPECT_TRUE(sink->WaitForChunks(n)) << "what upstream wrote did not reach the client";
    };
    return script;
  }

  const RecordedGroup& group_;
  std::vector<std::string> lines_;
  std::mutex mu_;
  const RecordedRequest* current_ = nullptr;
  std::shared_ptr<CollectingSink> sink_;
  std::unique_ptr<Tiers> tiers_;  // goes first: calls in progress look at the above
};

// ---- The models ---------------------------------------------------------------------------------------------------

class RecordingTest : public ::testing::TestWithParam<int> {
 protected:
  static void SetUpTestSuite() {
    state_ = new State;
    const absl::Status byte_level =
        Synthesize(RecordingShape(512), kernels::DType::kF32, state_->files[0].path(), {.seed = 3, .n_threads = 1});
    ASSERT_TRUE(byte_level.ok()) << byte_level;
    const absl::Status sentence_piece = MakeSentencePieceModel(state_->files[1].path());
    ASSERT_TRUE(sentence_piece.ok()) << sentence_piece;
    for (size_t i = 0; i < state_->files.size(); ++i) {
      const auto file = gguf::File::Open(state_->files[i].path());
      ASSERT_TRUE(file.ok()) << file.status();
      const auto tokenizer = text::Tokenizer::FromGguf(*file);
      ASSERT_TRUE(tokenizer.ok()) << tokenizer.status();
      state_->tokenizers[i] = *tokenizer;
      const auto fingerprint = text::ChatFingerprint(**tokenizer, text::ChatTemplate::Choose(*file, ""));
      ASSERT_TRUE(fingerprint.ok()) << fingerprint.status();
      state_->fingerprints[i] = *fingerprint;
    }
    state_->groups = MakeRecording(kRecordingSeed, state_->tokenizers, state_->fingerprints);
  }
  static void TearDownTestSuite() { delete state_; }

  struct State {
    std::array<TempFile, kVocabularies.size()> files;
    Tokenizers tokenizers;
    Fingerprints fingerprints;
    std::vector<RecordedGroup> groups;
  };

  static std::vector<std::string> Play(const RecordedGroup& group) {
    const size_t vocabulary = static_cast<size_t>(group.vocabulary);
    return Player(group, state_->files[vocabulary].path(), state_->fingerprints[vocabulary]).Play();
  }

  // Every kSlices-th group, several at a time.
  static std::vector<std::string> PlaySlice(int slice) {
    std::map<size_t, std::vector<std::string>> lines;
    std::mutex mu;
    std::atomic<size_t> next = slice;
    std::vector<std::thread> threads;
    for (int t = 0; t < kThreads; ++t) {
      threads.emplace_back([&] {
        for (size_t i = next.fetch_add(kSlices); i < state_->groups.size(); i = next.fetch_add(kSlices)) {
          std::vector<std::string> played = Play(state_->groups[i]);
          std::lock_guard lock(mu);
          lines[i] = std::move(played);
        }
      });
    }
    for (std::thread& thread : threads) thread.join();
    std::vector<std::string> all;
    for (auto& [index, group] : lines) all.insert(all.end(), group.begin(), group.end());
    return all;
  }

  static State* state_;
};

RecordingTest::State* RecordingTest::state_ = nullptr;

// Lines by what they are about: "0123" or "group 12".
std::string KeyOf(const std::string& line) {
  return line.substr(0, line.find(' ', line.rfind("group ", 0) == 0 ? 6 : 0));
}

std::map<std::string, std::string> ReadGolden() {
  const char* source = std::getenv("UPDRAFT_SOURCE_DIR");
  std::ifstream in(std::string(source != nullptr ? source : ".") + "/tests/golden/edge_agent.txt");
  std::map<std::string, std::string> lines;
  for (std::string line; std::getline(in, line);) {
    if (!line.empty() && line[0] != '#') lines[KeyOf(line)] = line;
  }
  return lines;
}

TEST_P(RecordingTest, IsAsItWas) {
  const std::vector<std::string> lines = PlaySlice(GetParam());
  if (const char* path = std::getenv("UPDRAFT_RECORD")) {
    std::ofstream out(path, std::ios::app);
    for (const std::string& line : lines) out << line << "\n";
    return;
  }
  const std::map<std::string, std::string> golden = ReadGolden();
  ASSERT_FALSE(golden.empty()) << "tests/golden/edge_agent.txt is not there; UPDRAFT_SOURCE_DIR says where to look";
  int n_different = 0;
  for (const std::string& line : lines) {
    const auto then = golden.find(KeyOf(line));
    if (then != golden.end() && then->second == line) continue;
    ++n_different;
    ADD_FAILURE() << "seed " << kRecordingSeed << "\n  was: " << (then == golden.end() ? "not recorded" : then->second)
                  << "\n  is:  " << line;
  }
  EXPECT_EQ(n_different, 0) << "of " << lines.size() << " lines";
}

INSTANTIATE_TEST_SUITE_P(Slice, RecordingTest, ::testing::Range(0, kSlices));

// That there is something to compare, whoever records.
TEST(RecordingGolden, HoldsEveryRequestOnce) {
  const std::map<std::string, std::string> golden = ReadGolden();
  int n = 0;
  for (const auto& [key, line] : golden) n += key.rfind("group ", 0) != 0 ? 1 : 0;
  EXPECT_EQ(n, kRecordedRequests);
  EXPECT_EQ(golden.count("0000"), 1u);
  EXPECT_EQ(golden.count(absl::StrFormat("%04d", kRecordedRequests - 1)), 1u);
}

}  // namespace
}  // namespace updraft::testing
