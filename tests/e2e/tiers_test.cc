// updraft-edge and updraft-cloud as real processes on loopback.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <thread>

#include "absl/strings/str_format.h"
#include "common/http/json.h"
#include "common/routing/choose.h"
#include "common/routing/record_json.h"
#include "common/rpc/inference_client.h"
#include "common/serving/api_keys.h"
#include "deploy/synth/adapter.h"
#include "tests/common/http/raw_client.h"
#include "tests/common/serving/call_cases.h"
#include "tests/e2e/process.h"
#include "tests/e2e/request.h"
#include "tests/e2e/two_models.h"

namespace updraft::testing {
namespace {

using ::testing::HasSubstr;

using TiersTest = TwoModelsTest;

TEST_F(TiersTest, EdgeAloneServesAndStops) {
  SKIP_WITHOUT("updraft-edge");
  Daemon edge("updraft-edge", {"--model", *small_});
  ASSERT_TRUE(edge.ready());
  InferenceClient client(edge.address());
  auto answer = client.Generate(Request(), absl::Seconds(60));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->done.provenance().reason(), "no upstream configured");
  const auto http = http::testing::Fetch(edge.http_port(), "POST", "/v1/chat/completions",
                                         R"({"messages":[{"role":"user","content":"hello there"}],"max_tokens":24})");
  ASSERT_EQ(http.status, 200) << http.body;
  EXPECT_EQ(http::ParseJson(http.body)->at("choices")[0]["message"]["content"], answer->text);
  auto status = client.GetStatus(absl::Seconds(60));
  ASSERT_TRUE(status.ok()) << status.status();
  EXPECT_GT(status->ready_after_ms(), 0.0);
  EXPECT_GT(status->resident_bytes(), 1u << 20);
  std::printf("updraft-edge: ready after %.0f ms, resident %.1f MiB\n", status->ready_after_ms(),
              static_cast<double>(status->resident_bytes()) / (1 << 20));
  edge.process().Signal(SIGTERM);
  EXPECT_EQ(edge.process().Wait(absl::Seconds(30)), 0) << edge.process().Output();
  EXPECT_THAT(edge.process().Output(), HasSubstr("resolved="));
}

// What decided is in the log, whole: anybody can make the decision again from it, to the same byte.
TEST_F(TiersTest, DecisionsAreLoggedAndCanBeMadeAgain) {
  SKIP_WITHOUT("updraft-edge");
  SKIP_WITHOUT("updraft-cloud");
  Daemon cloud("updraft-cloud", {"--model", *small_});
  ASSERT_TRUE(cloud.ready());
  Daemon edge("updraft-edge", {"--model", *small_, "--upstream", cloud.address(), "--confidence-threshold", "0.3",
                               "--log-level", "debug"});
  ASSERT_TRUE(edge.ready());
  InferenceClient client(edge.address());
  for (int i = 0; i < 12; ++i) {
    v1::GenerateRequest request = Request(8 + i);
    request.mutable_conversation()->mutable_messages(0)->set_content(absl::StrFormat("hello there %d", i * i));
    if (i % 4 == 3) request.set_tier(v1::TIER_CHOICE_UPSTREAM_ONLY);
    ASSERT_TRUE(client.Generate(request, absl::Seconds(60)).ok());
  }
  RoutingPolicy policy;  // as the daemon was started
  policy.confidence_threshold = 0.3;
  std::istringstream log(edge.process().Output());
  int n_records = 0;
  for (std::string line; std::getline(log, line);) {
    const size_t at = line.find(" decision record=");
    if (at == std::string::npos) continue;
    ++n_records;
    const std::string json = line.substr(line.find('{', at));
    const auto record = RecordFromJson(json);
    ASSERT_TRUE(record.ok()) << record.status() << "\n" << json;
    EXPECT_EQ(RecordToJson(Replay(*record, policy)), json);
  }
  EXPECT_GE(n_records, 12);
}

// Over both ports of both tiers, and between them.
TEST_F(TiersTest, KeysSayWhoMayAsk) {
  SKIP_WITHOUT("updraft-edge");
  SKIP_WITHOUT("updraft-cloud");
  const std::string keys = TempPath("_keys"), secret = TempPath("_secret");
  const auto write = [](const std::string& path, const std::string& text) {
    std::ofstream(path) << text;
    chmod(path.c_str(), 0600);
  };
  write(keys, LineOfKey({"cars", HashOfKey("sk-car")}) + "\n");
  write(secret, "sk-car\n");
  Daemon cloud("updraft-cloud", {"--model", *small_, "--api-keys", keys});
  ASSERT_TRUE(cloud.ready());
  Daemon known("updraft-edge", {"--model", *small_, "--upstream", cloud.address(), "--policy", "upstream",
                                "--upstream-key", secret, "--api-keys", keys});
  Daemon unknown("updraft-edge", {"--model", *small_, "--upstream", cloud.address(), "--policy", "upstream"});
  ASSERT_TRUE(known.ready() && unknown.ready());
  for (const std::string& address : {cloud.address(), known.address()}) {
    for (const char* key : {"", "sk-other"}) {
      InferenceClient stranger(address, key);
      EXPECT_EQ(stranger.Generate(Request(), absl::Seconds(60)).status().code(), absl::StatusCode::kUnauthenticated);
      EXPECT_EQ(stranger.GetStatus(absl::Seconds(60)).status().code(), absl::StatusCode::kUnauthenticated);
    }
    EXPECT_TRUE(InferenceClient(address, "sk-car").GetStatus(absl::Seconds(60)).ok());
  }
  const auto above = InferenceClient(known.address(), "sk-car").Generate(Request(), absl::Seconds(60));
  ASSERT_TRUE(above.ok()) << above.status();
  EXPECT_FALSE(above->done.provenance().degraded()) << above->done.provenance().reason();
  // An edge that the cloud does not know answers itself, and says why.
  const auto alone = InferenceClient(unknown.address()).Generate(Request(), absl::Seconds(60));
  ASSERT_TRUE(alone.ok()) << alone.status();
  EXPECT_TRUE(alone->done.provenance().degraded());
  EXPECT_THAT(unknown.process().Output(), HasSubstr("does not know this tier's key (--upstream-key)"));
  EXPECT_EQ(alone->text, above->text);
  // A key that cannot be sent is told, before anything is.
  EXPECT_EQ(InferenceClient(known.address(), "sk-\r").GetStatus(absl::Seconds(60)).status().code(),
            absl::StatusCode::kInvalidArgument);
  std::remove(keys.c_str());
  std::remove(secret.c_str());
}

// Alone, handed over after some tokens, and by the cloud alone: calls have their form, whoever wrote which part of
// them.
TEST_F(TiersTest, CallsOfToolsHaveTheirFormOnEveryWay) {
  SKIP_WITHOUT("updraft-edge");
  SKIP_WITHOUT("updraft-cloud");
  Daemon cloud("updraft-cloud", {"--model", *roomy_, "--chat-template", "hermes"});
  ASSERT_TRUE(cloud.ready());
  const std::vector<std::vector<std::string>> ways = {
      {},
      {"--upstream", cloud.address(), "--confidence-threshold", "0.999"},
      {"--upstream", cloud.address(), "--policy", "upstream"}};
  for (const std::vector<std::string>& way : ways) {
    std::vector<std::string> flags = {"--model", *roomy_, "--chat-template", "hermes"};
    flags.insert(flags.end(), way.begin(), way.end());
    Daemon edge("updraft-edge", flags);
    ASSERT_TRUE(edge.ready());
    ExpectHeldCalls(edge.http_port());
  }
}

// The cloud's model calls in another form than the edge's: whoever wrote the answer is who knows.
TEST_F(TiersTest, CallsOfAnotherFormAreRead) {
  SKIP_WITHOUT("updraft-edge");
  SKIP_WITHOUT("updraft-cloud");
  const std::string path = TempPath("_mistral.jinja");
  std::ofstream(path)
      << "{% if tools %}[AVAILABLE_TOOLS]{{ tools | tojson }}[/AVAILABLE_TOOLS]{% endif %}{% for m in "
         "messages %}{% if m.role == 'assistant' %}{{ m.content }}{% if m.tool_calls %}[TOOL_CALLS] [{% "
         "for c in m.tool_calls %}{\"name\": \"{{ c.function.name }}\", \"arguments\": {{ "
         "c.function.arguments | tojson }}}{{ ', ' if not loop.last }}{% endfor %}]{% endif %}</s>{% else "
         "%}[INST]{{ m.content }}[/INST]{% endif %}{% endfor %}";
  Daemon cloud("updraft-cloud", {"--model", *roomy_, "--chat-template", path});
  ASSERT_TRUE(cloud.ready());
  Daemon edge("updraft-edge",
              {"--model", *roomy_, "--chat-template", "hermes", "--upstream", cloud.address(), "--policy", "upstream"});
  ASSERT_TRUE(edge.ready());
  ExpectHeldCalls(edge.http_port());
  std::remove(path.c_str());
}

// Another's answer holds the cloud for longer than the edge would wait for a dead link.
TEST_F(TiersTest, AQueueIsNotADeadLink) {
  SKIP_WITHOUT("updraft-edge");
  SKIP_WITHOUT("updraft-cloud");
  Daemon cloud("updraft-cloud", {"--model", *small_, "--max-running", "1", "--paced-us-per-row", "20000"});
  ASSERT_TRUE(cloud.ready());
  Daemon edge("updraft-edge", {"--model", *small_, "--upstream", cloud.address(), "--policy", "upstream",
                               "--upstream-timeout-ms", "3000"});
  ASSERT_TRUE(edge.ready());
  std::thread other([&cloud] {
    EXPECT_TRUE(InferenceClient(cloud.address()).Generate(Request(220), absl::Seconds(60)).ok());  // at least 4.4 s
  });
  InferenceClient status(cloud.address());
  while (status.GetStatus(absl::Seconds(60))->load().running_requests() == 0) absl::SleepFor(absl::Milliseconds(5));
  auto answer = InferenceClient(edge.address()).Generate(Request(4), absl::Seconds(60));
  other.join();
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_FALSE(answer->done.provenance().degraded()) << answer->done.provenance().reason();
  ASSERT_EQ(answer->done.provenance().spans_size(), 1);
  EXPECT_EQ(answer->done.provenance().spans(0).tier(), "cloud");
  EXPECT_EQ(status.GetStatus(absl::Seconds(60))->load().queued_requests(), 0);
}

// The cloud says something else of everything: audits find it, the edge stops keeping, clients notice nothing.
TEST_F(TiersTest, AuditsOfKeptAnswersTightenTheThreshold) {
  SKIP_WITHOUT("updraft-edge");
  SKIP_WITHOUT("updraft-cloud");
  Daemon cloud("updraft-cloud", {"--model", *small_, "--paced-us-per-step", "1"});
  ASSERT_TRUE(cloud.ready());
  Daemon edge("updraft-edge", {"--model", *small_, "--upstream", cloud.address(), "--confidence-threshold", "0.000001",
                               "--audit-share", "0.1"});
  ASSERT_TRUE(edge.ready());
  InferenceClient client(edge.address());
  int n_asked = 0;
  for (; client.GetStatus(absl::Seconds(60))->routing().threshold() < 0.5 && n_asked < 3000; ++n_asked) {
    const auto answer = client.Generate(Request(3), absl::Seconds(60));
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_FALSE(answer->done.provenance().degraded());
  }
  EXPECT_LT(n_asked, 3000);
  const auto metrics = http::testing::Fetch(edge.http_port(), "GET", "/metrics", "");
  EXPECT_THAT(metrics.body, HasSubstr("updraft_drift_total{tier=\"edge\"} 1"));
  EXPECT_THAT(edge.process().Output(), HasSubstr(" drift level=0.05"));
  // What is not kept any more goes up; with nobody there it is answered here, and said so.
  cloud.process().Signal(SIGKILL);
  cloud.process().Wait(absl::Seconds(30));
  const auto alone = client.Generate(Request(3), absl::Seconds(60));
  ASSERT_TRUE(alone.ok()) << alone.status();
  EXPECT_TRUE(alone->done.provenance().degraded());
}

TEST_F(TiersTest, DrainLetsTheAnswerInProgressEnd) {
  SKIP_WITHOUT("updraft-edge");
  Daemon edge("updraft-edge", {"--model", *large_, "--drain-timeout-ms", "60000"});
  ASSERT_TRUE(edge.ready());
  InferenceClient client(edge.address());
  bool signalled = false;
  auto answer = client.Generate(Request(200), absl::Seconds(120), [&](const v1::Chunk&) {
    if (!std::exchange(signalled, true)) edge.process().Signal(SIGTERM);
    return true;
  });
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(edge.process().Wait(absl::Seconds(60)), 0) << edge.process().Output();
}

// What an HTTP client sees of a drain: the health check turns, who comes is refused with a reason, and an answer that
// does not end in time ends in an error event, not in silence.
TEST_F(TiersTest, HttpDrainIsSaidAloud) {
  SKIP_WITHOUT("updraft-edge");
  Daemon edge("updraft-edge", {"--model", *large_, "--drain-timeout-ms", "1000"});
  ASSERT_TRUE(edge.ready());
  const auto chat = [](int max_tokens) {
    return absl::StrFormat(R"({"messages":[{"role":"user","content":"hello there"}],"stream":true,"max_tokens":%d})",
                           max_tokens);
  };
  std::vector<std::unique_ptr<http::testing::RawClient>> clients;  // one after the other they outlast the drain
  for (int i = 0; i < 12; ++i) {
    clients.push_back(std::make_unique<http::testing::RawClient>(edge.http_port()));
    ASSERT_TRUE(clients.back()->Send(http::testing::RequestText("POST", "/v1/chat/completions", chat(480))));
  }
  http::testing::RawClient& first = *clients.front();
  ASSERT_TRUE(first.WaitFor("\"delta\":{\"content\""));
  EXPECT_EQ(http::testing::Fetch(edge.http_port(), "GET", "/healthz").status, 200);
  edge.process().Signal(SIGTERM);
  int health = 200;
  for (int i = 0; i < 500 && health == 200; ++i) {
    health = http::testing::Fetch(edge.http_port(), "GET", "/healthz").status;
    if (health == 200) absl::SleepFor(absl::Milliseconds(1));
  }
  EXPECT_EQ(health, 503);
  const auto late = http::testing::Fetch(edge.http_port(), "POST", "/v1/chat/completions", chat(4));
  EXPECT_EQ(late.status, 503) << late.body;
  EXPECT_EQ(late.headers.count("retry-after"), 1u);
  int n_ended = 0, n_told = 0;
  for (const auto& client : clients) {
    const http::testing::RawResponse response = client->Receive();
    EXPECT_TRUE(response.complete) << response.status;  // the chunked body has its end
    if (response.body.find("data: [DONE]") != std::string::npos) {
      ++n_ended;
    } else {
      EXPECT_THAT(response.body, HasSubstr("\"error\""));
      EXPECT_THAT(response.body, HasSubstr("shutting down"));
      ++n_told;
    }
  }
  std::printf("drain: %d answers ended, %d were told\n", n_ended, n_told);
  EXPECT_GT(n_told, 0);
  EXPECT_EQ(edge.process().Wait(absl::Seconds(30)), 0) << edge.process().Output();
}

TEST_F(TiersTest, DoubtIsHandedOver) {
  SKIP_WITHOUT("updraft-edge");
  SKIP_WITHOUT("updraft-cloud");
  Daemon cloud("updraft-cloud", {"--model", *large_});
  ASSERT_TRUE(cloud.ready());
  Daemon edge("updraft-edge", {"--model", *small_, "--upstream", cloud.address(), "--confidence-threshold", "1"});
  ASSERT_TRUE(edge.ready());
  InferenceClient direct(cloud.address()), client(edge.address());
  auto truth = direct.Generate(Request(), absl::Seconds(60));
  ASSERT_TRUE(truth.ok()) << truth.status();
  for (int i = 0; i < 2000; ++i) {  // until the first probe has told that the vocabularies are equal
    auto status = client.GetStatus(absl::Seconds(60));
    if (status.ok() && status->has_upstream()) break;
    absl::SleepFor(absl::Milliseconds(5));
  }
  auto answer = client.Generate(Request(), absl::Seconds(60));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->text, truth->text);
  EXPECT_EQ(answer->tokens, truth->tokens);
  const v1::Provenance& provenance = answer->done.provenance();
  EXPECT_EQ(provenance.decision(), v1::DECISION_KIND_HAND_OVER) << provenance.reason();
  ASSERT_EQ(provenance.spans_size(), 1);
  EXPECT_EQ(provenance.spans(0).tier(), "cloud");
  EXPECT_FALSE(provenance.degraded());
  v1::GenerateRequest local = Request();
  local.set_tier(v1::TIER_CHOICE_LOCAL_ONLY);
  answer = client.Generate(local, absl::Seconds(60));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_EQ(answer->done.provenance().spans(0).tier(), "edge");
}

