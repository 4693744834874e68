// Configuration of a daemon: a protobuf message, filled from its defaults, a JSON file and flags, in that order.
//
// Help text, default, range and choices of a field are its (updraft.v1.info) option in proto/updraft/v1/config.proto,
// so a field is described once. Fields are scalars, or lists of strings; a daemon needs no nested configuration.
#pragma once

#include <google/protobuf/message.h>

#include <cstdio>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace updraft {

enum class ConfigAction { kRun, kShowHelp };

// `args` are the words after the program's name: --config FILE, --field-name=value, --field-name value, --help. Flags
// win over the file, the file over the defaults, whatever their order. A list's flag may be given several times; all
// together they are the list. InvalidArgument names the flag or the field and
// says what works: unknown name, wrong type, outside the range, missing required value. `*config` is overwritten.
absl::StatusOr<ConfigAction> LoadConfig(std::span<const char* const> args, google::protobuf::Message* config);

// Applies the checks of the (info) options alone.
absl::Status ValidateConfig(const google::protobuf::Message& config);

// What --help prints.
std::string ConfigHelp(std::string_view program, std::string_view summary,
                       const google::protobuf::Descriptor& descriptor);

// All fields with their resolved values, one line of JSON.
std::string ConfigToJson(const google::protobuf::Message& config);

// For main(): returns the configuration, or prints help (exit 0) or what is wrong (exit 2).
template <typename Config>
Config LoadConfigOrExit(int argc, const char* const* argv, std::string_view program, std::string_view summary) {
  Config config;
  const absl::StatusOr<ConfigAction> action =
      LoadConfig(std::span<const char* const>(argv + 1, argc > 0 ? argc - 1 : 0), &config);
  if (!action.ok()) {
    std::fprintf(stderr, "%s: %s\nRun with --help for the flags.\n", std::string(program).c_str(),
                 std::string(action.status().message()).c_str());
    std::exit(2);
  }
  if (*action == ConfigAction::kShowHelp) {
    std::fputs(ConfigHelp(program, summary, *Config::descriptor()).c_str(), stdout);
    std::exit(0);
  }
  return config;
}

}  // namespace updraft
