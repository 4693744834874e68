#include <cmath>
#include <set>
#include <string>
#include <tuple>
#include <vector>

#include "common/routing/choose.h"
#include "common/routing/record_json.h"
#include "common/routing/session.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/common/routing/random_session.h"

namespace updraft {
namespace {

using ::testing::HasSubstr;

DecisionRecord SomeRecord() {
  SessionOptions options;
  options.n_upstreams = 1;
  options.model_fp = 0xfedcba9876543210;
  RoutingSession session(options);
  Situation situation;
  situation.stage = Stage::kAfter;
  situation.now_s = 12.5;
  situation.request.key = RequestKey("r-1");
  situation.evidence.confidence = 0.41;
  return session.Decide(situation);
}

std::string Replaced(std::string text, const std::string& what, const std::string& with) {
  const size_t at = text.find(what);
  EXPECT_NE(at, text.npos) << what;
  return at == text.npos ? text : text.replace(at, what.size(), with);
}

// The promise that records exist for: 10,000 sessions, in blocks so that they can run side by side.
constexpr int kBlocks = 4, kSessionsPerBlock = 2500;

class ReplayTest : public ::testing::TestWithParam<int> {};

TEST_P(ReplayTest, ReplayedRecordsAreTheSameBytes) {
  constexpr uint64_t kSeed = 1000003;
  int n_records = 0, n_sent = 0;
  for (int run = 0; run < kSessionsPerBlock; ++run) {
    const uint64_t seed = kSeed + static_cast<uint64_t>(GetParam() * kSessionsPerBlock + run);
    SessionDriver driver(seed);
    const int n_decisions = 1 + driver.maker().Below(5);
    for (int i = 0; i < n_decisions; ++i) {
      for (int event = driver.maker().Below(6); event > 0; --event) driver.Event();
      const DecisionRecord record = driver.Decide();
      const std::string line = RecordToJson(record);
      SCOPED_TRACE(::testing::Message() << "seed " << seed << ": " << line);
      ASSERT_EQ(line.find('\n'), line.npos);
      const auto parsed = RecordFromJson(line);
      ASSERT_TRUE(parsed.ok()) << parsed.status();
      ASSERT_EQ(RecordToJson(*parsed), line) << "parsed";
      const DecisionRecord replayed = Replay(*parsed, driver.session().policy());
      ASSERT_EQ(RecordToJson(replayed), line) << "replayed";
      ASSERT_EQ(DecisionOf(replayed), DecisionOf(record));
      ++n_records;
      n_sent += record.chosen().upstream != Option::kHere ? 1 : 0;
    }
  }
  EXPECT_GT(n_records, 2 * kSessionsPerBlock);
  EXPECT_GT(n_sent, n_records / 20) << "hardly anything was ever sent: the sessions show little";
}

INSTANTIATE_TEST_SUITE_P(Sessions, ReplayTest, ::testing::Range(0, kBlocks));

TEST(RecordTest, ReplayUnderAnotherPolicySaysWhatItWouldHaveDone) {
  const DecisionRecord record = SomeRecord();
  EXPECT_EQ(DecisionOf(record), Decision::kHandOver);
  RoutingPolicy policy;
  policy.confidence_threshold = 0.3;
  const DecisionRecord other = Replay(record, policy);
  EXPECT_EQ(DecisionOf(other), Decision::kKeep);
  EXPECT_EQ(other.policy_fp, Fingerprint(policy));
  EXPECT_NE(other.policy_fp, record.policy_fp);
  EXPECT_EQ(other.seq, record.seq);
}

void Change(PolicyMode& mode) { mode = PolicyMode::kUpstream; }
void Change(double& value) { value = 0.375; }
void Change(int& value) { value = 77; }

TEST(RecordTest, FingerprintTellsEveryFieldOfAPolicy) {
  RoutingPolicy policy;
  // All fields: one that is added does not compile before it is in here.
  auto& [mode, threshold, hysteresis, margin, wait_s, retry_s, router_gain, hops, rtt_s, upstream_rate, local_rate] =
      policy;
  std::set<uint64_t> seen = {Fingerprint(policy)};
  const auto tells = [&](auto& field) {
    const auto before = field;
    Change(field);
    EXPECT_TRUE(seen.insert(Fingerprint(policy)).second) << "the change of field " << seen.size() << " does not show";
    field = before;
  };
  std::apply([&](auto&... fields) { (tells(fields), ...); },
             std::tie(mode, threshold, hysteresis, margin, wait_s, retry_s, router_gain, hops, rtt_s, upstream_rate,
                      local_rate));
  EXPECT_EQ(Fingerprint(RoutingPolicy{}), Fingerprint(policy));
}

TEST(RecordTest, NumbersComeBackExactly) {
  DecisionRecord record = SomeRecord();
  const double odd[] = {0.1,    -0.0,    1.0 / 3.0, 5e-324,     1.7976931348623157e308,
                        123456, 1e-7,    kNever,    -kNever,    std::nextafter(1.0, 2.0),
                        -2.5e9, 0x1p-53, 1e21,      1.0 + 1e-9, 9007199254740993.0};
  for (const double value : odd) {
    record.situation.now_s = record.options[0].joules = value;
    const auto parsed = RecordFromJson(RecordToJson(record));
    ASSERT_TRUE(parsed.ok()) << parsed.status();
    EXPECT_EQ(parsed->situation.now_s, value);
    EXPECT_EQ(std::signbit(parsed->options[0].joules), std::signbit(value));
  }
  record.seq = ~uint64_t{0};
  record.policy_fp = ~uint64_t{0};
  record.situation.upstreams[0].link.samples = std::numeric_limits<int64_t>::min();
  record.situation.request.hops = std::numeric_limits<int>::min();
  const auto parsed = RecordFromJson(RecordToJson(record));
  ASSERT_TRUE(parsed.ok()) << parsed.status();
  EXPECT_EQ(parsed->seq, record.seq);
  EXPECT_EQ(parsed->policy_fp, record.policy_fp);
  EXPECT_EQ(parsed->situation.upstreams[0].link.samples, record.situation.upstreams[0].link.samples);
  EXPECT_EQ(parsed->situation.request.hops, record.situation.request.hops);
  EXPECT_TRUE(std::isnan(parsed->options[0].money));
}

TEST(RecordTest, LineIsWhatReadersOfLogsExpect) {
  const std::string line = RecordToJson(SomeRecord());
  EXPECT_THAT(line, ::testing::StartsWith(R"({"schema":2,"seq":1,"policy":")"));
  EXPECT_THAT(line, HasSubstr(R"("model":"fedcba9876543210")"));
  EXPECT_THAT(line, HasSubstr(R"("stage":"after","now_s":12.5,"request":{"id":"r-1","asked":"auto")"));
  EXPECT_THAT(line, HasSubstr(R"("deadline_s":"inf")"));
  EXPECT_THAT(line, HasSubstr(R"("evidence":{"confidence":0.41,"p_right":null,"gain":null})"));
  EXPECT_THAT(line, HasSubstr(R"({"way":"draft-then-decide","upstream":0,"obstacle":"none")"));
  EXPECT_THAT(line, HasSubstr(R"("reason":"unsure","degraded":false,"threshold":0.5,"propensity":1.0})"));
}

TEST(RecordTest, ErrorsNameTheField) {
  const std::string line = RecordToJson(SomeRecord());
  ASSERT_TRUE(RecordFromJson(line).ok());
  const struct {
    std::string what, with, named;
  } cases[] = {
      {R"("hops":0)", R"("hops":0.5)", "situation.request.hops"},
      {R"("hops":0)", R"("hops":2147483648)", "situation.request.hops"},
      {R"("hops":0)", R"("hops":"0")", "situation.request.hops"},
      {R"("hops":0,)", R"()", "situation.request.hops': missing"},
      {R"("hops":0,)", R"("hops":0,"hopes":1,)", "situation.request.hopes': unknown field"},
      {R"("hops":0,)", R"("hops":0,"hops":0,)", "hops': twice"},
      {R"("stage":"after")", R"("stage":"later")", "one of before, during, after, found \"later\""},
      {R"("confidence":0.41)", R"("confidence":"0.41")", "situation.evidence.confidence"},
      {R"("confidence":0.41)", R"("confidence":true)", "situation.evidence.confidence"},
      {R"("degraded":false)", R"("degraded":0)", "degraded"},
      {R"("upstreams":[{)", R"("upstreams":[1,{)", "situation.upstreams[0]"},
      {R"("upstream":0)", R"("upstream":1)", "options[1].upstream"},
      {R"("upstream":0)", R"("upstream":-1)", "options[1].upstream"},
      {R"("choice":1)", R"("choice":9)", "choice"},
      {R"("choice":1)", R"("choice":256)", "choice"},
      {R"("seq":1)", R"("seq":-1)", "seq"},
      {R"("seq":1)", R"("seq":1e999)", "one line of JSON"},
      {R"("model":"fedcba9876543210")", R"("model":"fedcba987654321")", "model"},
      {R"("model":"fedcba9876543210")", R"("model":"Fedcba9876543210")", "16 hexadecimal digits"},
      {R"("id":"r-1")", R"("id":"r\n1")", "situation.request.id"},
      {R"("id":"r-1")", R"("id":")" + std::string(129, 'x') + "\"", "at most 128 printable"},
      {R"("schema":2)", R"("schema":"1")", "schema"},
      {R"("schema":2,)", "", "'schema': missing"},
  };
  for (const auto& c : cases) {
    const auto parsed = RecordFromJson(Replaced(line, c.what, c.with));
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << c.with;
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr(c.named));
  }
  const auto newer = RecordFromJson(Replaced(line, R"("schema":2)", R"("schema":3)"));
  EXPECT_EQ(newer.status().code(), absl::StatusCode::kFailedPrecondition);
  EXPECT_THAT(std::string(newer.status().message()), HasSubstr("schema 3: this build reads schema 2"));
  for (const std::string& text :
       {std::string(), std::string("{"), line + line, line.substr(0, line.size() - 1), std::string("null"),
        std::string("[]"), std::string("\"\xff\""), std::string(kMaxRecordBytes + 1, ' '), std::string(60000, '[')}) {
    const auto parsed = RecordFromJson(text);
    EXPECT_EQ(parsed.status().code(), absl::StatusCode::kInvalidArgument) << text.substr(0, 80);
    EXPECT_THAT(std::string(parsed.status().message()), HasSubstr("decision record"));
  }
}

TEST(RecordTest, ARequestIdIsInlineAndPrintable) {
  EXPECT_EQ(RequestKey("abc").view(), "abc");
  EXPECT_EQ(RequestKey(std::string(300, 'y')).view(), std::string(128, 'y'));
  EXPECT_EQ(RequestKey("a\nb\xff").view(), "a?b?");
  EXPECT_EQ(RequestKey().view(), "");
}

}  // namespace
}  // namespace updraft