// Both tiers have the same model, so the answer is the same whoever writes it; the cloud is killed in the middle.
TEST_F(TiersTest, CloudThatIsKilledMidStreamCostsNoToken) {
  SKIP_WITHOUT("updraft-edge");
  SKIP_WITHOUT("updraft-cloud");
  auto cloud = std::make_unique<Daemon>("updraft-cloud", std::vector<std::string>{"--model", *large_});
  ASSERT_TRUE(cloud->ready());
  const std::string address = cloud->address();
  Daemon edge("updraft-edge", {"--model", *large_, "--upstream", address, "--exit-mode", "off",
                               "--link-probe-interval-ms", "100", "--upstream-timeout-ms", "20000"});
  ASSERT_TRUE(edge.ready());
  InferenceClient direct(address), client(edge.address());
  auto truth = direct.Generate(Request(200), absl::Seconds(120));
  ASSERT_TRUE(truth.ok()) << truth.status();
  v1::GenerateRequest request = Request(200);
  request.set_tier(v1::TIER_CHOICE_UPSTREAM_ONLY);
  bool killed = false;
  auto answer = client.Generate(request, absl::Seconds(120), [&](const v1::Chunk& chunk) {
    if (chunk.tier() == "cloud" && !std::exchange(killed, true)) cloud->process().Signal(SIGKILL);
    return true;
  });
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_TRUE(killed);
  EXPECT_EQ(answer->tokens, truth->tokens);
  EXPECT_EQ(answer->text, truth->text);
  const v1::Provenance& provenance = answer->done.provenance();
  EXPECT_TRUE(provenance.degraded());
  ASSERT_EQ(provenance.spans_size(), 2) << provenance.reason();
  EXPECT_EQ(provenance.spans(0).tier(), "cloud");
  EXPECT_EQ(provenance.spans(1).tier(), "edge");
  EXPECT_EQ(provenance.spans(0).n_tokens() + provenance.spans(1).n_tokens(), 200);

  // While it is away answers are local and say so; when it is back it is used again.
  answer = client.Generate(request, absl::Seconds(120));
  ASSERT_TRUE(answer.ok()) << answer.status();
  EXPECT_TRUE(answer->done.provenance().degraded());
  cloud.reset();
  Daemon back("updraft-cloud", {"--model", *large_, "--listen", address});
  ASSERT_TRUE(back.ready());
  bool used = false;
  for (int i = 0; i < 100 && !used; ++i) {
    answer = client.Generate(request, absl::Seconds(120));
    ASSERT_TRUE(answer.ok()) << answer.status();
    EXPECT_EQ(answer->tokens, truth->tokens);
    used = !answer->done.provenance().degraded();
    if (!used) absl::SleepFor(absl::Milliseconds(100));
  }
  EXPECT_TRUE(used) << answer->done.provenance().reason();
}

