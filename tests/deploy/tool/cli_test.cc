// The contract of docs/COMMAND_LINE.md, against the program itself: 0 on success only, 2 on bad usage, 1 on failure;
// JSON alone on stdout; errors that say what was expected.
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "tests/files.h"

namespace {

using nlohmann::json;
using ::testing::HasSubstr;
using updraft::testing::ReadAll;

struct Result {
  int status = -1;  // exit status; 128 + signal when one ended it
  std::string out, err;
};

class CliTest : public ::testing::Test {
 protected:
  static void SetUpTestSuite() {
    const char* bin = std::getenv("UPDRAFT_BIN_DIR");
    ASSERT_NE(bin, nullptr) << "run through ctest";
    program_ = std::string(bin) + "/updraft";
    folder_ = ::testing::TempDir() + "updraft_cli_" + std::to_string(getpid());
    std::filesystem::create_directories(folder_);
    model_ = folder_ + "/model.gguf";
    const Result made = Run("synth --shape tiny-llama --type q8_0 --out " + model_);
    ASSERT_EQ(made.status, 0) << made.err;
  }
  static void TearDownTestSuite() { std::filesystem::remove_all(folder_); }

  // `arguments` as a shell reads them; {m} stands for a model file.
  static Result Run(std::string arguments, const std::string& to = folder_ + "/out") {
    for (size_t at; (at = arguments.find("{m}")) != std::string::npos;) arguments.replace(at, 3, model_);
    const int status =
        std::system(("'" + program_ + "' " + arguments + " >" + to + " 2>" + folder_ + "/err </dev/null").c_str());
    Result result;
    result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    if (to.rfind("/dev/", 0) != 0) result.out = ReadAll(to);
    result.err = ReadAll(folder_ + "/err");
    return result;
  }

