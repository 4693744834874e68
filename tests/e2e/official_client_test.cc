// The official OpenAI client against the daemons as processes.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <string>
#include <vector>

#include "absl/strings/str_format.h"
#include "tests/common/http/raw_client.h"
#include "tests/e2e/process.h"
#include "tests/e2e/two_models.h"

namespace updraft::testing {
namespace {

using ::testing::HasSubstr;

// The official client decides what "OpenAI-compatible" means. It comes from the npm registry, into the build folder.
class OfficialOpenAiClient : public TwoModelsTest {
 protected:
  // Exits 0 when all is as the client expects it. streamed: what must be in a stream as it is on the wire.
  void Talk(const std::string& program, const std::vector<std::string>& flags, const std::string& streamed = "",
            const std::string& script = "stream_chat.mjs") {
    namespace fs = std::filesystem;
    const char* source = std::getenv("UPDRAFT_SOURCE_DIR");
    const fs::path scripts = fs::path(source != nullptr ? source : ".") / "tests/e2e/openai_client";
    const fs::path work = fs::path(Program("..")).lexically_normal() / "openai_client";
    fs::create_directories(work);
    for (const char* file : {"package.json", "stream_chat.mjs", "call_tools.mjs"}) {
      fs::copy_file(scripts / file, work / file, fs::copy_options::overwrite_existing);
    }
    if (!fs::exists(work / "node_modules/openai/package.json")) {
      Process install({"npm", "install", "--prefix", work.string(), "--no-audit", "--no-fund", "--no-package-lock"});
      if (const int code = install.Wait(absl::Seconds(120)); code != 0) {
        GTEST_SKIP() << "the official OpenAI client: "
                     << (code == 127 ? "npm is not installed (apt-get install npm)"
                                     : "npm cannot install it, is the registry reachable?\n" + install.Output());
      }
    }
    Daemon daemon(program, flags);
    ASSERT_TRUE(daemon.ready());
    const auto stream = http::testing::Fetch(daemon.http_port(), "POST", "/v1/completions",
                                             R"({"prompt":"hello there","max_tokens":8,"stream":true})");
    ASSERT_THAT(stream.body, HasSubstr(streamed));
    Process client({"node", (work / script).string(), absl::StrFormat("http://127.0.0.1:%d/v1", daemon.http_port())});
    EXPECT_EQ(client.Wait(absl::Seconds(120)), 0) << client.Output();
    std::printf("%s", client.Output().c_str());
  }
};

TEST_F(OfficialOpenAiClient, AgainstTheEdge) {
  SKIP_WITHOUT("updraft-edge");
  Talk("updraft-edge", {"--model", *small_});
}

TEST_F(OfficialOpenAiClient, AgainstTheCloud) {
  SKIP_WITHOUT("updraft-cloud");
  Talk("updraft-cloud", {"--model", *small_, "--http-listen", "127.0.0.1:0"});
}

TEST_F(OfficialOpenAiClient, CallsToolsOfTheEdge) {
  SKIP_WITHOUT("updraft-edge");
  Talk("updraft-edge", {"--model", *roomy_, "--chat-template", "hermes"}, "", "call_tools.mjs");
}

TEST_F(OfficialOpenAiClient, CallsToolsOfTheCloud) {
  SKIP_WITHOUT("updraft-cloud");
  Talk("updraft-cloud", {"--model", *roomy_, "--chat-template", "hermes", "--http-listen", "127.0.0.1:0"}, "",
       "call_tools.mjs");
}

// A step takes longer than the daemon is silent, so comments stand between all events.
TEST_F(OfficialOpenAiClient, PassesOverWhatKeepsAStreamAlive) {
  SKIP_WITHOUT("updraft-cloud");
  Talk(
      "updraft-cloud",
      {"--model", *small_, "--http-listen", "127.0.0.1:0", "--paced-us-per-step", "10000", "--http-keep-alive-ms", "2"},
      ": keep-alive\n\n");
}

}  // namespace
}  // namespace updraft::testing