// A connection that was good a moment ago is no sign that the service refused.
TEST_F(TiersTest, ClientOfAKilledDaemonIsToldThatItIsGone) {
  SKIP_WITHOUT("updraft-edge");
  Daemon edge("updraft-edge", {"--model", *large_});
  ASSERT_TRUE(edge.ready());
  InferenceClient client(edge.address());
  auto answer = client.Generate(Request(200), absl::Seconds(60), [&](const v1::Chunk&) {
    edge.process().Signal(SIGKILL);
    return true;
  });
  EXPECT_TRUE(absl::IsUnavailable(answer.status())) << answer.status();
  EXPECT_THAT(std::string(answer.status().message()), HasSubstr("no service answers at '" + edge.address()));
}

TEST_F(TiersTest, CannotStartSaysWhyAndWhatToDo) {
  SKIP_WITHOUT("updraft-edge");
  Daemon holder("updraft-edge", {"--model", *small_});
  ASSERT_TRUE(holder.ready());
  const std::string damaged = TempPath("_damaged.gguf");
  std::filesystem::copy_file(*small_, damaged);
  std::filesystem::resize_file(damaged, 1000);
  const std::string free = "127.0.0.1:0";
  struct Case {
    std::vector<std::string> flags;
    int code;
    std::string says;
  };
  const Case cases[] = {
      {{"--model", "/no/such/file.gguf", "--listen", free, "--http-listen", free}, 1, "/no/such/file.gguf"},
      {{"--model", damaged, "--listen", free, "--http-listen", free}, 1, damaged},
      {{"--model", *small_, "--listen", holder.address(), "--http-listen", free}, 1, "in use"},
      {{"--model", *small_, "--listen", free, "--http-listen", absl::StrFormat("127.0.0.1:%d", holder.http_port())},
       1,
       "in use"},
      {{"--model", *small_, "--listen", "nonsense", "--http-listen", free}, 2, "nonsense"},
      {{"--model", *small_, "--listen", free, "--http-listen", "127.0.0.1:99999"}, 2, "99999"},
      {{"--model", *small_, "--listen", free, "--http-listen", free, "--upstream", "nowhere"}, 2, "upstream"},
      {{"--model", *small_, "--listen", "0.0.0.0:7979", "--http-listen", free, "--upstream", "localhost:7979"},
       2,
       "where this one listens itself"},
      {{"--model", *small_, "--listen", free, "--http-listen", free, "--kv-tokens", "-1"}, 2, "kv"},
      {{"--model", *small_, "--policy", "maybe"}, 2, "policy"},
      {{"--model", *small_, "--no-such-flag", "1"}, 2, "no-such-flag"},
      {{}, 2, "model"},
  };
  for (const Case& bad : cases) {
    std::vector<std::string> args = {Program("updraft-edge")};
    args.insert(args.end(), bad.flags.begin(), bad.flags.end());
    Process process(args);
    EXPECT_EQ(process.Wait(absl::Seconds(60)), bad.code) << bad.says << "\n" << process.Output();
    EXPECT_THAT(process.Output(), HasSubstr(bad.says));
  }
  std::remove(damaged.c_str());
}