  static std::string program_, folder_, model_;
};

std::string CliTest::program_;
std::string CliTest::folder_;
std::string CliTest::model_;

TEST_F(CliTest, JsonIsAloneOnStandardOutput) {
  for (const char* arguments : {"inspect {m} --json", "tokenize --model {m} --text hello --json",
                                "generate --model {m} --prompt hello --max-tokens 4 --json",
                                "bench model --model {m} --prefill 8 --decode 4 --repeat 1 --json"}) {
    const Result result = Run(arguments);
    EXPECT_EQ(result.status, 0) << arguments << ": " << result.err;
    EXPECT_TRUE(json::accept(result.out)) << arguments << " printed " << result.out;
  }
}

// Whatever renders conversations in this process can be told how.
TEST_F(CliTest, TheChatTemplateCanBeChosen) {
  const std::string own = folder_ + "/own.jinja";
  std::ofstream(own) << "{% for m in messages %}{{ m.role }}: {{ m.content }}\n{% endfor %}assistant:";
  const std::string few = " --count 2 --max-tokens 2 --workers 1 --json";
  for (const std::string& choice : {std::string("zephyr"), own}) {
    const Result result = Run("evaluate task --model {m} --chat-template " + choice + few);
    EXPECT_EQ(result.status, 0) << choice << ": " << result.err;
    EXPECT_TRUE(json::accept(result.out)) << result.out;
  }
  const std::string model = " --model {m} --chat-template no-such", upstream = " --upstream-chat-template no-such";
  for (const std::string& arguments :
       {"evaluate task" + model, "evaluate confidence" + model, "calibrate --out " + folder_ + "/o.gguf" + model,
        "evaluate confidence --model {m} --upstream-model {m}" + upstream}) {
    const Result result = Run(arguments + few);
    EXPECT_EQ(result.status, 2) << arguments << ": " << result.err;
    EXPECT_THAT(result.err, HasSubstr("--chat-template: expected one of")) << arguments;
  }
  for (const char* both : {"evaluate pair --help", "demo --help"}) {
    EXPECT_THAT(Run(both).out, ::testing::AllOf(HasSubstr("--edge-chat-template"), HasSubstr("--cloud-chat-template")));
  }
}

TEST_F(CliTest, PinnedThreadsSayTheSame) {
  const std::string generate = "generate --model {m} --prompt hello --max-tokens 8 --threads 2";
  const Result free = Run(generate);
  const Result pinned = Run(generate + " --pin");
  ASSERT_EQ(free.status, 0) << free.err;
  ASSERT_EQ(pinned.status, 0) << pinned.err;
  EXPECT_EQ(pinned.out, free.out);
  const Result bench = Run("bench model --model {m} --prefill 8 --decode 4 --repeat 1 --threads 2 --pin --json");
  ASSERT_EQ(bench.status, 0) << bench.err;
  EXPECT_THAT(json::parse(bench.out)["backend"].get<std::string>(), HasSubstr(", 2 threads, pinned"));
}

TEST_F(CliTest, ExitDepthCountsTheTokensThatWereChosen) {
  const Result result = Run("generate --model {m} --prompt hello --max-tokens 40 --json");
  ASSERT_EQ(result.status, 0) << result.err;
  const json inspected = json::parse(Run("inspect {m} --json").out);
  // Without exits every token runs through all layers, also the one that ends the answer.
  EXPECT_EQ(json::parse(result.out)["mean_exit_layer"].get<double>(),
            inspected.at("metadata").at("llama.block_count").get<double>());
}

TEST_F(CliTest, BadUsageIsTwoAndSaysWhatWasExpected) {
  struct Case {
    const char* arguments;
    const char* says;
  };
  const Case cases[] = {
      {"", "subcommand"},
      {"nosuch", "no command 'nosuch'; expected one of"},
      {"tokenize --model {m} --file /", "--file '/': is a folder"},
      {"tokenize --model {m} --decode 1,,3", "separated by commas"},
      {"tokenize --model {m} --text a --decode 1", "--decode"},
      {"tokenize --model {m} --file /dev/null --decode 1", "--decode"},
      {"evaluate perplexity --model {m} --text /", "--text '/': is a folder"},
      {"generate --model {m}", "--prompt"},
      {"generate --model {m} --prompt x --threads 100000", "--threads"},
      {"generate --model {m} --prompt x --threads -3", "--threads"},
      {"generate --model {m} --prompt ''", "--prompt"},
      {"generate --model {m} --prompt x --exit never", "off, lossless or lossy"},
      {"generate --model {m} --prompt x --temperature=-1", "temperature"},
      {"generate --model {m} --prompt x --kv-type f32", "expected f16, i8 or i4, found 'f32'"},
      {"bench model --model {m} --repeat 0", "--repeat"},
      {"bench kernels --svg /dev/null", "--svg: '/dev/null' exists and is not a regular file"},
      {"synth --shape foo --out /tmp/x.gguf", "--shape: shape 'foo' is not known; expected one of"},
      {"synth --shape tiny-llama --type q9 --out /tmp/x.gguf", "q9"},
      {"synth --shape tiny-llama --type q4_0 --out /dev/null", "not a regular file"},
      {"ask --edge 127.0.0.1:82607 hello", "82607"},
      {"ask --edge 127.0.0.1:9 \"$(printf 'warm\\377er')\"", "message: is not valid UTF-8 at byte 4 of 7"},
      {"ask --edge localhost hello", "HOST:PORT"},
      {"status --edge 127.0.0.1:0", "127.0.0.1:0"},
      {"evaluate task --model {m} --edge 127.0.0.1:1", "exactly one"},
      {"calibrate --model {m} --out never.gguf --delta 1", "--delta"},
      {"relay --listen 127.0.0.1:0", "--to"},
      {"relay --listen 127.0.0.1:0 --to 127.0.0.1:9 --rate-up 0", "--rate-up: expected 1 to"},
      {"relay --listen 127.0.0.1:0 --to 127.0.0.1:9 --event 3:jump:1", "--event: expected SECONDS:KIND:SECONDS"},
      {"relay --listen 127.0.0.1:0 --to 127.0.0.1:9 --format mp3", "--format: expected one of detect, road"},
      {"relay --listen 127.0.0.1:0 --to 127.0.0.1:9 --queue-bytes 1", "queue-bytes: expected 1500 to"},
      {"relay --listen 127.0.0.1:0 --to here", "HOST:PORT"},
  };
  for (const Case& bad : cases) {
    const Result result = Run(bad.arguments);
    EXPECT_EQ(result.status, 2) << bad.arguments << ": " << result.err;
    EXPECT_THAT(result.err + result.out, HasSubstr(bad.says)) << bad.arguments;
  }
  struct stat info;
  ASSERT_EQ(stat("/dev/null", &info), 0);
  EXPECT_TRUE(S_ISCHR(info.st_mode));
}

// Files that others read with a guess: the guess is said, by the tool and in the daemons' logs.
TEST_F(CliTest, WhatATokenizerForgivesIsSaid) {
  std::string bytes = ReadAll(model_);
  const auto at = [&](const std::string& key) { return bytes.find(key) + key.size(); };
  bytes[at("tokenizer.ggml.pr")] = 'x';  // no key tokenizer.ggml.pre any more
  bytes.replace(at("tokenizer.ggml.eos_token_id") + 4, 4, std::string("\xff\xff\xff\x7f", 4));  // after its type
  const std::string odd = folder_ + "/odd.gguf";
  std::ofstream(odd, std::ios::binary) << bytes;
  const char* const keys[] = {"tokenizer.ggml.pre: expected the name", "tokenizer.ggml.eos_token_id: expected an id"};
  const Result shown = Run("inspect " + odd), as_json = Run("inspect " + odd + " --json");
  const Result generated = Run("generate --model " + odd + " --prompt hello --max-tokens 2");
  ASSERT_EQ(generated.status, 0) << generated.err;
  EXPECT_EQ(json::parse(as_json.out)["warnings"].size(), 2u);
  EXPECT_EQ(json::parse(Run("inspect {m} --json").out)["warnings"].size(), 0u);
  for (const char* key : keys) {
    EXPECT_THAT(shown.out, HasSubstr(std::string("warning       ") + key));
    EXPECT_THAT(generated.err, HasSubstr(std::string("updraft: warning: ") + key));
  }
  for (const std::string daemon : {"-cloud", "-edge"}) {
    if (!std::filesystem::exists(program_ + daemon)) continue;  // not built
    // Loads the model, and ends because the address is none of this machine's.
    const std::string log = folder_ + "/daemon";
    const std::string command = program_ + daemon + " --model " + odd + " --listen 192.0.2.1:0 >" + log + " 2>&1";
    EXPECT_NE(std::system(command.c_str()), 0);
    for (const char* key : keys) EXPECT_THAT(ReadAll(log), HasSubstr(std::string("problem=\"") + key));
  }
}

TEST_F(CliTest, InspectSaysWhatCannotBeRun) {
  std::string bytes = ReadAll(model_);
  const std::string key = "general.architecture";
  const size_t at = bytes.find(key) + key.size() + 4 + 8;  // after the value's type and length
  ASSERT_EQ(bytes.substr(at, 5), "llama");
  bytes.replace(at, 5, "gemma");
  const std::string foreign = folder_ + "/foreign.gguf";
  std::ofstream(foreign, std::ios::binary) << bytes;
  const std::string why = "architecture 'gemma' is not supported; expected llama, qwen2 or qwen3";
  const Result shown = Run("inspect " + foreign), as_json = Run("inspect " + foreign + " --json");
  EXPECT_EQ(shown.status, 0);
  EXPECT_THAT(shown.out, HasSubstr("warning       cannot be run: "));
  EXPECT_THAT(shown.out, HasSubstr("is not supported; expected llama, qwen2 or qwen3"));
  EXPECT_THAT(json::parse(as_json.out)["warnings"].at(0).get<std::string>(), HasSubstr(why));
  EXPECT_THAT(Run("generate --prompt x --model " + foreign).err, HasSubstr(why));
}

TEST_F(CliTest, FailureIsOneAndNamesTheObject) {
  for (const char* arguments : {"inspect /nonexistent/x.gguf", "generate --model /nonexistent/x.gguf --prompt x",
                                "bench peers --model {m} --peers /nonexistent"}) {
    const Result result = Run(arguments);
    EXPECT_EQ(result.status, 1) << arguments;
    EXPECT_THAT(result.err, HasSubstr("/nonexistent")) << arguments;
    EXPECT_EQ(result.out, "") << arguments;
  }
  const std::string road = folder_ + "/road.csv";
  std::ofstream(road) << "time_s,rate_down\n0,1e6\n3,nan\n";
  const Result relayed = Run("relay --listen 127.0.0.1:0 --to 127.0.0.1:9 --trace " + road);
  EXPECT_EQ(relayed.status, 1);
  EXPECT_THAT(relayed.err, HasSubstr(road + ":3: rate_down: expected a number"));
  const Result asked = Run("ask --edge 127.0.0.1:9 hello");
  EXPECT_EQ(asked.status, 1);
  EXPECT_THAT(asked.err, HasSubstr("127.0.0.1:9"));
}

TEST_F(CliTest, DamagedFilesAreFailuresOfEveryCommand) {
  const std::string whole = ReadAll(model_);
  const std::string truncated = folder_ + "/truncated.gguf", contradicting = folder_ + "/contradicting.gguf",
                    other = folder_ + "/other.gguf", text = folder_ + "/text", lines = folder_ + "/lines.jsonl";
  std::ofstream(truncated, std::ios::binary) << whole.substr(0, whole.size() / 2);
  // Sound as a container, but the layer count is larger than the file.
  std::string edited = whole;
  const std::string key = "llama.block_count";
  const size_t at = edited.find(key);
  ASSERT_NE(at, std::string::npos);
  edited[at + key.size() + 4] = 99;  // after the value's type
  std::ofstream(contradicting, std::ios::binary) << edited;
  std::ofstream(other) << "no model at all";
  std::ofstream(text) << std::string(4000, 'x');
  std::ofstream(lines) << "{\"prompt\": 3}\n";
  const std::vector<std::string> commands = {"generate --prompt x --model ",
                                             "bench model --prefill 4 --decode 2 --repeat 1 --model ",
                                             "evaluate perplexity --context 64 --text " + text + " --model ",
                                             "evaluate task --count 2 --model ",
                                             "calibrate --count 2 --out " + folder_ + "/never --model ",
                                             "inspect "};
  for (const std::string& file : {truncated, other, contradicting}) {
    for (const std::string& command : commands) {
      if (file == contradicting && command == "inspect ") continue;  // shows what the file says
      const Result result = Run(command + file);
      EXPECT_EQ(result.status, 1) << command << file << ": " << result.err;
      EXPECT_THAT(result.err, HasSubstr(file)) << command;
    }
  }
  const Result read = Run("evaluate task --model {m} --data " + lines);
  EXPECT_EQ(read.status, 1);
  EXPECT_THAT(read.err, HasSubstr(lines));
}

// A pair without labels: what cannot come to an end is said before hours are spent, and nothing is half written.
TEST_F(CliTest, PairsThatCannotBeCalibratedAreRefused) {
  const std::string prompts = folder_ + "/prompts.jsonl", out = folder_ + "/calibrated.gguf";
  const auto write = [&](int n, const std::string& last) {
    std::ofstream file(prompts);
    for (int i = 0; i < n; ++i) file << R"({"prompt":"question )" << i << "\"}\n";
    file << last << "\n";
  };
  struct Case {
    int n;
    std::string last, arguments;
    int status;
    const char* words;
  };
  const std::string endless = R"({"prompt":")" + std::string(20000, 'x') + "\"}", own = " --upstream-model {m}";
  const Case cases[] = {{49, "", own, 2, "at least 50 to fit on, found 49"},
                        {60, "", "", 2, "--upstream-model FILE or --upstream HOST:PORT"},
                        {60, "", own + " --upstream 127.0.0.1:1", 2, "found both"},
                        {60, "", own + " --data " + prompts, 2, "found both"},
                        {60, endless, own, 2, "prompt 61: has"},
                        {60, R"({"prompt":""})", own, 1, "line 61: the prompt is empty"},
                        {60, "", " --upstream 127.0.0.1:1", 1, "127.0.0.1:1"},
                        {60, "", " --upstream nonsense", 2, "nonsense"},
                        {60, "", " --upstream-model " + prompts, 1, prompts.c_str()},
                        {60, "", own + " --report /nonexistent/folder/page.html", 1, "/nonexistent/folder/page.html"},
                        {60, "", own + " --outcomes " + folder_, 1, "it is no file"},
                        {60, "", " --outcomes " + folder_ + "/t.jsonl", 2, "needs an upstream"},
                        {60, "", own, 2, "found only as good ones"}};
  for (const Case& test : cases) {
    write(test.n, test.last);
    const Result result = Run("calibrate --model {m} --prompts " + prompts + " --out " + out + test.arguments +
                              " --max-tokens 3 --workers 1 --json");
    EXPECT_EQ(result.status, test.status) << test.arguments << ": " << result.err;
    EXPECT_THAT(result.err, HasSubstr(test.words)) << test.arguments;
    EXPECT_EQ(result.out, "");
    EXPECT_FALSE(std::filesystem::exists(out));
  }
  const Result nowhere = Run("calibrate --model {m} --prompts " + prompts + own + " --out /nonexistent/folder/o.gguf");
  EXPECT_EQ(nowhere.status, 1);
  EXPECT_THAT(nowhere.err, HasSubstr("/nonexistent/folder/o.gguf"));
}

