#include "common/rpc/config.h"

#include <gmock/gmock.h>
#include <google/protobuf/util/message_differencer.h>
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <string>
#include <utility>
#include <vector>

#include "updraft/v1/config.pb.h"

namespace updraft {
namespace {

using ::testing::HasSubstr;

absl::StatusOr<v1::CloudConfig> Load(std::vector<const char*> args) {
  v1::CloudConfig config;
  const auto action = LoadConfig(args, &config);
  if (!action.ok()) return action.status();
  return config;
}

std::string ErrorOf(std::vector<const char*> args) {
  const auto config = Load(std::move(args));
  EXPECT_FALSE(config.ok());
  EXPECT_EQ(config.status().code(), absl::StatusCode::kInvalidArgument);
  return std::string(config.status().message());
}

class ConfigFile : public ::testing::Test {
 protected:
  const char* Write(const std::string& text) {
    path_ = (std::filesystem::path(::testing::TempDir()) / "updraft_config_test.json").string();
    std::ofstream(path_, std::ios::binary) << text;
    return path_.c_str();
  }
  std::string path_;
};

TEST(LoadConfig, DefaultsComeFromTheProto) {
  const auto config = Load({"--model", "m.gguf"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model(), "m.gguf");
  EXPECT_EQ(config->listen(), "127.0.0.1:7070");
  EXPECT_EQ(config->kv_tokens(), 32768);
  EXPECT_EQ(config->block_tokens(), 16);
  EXPECT_EQ(config->max_running(), 64);
  EXPECT_EQ(config->max_step_tokens(), 512);
  EXPECT_EQ(config->tier(), "cloud");
  EXPECT_EQ(config->threads(), 0);
  EXPECT_FALSE(config->pin());
}

// Every field of both daemons must have help, a default that parses and lies in its range, and be required or defaulted
// so that a daemon given only a model starts.
TEST(LoadConfig, EveryFieldIsDescribedAndItsDefaultWorks) {
  v1::CloudConfig cloud;
  v1::EdgeConfig edge;
  const std::vector<const char*> args = {"--model=m.gguf"};
  for (google::protobuf::Message* config :
       {static_cast<google::protobuf::Message*>(&cloud), static_cast<google::protobuf::Message*>(&edge)}) {
    const auto action = LoadConfig(args, config);
    ASSERT_TRUE(action.ok()) << action.status();
    const auto& descriptor = *config->GetDescriptor();
    const std::string help = ConfigHelp("p", "s", descriptor);
    for (int i = 0; i < descriptor.field_count(); ++i) {
      const auto& info = descriptor.field(i)->options().GetExtension(v1::info);
      EXPECT_FALSE(info.help().empty()) << descriptor.field(i)->full_name();
      EXPECT_THAT(help, HasSubstr(info.help()));
      EXPECT_THAT(help, HasSubstr(info.default_value()));
    }
  }
}

TEST(LoadConfig, BothSpellingsOfAFlag) {
  const auto config = Load({"--model=m", "--max-queued", "7", "--kv_tokens=1024", "--listen=[::1]:0"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->max_queued(), 7);
  EXPECT_EQ(config->kv_tokens(), 1024);
  EXPECT_EQ(config->listen(), "[::1]:0");
}

TEST(LoadConfig, SwitchesNeedNoValue) {
  const std::pair<std::vector<const char*>, bool> cases[] = {{{"--model=m", "--pin", "--threads=2"}, true},
                                                             {{"--pin=true", "--model=m"}, true},
                                                             {{"--model=m", "--pin=false"}, false}};
  for (const auto& [args, pin] : cases) {
    const auto config = Load(args);
    ASSERT_TRUE(config.ok()) << config.status();
    EXPECT_EQ(config->pin(), pin) << args[1];
  }
  EXPECT_THAT(ErrorOf({"--model=m", "--pin=2"}), HasSubstr("--pin: expected true|false, found '2'"));
}

TEST(LoadConfig, AListsFlagMayBeGivenSeveralTimes) {
  const auto config = Load({"--model=m", "--allow-host=a", "--allow-host", "b.c", "--allow_origin=https://d"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->allow_host(), ::testing::ElementsAre("a", "b.c"));
  EXPECT_THAT(config->allow_origin(), ::testing::ElementsAre("https://d"));
  EXPECT_TRUE(Load({"--model=m"})->allow_host().empty());
  EXPECT_THAT(ErrorOf({"--model=m", "--allow-host=a", "--allow-host=\xff"}),
              HasSubstr("allow_host: expected text in UTF-8"));
  EXPECT_THAT(ErrorOf({"--model=m", "--allow-host"}), HasSubstr("--allow-host: expected a value"));
  EXPECT_THAT(ConfigHelp("p", "s", *v1::CloudConfig::descriptor()), HasSubstr("*: any (may be given several times)"));
}

TEST_F(ConfigFile, AListsFlagsReplaceTheFilesList) {
  const char* path = Write(R"({"model": "m", "allow_host": ["a", "b"], "allowOrigin": ["https://c"]})");
  auto config = Load({"--config", path});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->allow_host(), ::testing::ElementsAre("a", "b"));
  EXPECT_THAT(config->allow_origin(), ::testing::ElementsAre("https://c"));
  config = Load({"--allow-host=d", "--config", path, "--allow-host=e"});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_THAT(config->allow_host(), ::testing::ElementsAre("d", "e"));
  EXPECT_THAT(config->allow_origin(), ::testing::ElementsAre("https://c"));
}

TEST(LoadConfig, HelpWinsOverMissingValues) {
  v1::CloudConfig config;
  const std::vector<const char*> args = {"--help"};
  const auto action = LoadConfig(args, &config);
  ASSERT_TRUE(action.ok()) << action.status();
  EXPECT_EQ(*action, ConfigAction::kShowHelp);
}

TEST(LoadConfig, RefusesByName) {
  EXPECT_THAT(ErrorOf({}), HasSubstr("model: expected path of a GGUF file, found nothing"));
  EXPECT_THAT(ErrorOf({"--model=m", "--modle=x"}), HasSubstr("unknown flag '--modle=x'"));
  EXPECT_THAT(ErrorOf({"--model"}), HasSubstr("--model: expected a value"));
  EXPECT_THAT(ErrorOf({"m.gguf"}), HasSubstr("found 'm.gguf'"));
  EXPECT_THAT(ErrorOf({"--model=m", "--max-queued=many"}), HasSubstr("--max-queued: expected integer, found 'many'"));
  EXPECT_THAT(ErrorOf({"--model=m", "--max-queued=99999999999"}), HasSubstr("--max-queued: expected integer"));
  EXPECT_THAT(ErrorOf({"--model=m", "--max-queued=0"}), HasSubstr("max_queued: expected 1 to 1000000, found 0"));
  EXPECT_THAT(ErrorOf({"--model=m", "--block-tokens=-1"}), HasSubstr("block_tokens: expected 1 to 1024, found -1"));
  EXPECT_THAT(ErrorOf({"--model=m", "--log-level=loud"}),
              HasSubstr("log_level: expected one of debug, info, warn, error"));
  EXPECT_THAT(ErrorOf({"--model=m", "--tier="}), HasSubstr("tier: expected"));
  EXPECT_THAT(ErrorOf({"--"}), HasSubstr("found '--'"));
}

// They would reach protobuf, logs and the peers' parsers.
TEST(LoadConfig, BytesThatAreNoTextAreRefused) {
  EXPECT_THAT(ErrorOf({"--model=m", "--tier=ab\xff"}),
              HasSubstr("tier: expected text in UTF-8, found byte 0xff at position 2"));
  EXPECT_THAT(ErrorOf({"--model", "m\xc3"}), HasSubstr("model: expected text in UTF-8, found byte 0xc3 at position 1"));
  EXPECT_THAT(ErrorOf({"--model=m", "--port-file=\xed\xa0\x80"}), HasSubstr("port_file: expected text in UTF-8"));
  EXPECT_TRUE(Load({"--model=\xe6\xa8\xa1.gguf"}).ok());
}

TEST_F(ConfigFile, FileIsReadAndFlagsWin) {
  const char* path = Write(R"({"model": "from-file", "max_queued": 9, "maxRunning": 3, "threads": 0})");
  const auto config = Load({"--max-queued=11", "--config", path});
  ASSERT_TRUE(config.ok()) << config.status();
  EXPECT_EQ(config->model(), "from-file");
  EXPECT_EQ(config->max_queued(), 11);
  EXPECT_EQ(config->max_running(), 3);
  EXPECT_EQ(config->kv_tokens(), 32768) << "fields that the file leaves out keep their defaults";
}

TEST_F(ConfigFile, ZeroInTheFileIsAValueAndNotTheDefault) {
  EXPECT_THAT(ErrorOf({"--model=m", "--config", Write(R"({"max_queued": 0})")}), HasSubstr("max_queued: expected 1"));
}

TEST_F(ConfigFile, RefusesByName) {
  EXPECT_THAT(ErrorOf({"--config", Write(R"({"modle": "x"})")}), HasSubstr("unknown field 'modle'"));
  EXPECT_THAT(ErrorOf({"--config", Write(R"({"model": "m", "max_queued": "many"})")}), HasSubstr("max_queued"));
  EXPECT_THAT(ErrorOf({"--config", Write(R"({"model": "m", "max_queued": 1e20})")}), HasSubstr("max_queued"));
  EXPECT_THAT(ErrorOf({"--config", Write("[1, 2]")}), HasSubstr("expected one JSON object"));
  EXPECT_THAT(ErrorOf({"--config", Write("{\"model\": ")}), HasSubstr("not JSON"));
  EXPECT_THAT(ErrorOf({"--config", Write("")}), HasSubstr("not JSON"));
  EXPECT_THAT(ErrorOf({"--config", Write(std::string(2 << 20, ' '))}), HasSubstr("larger than"));
  EXPECT_THAT(ErrorOf({"--config", "/nonexistent/x.json"}), HasSubstr("cannot read '/nonexistent/x.json'"));
}

TEST_F(ConfigFile, PrintedConfigurationReadsBack) {
  const auto config = Load({"--model=m", "--max-queued=12", "--tier=t \"q\"", "--allow-host=a", "--allow-host=b"});
  ASSERT_TRUE(config.ok());
  const auto again = Load({"--config", Write(ConfigToJson(*config))});
  ASSERT_TRUE(again.ok()) << again.status();
  EXPECT_TRUE(google::protobuf::util::MessageDifferencer::Equals(*config, *again));
}

}  // namespace
}  // namespace updraft