struct Refusal {
  int code;
  std::string output;
};

// A daemon that is not expected to start, on free ports.
Refusal Refused(const std::string& name, const std::vector<std::string>& flags) {
  std::vector<std::string> args = {Program(name), "--listen", "127.0.0.1:0"};
  if (name == "updraft-edge") args.insert(args.end(), {"--http-listen", "127.0.0.1:0"});
  args.insert(args.end(), flags.begin(), flags.end());
  Process process(args);
  const int code = process.Wait(absl::Seconds(60));
  return {code, process.Output()};
}

TEST_F(TiersTest, FlagsThatCannotBeAreBadUsageOfBothDaemons) {
  SKIP_WITHOUT("updraft-edge");
  SKIP_WITHOUT("updraft-cloud");
  const std::string pipe = TempPath("_pipe");
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  struct Case {
    std::string flag, value, says;
  };
  const Case cases[] = {{"--tier", "\xff", "tier: expected text in UTF-8"},
                        {"--tier", "a tier", "tier: expected at most 128 printable ASCII characters"},
                        {"--port-file", pipe, pipe}};
  for (const std::string name : {"updraft-edge", "updraft-cloud"}) {
    for (const Case& bad : cases) {
      const Refusal refusal = Refused(name, {"--model", *small_, bad.flag, bad.value});
      EXPECT_EQ(refusal.code, 2) << name << " " << bad.flag << ": " << refusal.output;
      EXPECT_THAT(refusal.output, HasSubstr(bad.says)) << name;
    }
  }
  EXPECT_TRUE(std::filesystem::is_fifo(pipe));
  std::remove(pipe.c_str());
}