TEST_F(CliTest, OutputThatCannotBeWrittenIsAFailure) {
  for (const char* arguments : {"inspect {m}", "tokenize --model {m} --text hello --json"}) {
    EXPECT_EQ(Run(arguments, "/dev/full").status, 1) << arguments;
  }
}

TEST_F(CliTest, PackedWeightsAreKeptOnRequestAndAnswerTheSame) {
  const std::string generate = "generate --model {m} --prompt hello --max-tokens 20 --json";
  const std::string cache = folder_ + "/packed";
  const Result plain = Run(generate);
  ASSERT_EQ(plain.status, 0) << plain.err;
  EXPECT_FALSE(std::filesystem::exists(cache));
  for (const char* round : {"written", "read"}) {
    const Result result = Run(generate + " --packed-cache " + cache);
    EXPECT_EQ(result.status, 0) << round << ": " << result.err;
    EXPECT_EQ(result.out, plain.out) << round;
    EXPECT_EQ(result.err, "") << round;
  }
  const Result warned = Run(generate + " --packed-cache {m}");
  EXPECT_EQ(warned.status, 0);
  EXPECT_EQ(warned.out, plain.out);
  EXPECT_THAT(warned.err, HasSubstr("updraft: warning: packed weights"));
}

TEST_F(CliTest, HelpAndVersionSucceed) {
  EXPECT_EQ(Run("--help").status, 0);
  EXPECT_EQ(Run("bench --help").status, 0);
  EXPECT_THAT(Run("--version").out, HasSubstr("updraft "));
}

