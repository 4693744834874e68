// `updraft`, the tool: talks to the daemons, runs, inspects, measures and trains models. See docs/COMMAND_LINE.md.
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "deploy/tool/commands.h"

namespace updraft::tool {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "updraft: %s\n", std::string(status.message()).c_str());
  return status.code() == absl::StatusCode::kInvalidArgument ? kBadUsage : kFailure;
}

absl::Status WithFlag(const std::string& flag, const absl::Status& status) {
  return absl::Status(status.code(), absl::StrCat(flag, " ", status.message()));
}

void AddKvTypeOption(CLI::App* command, kernels::KvType* type) {
  command
      ->add_option_function<std::string>(
          "--kv-type", [type](const std::string& name) { kernels::ParseKvType(name.c_str(), *type); },
          "Numbers of keys and values: f16 (default), i8 or i4")
      ->check([](const std::string& name) {
        kernels::KvType found;
        return kernels::ParseKvType(name.c_str(), found) ? "" : "expected f16, i8 or i4, found '" + name + "'";
      });
}

namespace {

// CLI11 only says that a subcommand is required, not that this is none.
absl::Status CheckCommand(const CLI::App& app, const std::string& found) {
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands({})) names.push_back(command->get_name());
  if (std::find(names.begin(), names.end(), found) != names.end()) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrCat("no command '", found, "'; expected one of ", absl::StrJoin(names, ", ")));
}

int Main(int argc, char** argv) {
  CLI::App app{"Updraft: a small model on the device, the full model in the cloud, one answer", "updraft"};
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("updraft ") + UPDRAFT_VERSION);
  int exit_code = kOk;
  AddClientCommands(app, &exit_code);
  AddModelCommands(app, &exit_code);
  AddEvaluateCommands(app, &exit_code, argv[0]);
  AddBenchCommands(app, &exit_code);
  AddTrainCommands(app, &exit_code, argv[0]);
  AddRelayCommand(app, &exit_code);
  AddKeysCommand(app, &exit_code);
  AddDemoCommand(app, &exit_code, argv[0]);
  if (argc > 1 && argv[1][0] != '-') {
    if (absl::Status status = CheckCommand(app, argv[1]); !status.ok()) return Fail(status);
  }
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {  // CLI11 reports usage by exception; --help and --version arrive here too
    return app.exit(error) == 0 ? kOk : kBadUsage;
  }
  if (!std::cout.flush()) {
    return std::max(exit_code, Fail(absl::DataLossError("standard output: cannot be written; is there room?")));
  }
  return exit_code;
}

}  // namespace
}  // namespace updraft::tool

int main(int argc, char** argv) { return updraft::tool::Main(argc, argv); }
