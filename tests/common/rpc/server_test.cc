#include "common/rpc/server.h"

#include <gmock/gmock.h>
#include <grpcpp/support/server_callback.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <thread>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/rpc/channel.h"
#include "common/rpc/process.h"
#include "common/rpc/status.h"
#include "common/status/retry_delay.h"
#include "updraft/v1/inference.grpc.pb.h"

namespace updraft {
namespace {

using ::testing::HasSubstr;

class FullService final : public v1::Inference::CallbackService {
 public:
  grpc::ServerUnaryReactor* GetStatus(grpc::CallbackServerContext* context, const v1::GetStatusRequest*,
                                      v1::GetStatusResponse*) override {
    auto* reactor = context->DefaultReactor();
    reactor->Finish(
        ToGrpcStatus(WithRetryDelay(absl::ResourceExhaustedError("full"), absl::Milliseconds(80)), *context));
    return reactor;
  }
};

TEST(ServerHandle, PortZeroPicksAPortAndTheRetryDelayArrives) {
  FullService service;
  auto server = ServerHandle::Start({.listen = "127.0.0.1:0"}, {&service});
  ASSERT_TRUE(server.ok()) << server.status();
  EXPECT_GT((*server)->port(), 0);
  EXPECT_EQ((*server)->address(), absl::StrCat("127.0.0.1:", (*server)->port()));

  auto channel = MakeChannel((*server)->address(), "upstream");
  ASSERT_TRUE(channel.ok()) << channel.status();
  auto stub = v1::Inference::NewStub(*channel);
  grpc::ClientContext context;
  SetTimeout(context, absl::Seconds(20));
  v1::GetStatusResponse response;
  const absl::Status status = FromGrpcStatus(stub->GetStatus(&context, {}, &response), context);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_EQ(RetryDelayOf(status), absl::Milliseconds(80));
}

TEST(ServerHandle, ABusyPortIsRefusedWithWhatToDo) {
  FullService service, other;
  auto first = ServerHandle::Start({.listen = "127.0.0.1:0"}, {&service});
  ASSERT_TRUE(first.ok()) << first.status();
  const auto second = ServerHandle::Start({.listen = (*first)->address()}, {&other});
  ASSERT_FALSE(second.ok());
  EXPECT_EQ(second.status().code(), absl::StatusCode::kAlreadyExists);
  EXPECT_THAT(std::string(second.status().message()), HasSubstr("is in use by another process"));
}

TEST(ServerHandle, WrongAddressesAreRefused) {
  FullService service;
  const auto no_port = ServerHandle::Start({.listen = "localhost"}, {&service});
  EXPECT_EQ(no_port.status().code(), absl::StatusCode::kInvalidArgument);
  // TEST-NET-1 (RFC 5737) is no machine's own address.
  const auto not_ours = ServerHandle::Start({.listen = "192.0.2.1:7070"}, {&service});
  ASSERT_FALSE(not_ours.ok());
  EXPECT_EQ(not_ours.status().code(), absl::StatusCode::kUnavailable);
  EXPECT_THAT(std::string(not_ours.status().message()), HasSubstr("cannot listen on 192.0.2.1:7070"));
}

TEST(PortFile, IsWrittenWholeOrNotAtAll) {
  const std::string path = (std::filesystem::path(::testing::TempDir()) / "updraft_port_file").string();
  ASSERT_TRUE(WritePortFile(path, "7070 8080").ok());
  std::string line;
  std::ifstream file(path);
  std::getline(file, line);
  EXPECT_EQ(line, "7070 8080");
  const absl::Status status = WritePortFile("/nonexistent/port", "1");
  EXPECT_THAT(std::string(status.message()), HasSubstr("port_file: cannot write '/nonexistent/port'"));
}

// In a folder of its own: with the rights of root a mistake here would replace the machine's devices.
TEST(PortFile, ReplacesNeitherPipesNorLinks) {
  namespace fs = std::filesystem;
  const fs::path folder = fs::path(::testing::TempDir()) / absl::StrCat("updraft_port_", getpid());
  fs::create_directories(folder);
  const fs::path pipe = folder / "pipe", link = folder / "link", target = folder / "target", dead = folder / "dead";
  ASSERT_EQ(mkfifo(pipe.c_str(), 0600), 0);
  std::ofstream(target) << "old";
  fs::create_symlink("target", link);
  fs::create_symlink("nowhere", dead);

  for (const fs::path& refused : {pipe, dead, folder}) {
    const absl::Status status = WritePortFile(refused.string(), "7070");
    EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
    EXPECT_THAT(std::string(status.message()), HasSubstr(refused.string()));
  }
  EXPECT_TRUE(fs::is_fifo(pipe));
  EXPECT_TRUE(fs::is_symlink(dead));

  EXPECT_TRUE(WritePortFile(link.string(), "7070").ok());
  EXPECT_TRUE(fs::is_symlink(link));
  std::string line;
  std::ifstream file(target);
  std::getline(file, line);
  EXPECT_EQ(line, "7070");
  fs::remove_all(folder);
}

TEST(Process, KnowsItsMemoryAndStart) {
  EXPECT_GT(ResidentBytes(), 1u << 20);
  const absl::Duration age = SteadyNow() - ProcessStartTime();
  EXPECT_GE(age, -absl::Milliseconds(20));
  EXPECT_LT(age, absl::Minutes(10));
}

// In a child, because the signals are blocked for the whole process and a second one ends it.
TEST(ShutdownSignal, FirstReturnsSecondEnds) {
  ::testing::FLAGS_gtest_death_test_style = "threadsafe";
  EXPECT_EXIT(
      {
        ShutdownSignal shutdown;
        kill(getpid(), SIGTERM);
        const bool first = shutdown.Wait() == SIGTERM;
        if (!first) _exit(1);
        kill(getpid(), SIGINT);
        absl::SleepFor(absl::Seconds(30));
        _exit(2);
      },
      ::testing::KilledBySignal(SIGINT), "");
}

}  // namespace
}  // namespace updraft