TEST_F(TiersTest, TheSameDamagedFileIsAFailureOfBothDaemons) {
  SKIP_WITHOUT("updraft-edge");
  SKIP_WITHOUT("updraft-cloud");
  const std::string damaged = TempPath("_damaged.gguf");
  std::filesystem::copy_file(*small_, damaged);
  for (const size_t bytes : {std::filesystem::file_size(damaged) / 2, uintmax_t{1000}, uintmax_t{0}}) {
    std::filesystem::resize_file(damaged, bytes);
    for (const std::string name : {"updraft-edge", "updraft-cloud"}) {
      const Refusal refusal = Refused(name, {"--model", damaged});
      EXPECT_EQ(refusal.code, 1) << name << " with " << bytes << " bytes: " << refusal.output;
      EXPECT_THAT(refusal.output, HasSubstr(damaged)) << name;
    }
  }
  std::remove(damaged.c_str());
}

// HTTP of a cloud is the edge's, when it is asked for.
// Edge alone (one row a step), cloud (rows in batches): the same answers, which are not the base's.
TEST_F(TiersTest, AdapterIsAppliedAndNamedByBothDaemons) {
  SKIP_WITHOUT("updraft-edge");
  SKIP_WITHOUT("updraft-cloud");
  const std::string adapter = TempPath("adapter.gguf");
  ASSERT_TRUE(SynthesizeAdapter(*small_, adapter, {.rank = 8, .strength = 0.5}).ok());
  std::vector<std::string> texts;
  for (const char* program : {"updraft-edge", "updraft-cloud"}) {
    for (const bool adapted : {false, true}) {
      std::vector<std::string> flags = {"--model", *small_};
      if (adapted) flags.insert(flags.end(), {"--adapter", adapter});
      Daemon daemon(program, flags);
      ASSERT_TRUE(daemon.ready());
      InferenceClient client(daemon.address());
      auto answer = client.Generate(Request(), absl::Seconds(60));
      ASSERT_TRUE(answer.ok()) << answer.status();
      texts.push_back(answer->text);
      auto status = client.GetStatus(absl::Seconds(60));
      ASSERT_TRUE(status.ok()) << status.status();
      EXPECT_EQ(status->model().has_adapter(), adapted);
      EXPECT_EQ(status->model().adapter().path(), adapted ? adapter : "");
      EXPECT_EQ(status->model().adapter().sha256().size(), adapted ? 64u : 0u);
      EXPECT_EQ(daemon.process().Output().find("lora of rank 8") != std::string::npos, adapted);
    }
  }
  EXPECT_EQ(texts[0], texts[2]);
  EXPECT_EQ(texts[1], texts[3]);
  EXPECT_NE(texts[0], texts[1]) << "the adapter changes too little to test";
  std::remove(adapter.c_str());
}

