// train, train router, cockpit-data. Training models needs libtorch, so it lives in a sibling program that devices and
// servers do without.
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <iostream>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "deploy/tool/commands.h"
#include "deploy/tool/router_commands.h"
#include "deploy/train/cockpit/example.h"
#include "deploy/train/cockpit/generator.h"

namespace updraft::tool {
namespace {

// Replaces this process by updraft-train beside it (or on PATH) with the same arguments.
absl::Status ExecTrainer(const std::string& program, const std::vector<std::string>& args) {
  std::error_code error;
  std::filesystem::path self = std::filesystem::read_symlink("/proc/self/exe", error);
  if (error) self = program;
  const std::string trainer = (self.parent_path() / "updraft-train").string();
  std::vector<char*> argv;
  std::string name = trainer;
  argv.push_back(name.data());
  std::vector<std::string> copies = args;
  for (std::string& arg : copies) argv.push_back(arg.data());
  argv.push_back(nullptr);
  execv(trainer.c_str(), argv.data());
  return absl::NotFoundError(absl::StrCat("train: cannot run '", trainer, "' (", std::strerror(errno),
                                          "); install libtorch with ./run deps --train and build again"));
}

void AddTrain(CLI::App& app, int* exit_code, const std::string& program) {
  CLI::App* command =
      app.add_subcommand("train", "Train a model from a recipe (runs updraft-train); `train router`: fit a router");
  command->prefix_command();  // everything after `train` belongs to the trainer, or to `train router`
  command->callback([command, exit_code, program] {
    std::vector<std::string> arguments = command->remaining();
    if (arguments.empty() || arguments.front() != "router") {
      *exit_code = Fail(ExecTrainer(program, arguments));
      return;
    }
    arguments.erase(arguments.begin());
    *exit_code = TrainRouter(std::move(arguments));
  });
}

void AddCockpitData(CLI::App& app, int* exit_code) {
  struct Flags {
    std::string split = "test", out = "-";
    int count = 2000;
    uint64_t seed = 1;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("cockpit-data", "Write generated cockpit conversations as JSONL");
  command->add_option("--split", flags->split, "train, calibrate or test (wording, entities and numbers are disjoint)")
      ->check(CLI::IsMember({"train", "calibrate", "test"}));
  command->add_option("--count", flags->count, "Examples")->check(CLI::Range(1, 100'000'000));
  command->add_option("--seed", flags->seed, "Generator seed");
  command->add_option("--out", flags->out, "File; -: stdout");
  command->callback([flags, exit_code] {
    const cockpit::Split split = flags->split == "train"       ? cockpit::Split::kTrain
                                 : flags->split == "calibrate" ? cockpit::Split::kCalibrate
                                                               : cockpit::Split::kTest;
    std::ofstream file;
    if (flags->out != "-") file.open(flags->out, std::ios::binary | std::ios::trunc);
    std::ostream& out = flags->out == "-" ? std::cout : file;
    cockpit::Generator generator(flags->seed, split);
    for (int i = 0; i < flags->count && out; ++i) out << cockpit::ToJsonLine(generator.Next()) << "\n";
    out.flush();
    if (!out)
      *exit_code = Fail(absl::DataLossError(absl::StrCat("cannot write '", flags->out, "': ", std::strerror(errno))));
  });
}

}  // namespace

void AddTrainCommands(CLI::App& app, int* exit_code, const std::string& program) {
  AddTrain(app, exit_code, program);
  AddCockpitData(app, exit_code);
}

}  // namespace updraft::tool