// The key itself is told once; the file has its hash, and is its owner's alone.
TEST_F(CliTest, KeysAreMadeForTenants) {
  const std::string file = folder_ + "/keys";
  const Result first = Run("keys --tenant ann --file " + file), second = Run("keys --tenant bob --file " + file);
  ASSERT_EQ(first.status, 0) << first.err;
  ASSERT_EQ(second.status, 0) << second.err;
  EXPECT_THAT(first.out, ::testing::StartsWith("sk-"));
  EXPECT_NE(first.out, second.out);
  struct stat found = {};
  ASSERT_EQ(stat(file.c_str(), &found), 0);
  EXPECT_EQ(found.st_mode & 0777, 0600u);
  const std::string text = ReadAll(file);
  EXPECT_THAT(text, ::testing::MatchesRegex("ann [0-9a-f]{64}\nbob [0-9a-f]{64}\n"));
  EXPECT_EQ(text.find(first.out.substr(3, 20)), std::string::npos);
  // What is no file of keys is left as it is.
  const std::string other = folder_ + "/other";
  std::ofstream(other) << "precious\n";
  chmod(other.c_str(), 0600);
  const Result refused = Run("keys --tenant ann --file " + other);
  EXPECT_EQ(refused.status, 2) << refused.err;
  EXPECT_THAT(refused.err, HasSubstr("expected a file of keys, found line 1"));
  EXPECT_EQ(ReadAll(other), "precious\n");
  EXPECT_EQ(Run("keys --tenant 'a b' --file " + file).status, 2);
  EXPECT_EQ(Run("keys --tenant ann --file /no/such/folder/keys").status, 1);
}

}  // namespace