TEST_F(TiersTest, CloudServesHttpWhenAskedTo) {
  SKIP_WITHOUT("updraft-cloud");
  Daemon silent("updraft-cloud", {"--model", *small_});
  ASSERT_TRUE(silent.ready());
  EXPECT_FALSE(silent.has_http());
  Daemon cloud("updraft-cloud", {"--model", *small_, "--http-listen", "127.0.0.1:0"});
  ASSERT_TRUE(cloud.ready());
  ASSERT_TRUE(cloud.has_http());
  auto answer = InferenceClient(cloud.address()).Generate(Request(), absl::Seconds(60));
  ASSERT_TRUE(answer.ok()) << answer.status();
  const auto http = http::testing::Fetch(cloud.http_port(), "POST", "/v1/chat/completions",
                                         R"({"messages":[{"role":"user","content":"hello there"}],"max_tokens":24})",
                                         "X-Request-Id: mine\r\n");
  ASSERT_EQ(http.status, 200) << http.body;
  EXPECT_EQ(http.headers.at("x-request-id"), "mine");
  EXPECT_EQ(http::ParseJson(http.body)->at("choices")[0]["message"]["content"], answer->text);
  EXPECT_EQ(http::testing::Fetch(cloud.http_port(), "GET", "/healthz").status, 200);
  cloud.process().Signal(SIGTERM);
  EXPECT_EQ(cloud.process().Wait(absl::Seconds(30)), 0) << cloud.process().Output();
}

