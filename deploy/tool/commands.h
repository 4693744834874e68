// The subcommands of `updraft`. Each Add function declares one (or a family) on the command line; when the user chose
// it, its callback runs and stores the exit status: 0 success, 1 failure, 2 bad usage.
#pragma once

#include <CLI/App.hpp>
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>
#include <memory>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/gguf/reader.h"
#include "common/model/model.h"
#include "common/text/tokenizer.h"
#include "kernels/kv_layout.h"

namespace updraft::tool {

constexpr int kOk = 0;
constexpr int kFailure = 1;
constexpr int kBadUsage = 2;

// Prints "updraft: <message>" to stderr and gives the exit status: InvalidArgument is bad usage, everything else
// failure.
int Fail(const absl::Status& status);

// `status` with the flag that the object came from in front of its message.
absl::Status WithFlag(const std::string& flag, const absl::Status& status);

// --adapter FILE of a command that loads a model.
void AddAdapterOption(CLI::App* command, std::string* path);

// --threads N, --pin, --packed-cache DIR and --adapter FILE of a command that loads a model.
void AddLoadOptions(CLI::App* command, LoadOptions* options);

// --chat-template NAME|FILE of a command that renders conversations.
void AddChatTemplateOption(CLI::App* command, std::string* choice);

// A bar on stderr where that is a terminal.
void ShowProgress(const std::string& what, int done, int total);

// --kv-type f16|i8|i4 of a command that runs a model.
void AddKvTypeOption(CLI::App* command, kernels::KvType* type);

// Model::Load for a person: what is worth a warning goes to stderr, and so does a line of progress where stderr is a
// terminal and loading takes more than a moment.
absl::StatusOr<std::unique_ptr<Model>> LoadModel(const std::string& path, LoadOptions options);

// Tokenizer::FromGguf for a person: warnings go to stderr.
absl::StatusOr<std::shared_ptr<const text::Tokenizer>> LoadTokenizer(const gguf::File& file);

void AddClientCommands(CLI::App& app, int* exit_code);  // ask, chat, status
void AddModelCommands(CLI::App& app, int* exit_code);   // generate, tokenize, inspect, synth
// evaluate perplexity | compare | task, and those of the next two and of router_commands.h
void AddEvaluateCommands(CLI::App& app, int* exit_code, const std::string& program);
void AddPairCommand(CLI::App& evaluate, int* exit_code, const std::string& program);  // pair
// evaluate confidence, calibrate
void AddCalibrateCommands(CLI::App& app, CLI::App& evaluate, int* exit_code);
void AddBenchCommands(CLI::App& app, int* exit_code);  // bench model | kernels | peers | serve
void AddTrainCommands(CLI::App& app, int* exit_code, const std::string& program);  // train, cockpit-data
void AddRelayCommand(CLI::App& app, int* exit_code);                               // relay
void AddKeysCommand(CLI::App& app, int* exit_code);                                // keys
void AddDemoCommand(CLI::App& app, int* exit_code, const std::string& program);    // demo

}  // namespace updraft::tool
