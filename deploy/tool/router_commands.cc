// train router, evaluate router.
#include "deploy/tool/router_commands.h"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/gguf/reader.h"
#include "common/gguf/writer.h"
#include "common/routing/router.h"
#include "deploy/calibrate/calibrate.h"
#include "deploy/router/evaluate.h"
#include "deploy/router/fit.h"
#include "deploy/router/outcomes.h"
#include "deploy/tool/commands.h"

namespace updraft::tool {
namespace {

struct RouterFlags {
  std::vector<std::string> data;
  std::string without, out, model, router;
  RouterFitOptions fit;
  int folds = 10, resamples = 1000;
  uint64_t seed = 1;
  bool as_json = false;
};

absl::StatusOr<std::vector<RouterOutcome>> ReadTables(const RouterFlags& flags) {
  std::vector<RouterOutcome> rows;
  for (const std::string& path : flags.data) {
    auto table = ReadOutcomes(path, flags.without);
    if (!table.ok()) return WithFlag("--data", table.status());
    rows.insert(rows.end(), table->begin(), table->end());
  }
  return rows;
}

// A copy of the model with the router in it, or a file that holds the router alone.
absl::Status WriteRouter(const Router& router, const RouterFlags& flags) {
  if (!flags.model.empty()) {
    auto file = gguf::File::Open(flags.model);
    if (!file.ok()) return WithFlag("--model", file.status());
    return CopyWithMetadata(*file, flags.out, [&](gguf::Writer& writer) { router.AddTo(writer); });
  }
  auto writer = gguf::Writer::Create(flags.out);
  if (!writer.ok()) return writer.status();
  writer->SetString("general.architecture", "updraft-router");
  router.AddTo(*writer);
  return writer->Finish();
}

absl::Status RunTrain(const RouterFlags& flags) {
  auto rows = ReadTables(flags);
  if (!rows.ok()) return rows.status();
  auto router = FitRouter(*rows, flags.fit);
  if (!router.ok()) return router.status();
  if (absl::Status status = WriteRouter(*router, flags); !status.ok()) return WithFlag("--out", status);
  double fixes = 0.0, breaks = 0.0;
  for (const RouterOutcome& row : *rows) {
    fixes += row.fixes();
    breaks += row.breaks();
  }
  const Router::Metadata& metadata = router->metadata();
  if (flags.as_json) {
    std::cout << nlohmann::json{{"n", rows->size()},  {"fixes", fixes},
                                {"breaks", breaks},   {"grams", metadata.grams.size()},
                                {"l2", flags.fit.l2}, {"data_fingerprint", metadata.data_fingerprint}}
                     .dump()
              << "\n";
  } else {
    std::cout << absl::StrFormat(
        "router fitted on %d rows (strong fixes %.0f, breaks %.0f): %d n-grams, %d facts -> %s\n"
        "how well it ranks: updraft evaluate router --data TABLE (by folds), or --router %s on another table\n",
        rows->size(), fixes, breaks, metadata.grams.size(), metadata.facts.size(), flags.out, flags.out);
  }
  return absl::OkStatus();
}

absl::StatusOr<std::optional<Router>> LoadRouter(const std::string& path) {
  if (path.empty()) return std::optional<Router>();
  auto file = gguf::File::Open(path);
  if (!file.ok()) return WithFlag("--router", file.status());
  auto router = Router::FromGguf(*file);
  if (!router.ok()) return WithFlag("--router", router.status());
  if (!router->has_value()) {
    return absl::InvalidArgumentError(
        absl::StrCat("--router '", path, "': holds no router; `updraft train router` makes one"));
  }
  return router;
}

absl::Status RunEvaluate(const RouterFlags& flags) {
  auto router = LoadRouter(flags.router);
  if (!router.ok()) return router.status();
  auto rows = ReadTables(flags);
  if (!rows.ok()) return rows.status();
  RouterEvaluationOptions options;
  options.router = router->has_value() ? &**router : nullptr;
  options.fit = flags.fit;
  options.folds = flags.folds;
  options.resamples = flags.resamples;
  options.seed = flags.seed;
  if (!flags.as_json && isatty(STDERR_FILENO) != 0) {
    options.on_progress = [](int done, int total) {
      std::fprintf(stderr, "\rfolds %d / %d%s", done, total, done == total ? "\n" : "");
    };
  }
  auto report = EvaluateRouter(*rows, options);
  if (!report.ok()) return report.status();
  std::cout << (flags.as_json ? ToJson(*report) : ToText(*report)) << "\n";
  return absl::OkStatus();
}

void AddTableOptions(CLI::App* command, RouterFlags* flags) {
  command
      ->add_option("--data", flags->data,
                   "Table of outcomes, JSONL or CSV: prompt, weak, strong (true, false or 0 to 1); may be repeated")
      ->required();
  command->add_option("--without", flags->without, "Field of the tables: rows where it is set are left out");
  command->add_option("--l2", flags->fit.l2, "Pull of the weights towards 0")->check(CLI::Range(1e-3, 1e6));
  command->add_option("--max-grams", flags->fit.max_grams, "N-grams to keep, the most frequent")
      ->check(CLI::Range(size_t{0}, Router::kMaxGrams));
  command->add_flag("--json", flags->as_json, "One JSON object on stdout");
}

}  // namespace

int TrainRouter(std::vector<std::string> arguments) {
  RouterFlags flags;
  CLI::App command{"Fit a score of prompts before the first token: what going up would gain", "updraft train router"};
  AddTableOptions(&command, &flags);
  command.add_option("--out", flags.out, "GGUF file to write")->required();
  command.add_option("--model", flags.model, "GGUF file to put it into, which --out is a copy of; may be the same");
  std::reverse(arguments.begin(), arguments.end());  // as CLI11 takes them
  try {
    command.parse(arguments);
  } catch (const CLI::ParseError& error) {
    return command.exit(error) == 0 ? kOk : kBadUsage;
  }
  const absl::Status status = RunTrain(flags);
  return status.ok() ? kOk : Fail(status);
}

void AddEvaluateRouterCommand(CLI::App& evaluate, int* exit_code) {
  auto flags = std::make_shared<RouterFlags>();
  CLI::App* command = evaluate.add_subcommand(
      "router", "How well a score before the first token ranks requests: APGR, CPT, cost curve, fixed and broken");
  AddTableOptions(command, flags.get());
  CLI::Option* folds =
      command->add_option("--folds", flags->folds, "Fit and score by folds of the table")->check(CLI::Range(2, 100));
  command->add_option("--router", flags->router, "GGUF file with a router to measure instead")->excludes(folds);
  command->add_option("--resamples", flags->resamples, "Of the rows, for the intervals")
      ->check(CLI::Range(100, 100'000));
  command->add_option("--seed", flags->seed, "Of folds, ties and resamples");
  command->callback([flags, exit_code] {
    if (absl::Status status = RunEvaluate(*flags); !status.ok()) *exit_code = Fail(status);
  });
}

}  // namespace updraft::tool
