// A daemon in a control group that is too small for its cache says so and ends, rather than be killed later.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <unistd.h>

#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/memory/available.h"
#include "tests/e2e/process.h"
#include "tests/e2e/two_models.h"

namespace updraft::testing {
namespace {

using ::testing::HasSubstr;
namespace fs = std::filesystem;

// A group of our own, with a limit; below where version 1 or 2 is commonly mounted. Skips where it may not be made.
class Group {
 public:
  explicit Group(uint64_t limit_bytes) {
    const std::string name = absl::StrCat("/updraft_test_", getpid());
    const std::pair<const char*, const char*> places[] = {{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
                                                          {"/sys/fs/cgroup", "memory.max"}};
    for (const auto& [place, file] : places) {
      std::error_code error;
      if (!fs::is_directory(place) || !fs::create_directory(place + name, error)) continue;
      const std::string made = place + name;
      std::ofstream(made + "/" + file) << limit_bytes << std::flush;
      std::ifstream read(made + "/" + file);
      uint64_t limit = 0;
      if ((read >> limit) && limit == limit_bytes) {
        path_ = made;
        return;
      }
      fs::remove(made, error);
    }
  }
  ~Group() {
    for (int i = 0; i < 100 && !path_.empty() && rmdir(path_.c_str()) != 0; ++i) usleep(20000);
  }
  const std::string& path() const { return path_; }  // empty: none may be made here

 private:
  std::string path_;
};

class MemoryLimitTest : public TwoModelsTest {
 protected:
  // The program with these flags in the group.
  static std::vector<std::string> Within(const Group& group, const std::string& program,
                                         const std::vector<std::string>& flags) {
    std::string command = "echo $$ > " + group.path() + "/cgroup.procs && exec " + Program(program);
    for (const std::string& flag : flags) command += " " + flag;
    return {"/bin/sh", "-c", command};
  }
};

TEST_F(MemoryLimitTest, TooLittleIsRefusedAtStartWithTheNumbers) {
  Group group(uint64_t{256} << 20);
  if (group.path().empty()) GTEST_SKIP() << "no control group with a memory limit may be made here";
  for (const std::string program : {"updraft-cloud", "updraft-edge"}) {
    SKIP_WITHOUT(program);
    // The edge's cache is the model's context at most, so the cloud's alone can be too large.
    const std::string port_file = TempPath(".ports");
    std::vector<std::string> flags = {"--model", *large_, "--listen", "127.0.0.1:0", "--port-file", port_file};
    if (program == "updraft-edge") flags.insert(flags.end(), {"--http-listen", "127.0.0.1:0"});
    if (program == "updraft-cloud") {
      std::vector<std::string> much = flags;
      much.insert(much.end(), {"--kv-tokens", "1000000"});
      Process refused(Within(group, program, much));
      EXPECT_EQ(refused.Wait(absl::Seconds(60)), 1) << refused.Output();
      EXPECT_THAT(refused.Output(), HasSubstr("memory: expected room for"));
      EXPECT_THAT(refused.Output(), HasSubstr("of 256.0 MiB"));
      EXPECT_THAT(refused.Output(), HasSubstr("lower --kv-tokens to at most "));
    }
    Process serves(Within(group, program, flags));
    bool ready = false;
    for (int i = 0; i < 6000 && !ready && serves.Wait(absl::ZeroDuration()) < 0; ++i) {
      ready = fs::exists(port_file);
      usleep(10000);
    }
    EXPECT_TRUE(ready) << serves.Output();
    serves.Signal(SIGTERM);
    EXPECT_EQ(serves.Wait(absl::Seconds(60)), 0) << serves.Output();
    fs::remove(port_file);
  }
}

}  // namespace
}  // namespace updraft::testing
