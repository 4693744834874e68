// `updraft train router` and `updraft evaluate router`, as scripts see them.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>

#include "common/gguf/reader.h"
#include "common/routing/router.h"
#include "tests/files.h"

namespace updraft {
namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using updraft::testing::ReadAll;
using updraft::testing::WriteAll;

struct Result {
  int status = -1;
  std::string out, err;
};

class RouterCommandsTest : public ::testing::Test {
 protected:
  RouterCommandsTest() : folder_(::testing::TempDir() + "updraft_router_cli_" + std::to_string(getpid())) {
    std::filesystem::create_directories(folder_);
    std::string table;
    for (int i = 0; i < 120; ++i) {
      const bool hard = i % 3 == 0;
      table += json{{"prompt", (hard ? "prove the theorem " : "what is the capital of ") + std::to_string(i)},
                    {"weak", hard ? 0 : 1},
                    {"strong", i % 7 == 1 ? 0 : 1}}
                   .dump() +
               "\n";
    }
    WriteAll(folder_ + "/table.jsonl", table);
  }
  ~RouterCommandsTest() override { std::filesystem::remove_all(folder_); }

  Result Run(const std::string& arguments) {
    const char* bin = std::getenv("UPDRAFT_BIN_DIR");
    EXPECT_NE(bin, nullptr) << "run through ctest";
    const std::string command = "cd '" + folder_ + "' && '" + (bin == nullptr ? "." : bin) + "/updraft' " + arguments;
    const int status = std::system((command + " >out 2>err </dev/null").c_str());
    return {WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status), ReadAll(folder_ + "/out"),
            ReadAll(folder_ + "/err")};
  }

  std::string folder_;
};

TEST_F(RouterCommandsTest, TrainsIntoAFileOfItsOwnAndMeasuresIt) {
  const Result trained = Run("train router --data table.jsonl --out router.gguf --json");
  ASSERT_EQ(trained.status, 0) << trained.err;
  EXPECT_EQ(json::parse(trained.out)["n"], 120);
  const Result own = Run("evaluate router --data table.jsonl --router router.gguf --resamples 100 --json");
  ASSERT_EQ(own.status, 0) << own.err;
  EXPECT_EQ(json::parse(own.out)["fitted_on_this_table"], true);
  const Result folds = Run("evaluate router --data table.jsonl --folds 5 --resamples 100 --seed 3 --json");
  ASSERT_EQ(folds.status, 0) << folds.err;
  const json report = json::parse(folds.out);
  EXPECT_EQ(report["folds"], 5);
  EXPECT_EQ(report["seed"], 3);
  EXPECT_EQ(report["fixable"].get<double>() - report["breakable"].get<double>(),
            report["curve"][10]["fixed"]["value"].get<double>() - report["curve"][10]["broken"]["value"].get<double>());
  const Result text = Run("evaluate router --data table.jsonl --folds 5 --resamples 100 --seed 3");
  EXPECT_THAT(text.out, HasSubstr("100 resamples of the rows, seed 3"));
}

TEST_F(RouterCommandsTest, PutsItIntoACopyOfAModel) {
  ASSERT_EQ(Run("synth --shape tiny-llama --type q8_0 --out model.gguf").status, 0);
  const Result trained = Run("train router --data table.jsonl --model model.gguf --out routed.gguf");
  ASSERT_EQ(trained.status, 0) << trained.err;
  auto before = gguf::File::Open(folder_ + "/model.gguf"), after = gguf::File::Open(folder_ + "/routed.gguf");
  ASSERT_TRUE(before.ok() && after.ok());
  ASSERT_EQ(after->tensors().size(), before->tensors().size());
  for (size_t i = 0; i < before->tensors().size(); ++i) {
    EXPECT_TRUE(std::ranges::equal(before->tensors()[i].data, after->tensors()[i].data));
  }
  auto router = Router::FromGguf(*after);
  ASSERT_TRUE(router.ok() && router->has_value()) << router.status();
  EXPECT_GT((*router)->Predict(RouterInputOf("prove the theorem 3")).gain(),
            (*router)->Predict(RouterInputOf("what is the capital of 4")).gain());
  const Result generated = Run("generate --model routed.gguf --prompt hello --max-tokens 2");
  EXPECT_EQ(generated.status, 0) << generated.err;
}

TEST_F(RouterCommandsTest, SaysWhatCannotBeDone) {
  EXPECT_EQ(Run("train router --out router.gguf").status, 2);
  EXPECT_EQ(Run("evaluate router --data table.jsonl --folds 1").status, 2);
  EXPECT_EQ(Run("evaluate router --data table.jsonl --folds 5 --router router.gguf").status, 2);
  WriteAll(folder_ + "/bad.jsonl", ReadAll(folder_ + "/table.jsonl") + "{\"prompt\": 1}\n");
  const Result bad = Run("train router --data bad.jsonl --out router.gguf");
  EXPECT_EQ(bad.status, 1);
  EXPECT_THAT(bad.err, HasSubstr("line 121: expected \"prompt\""));
  EXPECT_FALSE(std::filesystem::exists(folder_ + "/router.gguf"));
  ASSERT_EQ(Run("synth --shape tiny-llama --type q8_0 --out model.gguf").status, 0);
  const Result none = Run("evaluate router --data table.jsonl --router model.gguf");
  EXPECT_EQ(none.status, 2);
  EXPECT_THAT(none.err, HasSubstr("holds no router"));
  // What does not begin with `router` is the trainer's.
  EXPECT_THAT(Run("train --recipe router --out x.gguf").err, ::testing::Not(HasSubstr("--data")));
  EXPECT_THAT(Run("train router --help").out, HasSubstr("--data"));
}

}  // namespace
}  // namespace updraft
