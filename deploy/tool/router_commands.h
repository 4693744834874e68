// What `updraft train` and `updraft evaluate` have of routers.
#pragma once

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <string>
#include <vector>

namespace updraft::tool {

// Declares `evaluate router`, as the functions of commands.h do.
void AddEvaluateRouterCommand(CLI::App& evaluate, int* exit_code);

// `updraft train router`: its arguments, without these words. The exit status. Not a subcommand of `train`, which hands
// whatever comes after it to the trainer, "router" as a value of a flag included.
int TrainRouter(std::vector<std::string> arguments);

}  // namespace updraft::tool