TEST_F(TiersTest, BothDaemonsAnswerARequestIdOnce) {
  SKIP_WITHOUT("updraft-edge");
  SKIP_WITHOUT("updraft-cloud");
  const std::pair<std::string, std::vector<std::string>> daemons[] = {
      {"updraft-edge", {"--model", *small_}}, {"updraft-cloud", {"--model", *small_, "--http-listen", "127.0.0.1:0"}}};
  for (auto [program, flags] : daemons) {
    SCOPED_TRACE(program);
    const auto post = [](const Daemon& daemon, const std::string& id, int max_tokens) {
      return http::testing::Fetch(
          daemon.http_port(), "POST", "/v1/chat/completions",
          absl::StrFormat(R"({"messages":[{"role":"user","content":"hello there"}],"temperature":1,"max_tokens":%d})",
                          max_tokens),
          "X-Request-Id: " + id + "\r\n");
    };
    const auto text = [](const http::testing::RawResponse& response) {
      return http::ParseJson(response.body)->at("choices")[0]["message"]["content"].get<std::string>();
    };
    {
      Daemon daemon(program, flags);
      ASSERT_TRUE(daemon.ready());
      const auto first = post(daemon, "one", 24), again = post(daemon, "one", 24), other = post(daemon, "two", 24);
      ASSERT_EQ(again.status, 200) << again.body;
      EXPECT_EQ(text(first), text(again));
      EXPECT_NE(text(first), text(other)) << "another id, another draw";
      EXPECT_THAT(http::testing::Fetch(daemon.http_port(), "GET", "/metrics").body,
                  HasSubstr(R"(decision="keep",outcome="ok"} 2)"))
          << "it was not made twice";
      EXPECT_EQ(post(daemon, "one", 23).status, 422);
    }
    flags.insert(flags.end(), {"--repeat-grace-ms", "0"});
    Daemon daemon(program, flags);
    ASSERT_TRUE(daemon.ready());
    EXPECT_EQ(post(daemon, "one", 24).status, 200);
    EXPECT_EQ(post(daemon, "one", 23).status, 200);
  }
}

}  // namespace
}  // namespace updraft::testing
