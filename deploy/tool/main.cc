// `updraft`, the tool: talks to the daemons, runs, inspects, measures and trains models. See docs/COMMAND_LINE.md.
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <string>

#include "deploy/tool/commands.h"

namespace updraft::tool {

int Fail(const absl::Status& status) {
  std::fprintf(stderr, "updraft: %s\n", std::string(status.message()).c_str());
  return status.code() == absl::StatusCode::kInvalidArgument ? kBadUsage : kFailure;
}

namespace {

int Main(int argc, char** argv) {
  CLI::App app{"Updraft: a small model on the device, the full model in the cloud, one answer", "updraft"};
  app.require_subcommand(1);
  app.set_version_flag("--version", std::string("updraft ") + UPDRAFT_VERSION);
  int exit_code = kOk;
  AddClientCommands(app, &exit_code);
  AddModelCommands(app, &exit_code);
  AddEvaluateCommands(app, &exit_code);
  AddBenchCommands(app, &exit_code);
  AddTrainCommands(app, &exit_code, argv[0]);
  AddDemoCommand(app, &exit_code, argv[0]);
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
