// The model's file is cut or written to while both daemons serve from it, under 8 streams: the process lives, each
// stream ends UNAVAILABLE or as if nothing had happened, and health says so within a second. `./run soak` does it a
// hundred times (UPDRAFT_FILE_FAULTS).
#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <functional>
#include <iterator>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/clock/steady.h"
#include "common/rpc/inference_client.h"
#include "deploy/synth/synth.h"
#include "tests/e2e/health.h"
#include "tests/e2e/process.h"
#include "tests/e2e/two_models.h"

namespace updraft::testing {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

constexpr int kStreams = 8;

// Asked for by number, they have the machine to themselves, and health is held to its second.
const char* const kAsked = std::getenv("UPDRAFT_FILE_FAULTS");
const int kFaultsToTry = kAsked == nullptr ? 8 : std::atoi(kAsked);
const absl::Duration kToldWithin = absl::Seconds(kAsked == nullptr ? 20 : 1);

struct Fault {
  const char* name;
  void (*strike)(const std::string& path);
};

// What people and programs do to files that they should have replaced.
const Fault kFaults[] = {
    {"cut to nothing", [](const std::string& path) { fs::resize_file(path, 0); }},
    {"cut in the middle", [](const std::string& path) { fs::resize_file(path, fs::file_size(path) / 2); }},
    {"emptied and written again",
     [](const std::string& path) {
       std::ifstream in(path, std::ios::binary);
       const std::string bytes{std::istreambuf_iterator<char>(in), {}};
       std::ofstream(path, std::ios::binary | std::ios::trunc) << bytes;
     }},
    {"overwritten in place",
     [](const std::string& path) {
       const int fd = open(path.c_str(), O_WRONLY | O_CLOEXEC);
       const std::string noise(1 << 16, '\x5a');
       const auto size = static_cast<off_t>(fs::file_size(path));
       for (off_t at = size / 4; at + 65536 < size; at += 1 << 18) {
         if (pwrite(fd, noise.data(), noise.size(), at) < 0) std::perror("pwrite");
       }
       close(fd);
     }},
};

struct Stream {
  absl::Status status;
  std::string text;
};

v1::GenerateRequest Request(int i) {
  v1::GenerateRequest request;
  v1::Message* message = request.mutable_conversation()->add_messages();
  message->set_role("user");
  message->set_content(absl::StrCat("question ", i));
  request.set_max_tokens(300);
  return request;
}

class FileFaultTest : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    SynthShape shape;
    shape.name = "file-fault";
    shape.architecture = Architecture::kQwen2;
    shape.n_vocab = 512;
    shape.context_length = 512;
    shape.n_layer = 6;
    shape.d_model = 256;
    shape.d_ff = 1024;
    // Matrices of floats are read in the file where they lie.
    const absl::Status made = Synthesize(shape, kernels::DType::kF32, original_, {.seed = 5, .n_threads = 1});
    ASSERT_TRUE(made.ok()) << made;
  }
  void TearDown() override {
    fs::remove(original_);
    fs::remove(served_);
  }

  std::unique_ptr<Daemon> Serve() {
    std::vector<std::string> flags = {"--model", served_, "--threads", "2"};
    if (std::string(GetParam()) == "updraft-cloud") flags.insert(flags.end(), {"--http-listen", "127.0.0.1:0"});
    return std::make_unique<Daemon>(GetParam(), flags);
  }

  // All streams at once; `strike` is called when the first chunk of all has come.
  static std::vector<Stream> RunStreams(const Daemon& daemon, const std::function<void()>& strike) {
    std::vector<Stream> streams(kStreams);
    std::atomic<bool> begun{false};
    std::vector<std::thread> threads;
    for (int i = 0; i < kStreams; ++i) {
      threads.emplace_back([&, i] {
        InferenceClient client(daemon.address());
        streams[i].status = client
                                .Generate(Request(i), absl::Seconds(300),
                                          [&, i](const v1::Chunk& chunk) {
                                            streams[i].text += chunk.text();
                                            if (!begun.exchange(true)) strike();
                                            return true;
                                          })
                                .status();
      });
    }
    for (std::thread& thread : threads) thread.join();
    return streams;
  }

  // How long after `since` both faces say that nothing is served.
  static absl::Duration ToldAfter(const Daemon& daemon, SteadyTime since) {
    while (SteadyNow() - since < absl::Seconds(60)) {
      if (HttpHealth(daemon) == 503 && GrpcHealth(daemon) == "NOT_SERVING") break;
      absl::SleepFor(absl::Milliseconds(5));
    }
    return SteadyNow() - since;
  }

  const std::string original_ = TempPath("_original.gguf"), served_ = TempPath("_served.gguf");
};

TEST_P(FileFaultTest, EndsStreamsNotTheProcess) {
  SKIP_WITHOUT(GetParam());
  fs::copy_file(original_, served_);
  std::vector<Stream> undisturbed;
  {
    const auto daemon = Serve();
    ASSERT_TRUE(daemon->ready());
    EXPECT_EQ(GrpcHealth(*daemon), "SERVING");
    EXPECT_EQ(HttpHealth(*daemon), 200);
    undisturbed = RunStreams(*daemon, [] {});
    for (const Stream& stream : undisturbed) ASSERT_TRUE(stream.status.ok()) << stream.status;
  }
  int n_failed = 0, n_whole = 0;
  absl::Duration latest;
  for (int i = 0; i < kFaultsToTry; ++i) {
    const Fault& fault = kFaults[i % std::size(kFaults)];
    SCOPED_TRACE(absl::StrCat("fault ", i, ": ", fault.name));
    fs::remove(served_);
    fs::copy_file(original_, served_);
    const auto daemon = Serve();
    ASSERT_TRUE(daemon->ready());
    SteadyTime struck;
    absl::Duration told;
    std::thread health;
    const std::vector<Stream> streams = RunStreams(*daemon, [&] {
      struck = SteadyNow();
      fault.strike(served_);
      health = std::thread([&] { told = ToldAfter(*daemon, struck); });
    });
    ASSERT_TRUE(health.joinable()) << "nothing was streamed: " << streams[0].status;
    health.join();
    for (int s = 0; s < kStreams; ++s) {
      const Stream& stream = streams[s];
      if (stream.status.ok()) {
        EXPECT_EQ(stream.text, undisturbed[s].text) << "stream " << s;
        ++n_whole;
      } else {
        EXPECT_EQ(stream.status.code(), absl::StatusCode::kUnavailable) << stream.status;
        EXPECT_EQ(undisturbed[s].text.substr(0, stream.text.size()), stream.text) << "stream " << s;
        ++n_failed;
      }
    }
    latest = std::max(latest, told);
    EXPECT_LE(told, kToldWithin);
    ASSERT_EQ(daemon->process().Wait(absl::ZeroDuration()), -1) << daemon->process().Output();
    const absl::Status late = InferenceClient(daemon->address()).Generate(Request(0), absl::Seconds(60)).status();
    EXPECT_EQ(late.code(), absl::StatusCode::kUnavailable) << late;
    EXPECT_THAT(std::string(late.message()), HasSubstr(served_));
    daemon->process().Signal(SIGTERM);
    EXPECT_EQ(daemon->process().Wait(absl::Seconds(60)), 0) << daemon->process().Output();
    EXPECT_THAT(daemon->process().Output(), HasSubstr("model-lost"));
  }
  EXPECT_GT(n_failed, 0) << "no fault came in time";
  std::printf("%s: %d faults, %d streams ended UNAVAILABLE, %d whole; told after %.0f ms at most\n", GetParam(),
              kFaultsToTry, n_failed, n_whole, absl::ToDoubleMilliseconds(latest));
}

// The way that the message recommends.
TEST_P(FileFaultTest, ARenameIsNotNoticed) {
  SKIP_WITHOUT(GetParam());
  fs::copy_file(original_, served_);
  const auto daemon = Serve();
  ASSERT_TRUE(daemon->ready());
  const std::vector<Stream> undisturbed = RunStreams(*daemon, [] {});
  const std::vector<Stream> streams = RunStreams(*daemon, [&] {
    std::ofstream(served_ + ".next") << "another file";
    fs::rename(served_ + ".next", served_);
  });
  for (int s = 0; s < kStreams; ++s) {
    EXPECT_TRUE(streams[s].status.ok()) << streams[s].status;
    EXPECT_EQ(streams[s].text, undisturbed[s].text);
  }
  EXPECT_EQ(GrpcHealth(*daemon), "SERVING");
}

INSTANTIATE_TEST_SUITE_P(Daemons, FileFaultTest, ::testing::Values("updraft-cloud", "updraft-edge"),
                         [](const auto& info) { return std::string(info.param) == "updraft-edge" ? "edge" : "cloud"; });

}  // namespace
}  // namespace updraft::testing
