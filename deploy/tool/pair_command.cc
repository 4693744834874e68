// evaluate pair: a pair of tiers on sets of requests, each set asked of the edge alone, of the cloud alone and as the
// routing policy decides.
#include <filesystem>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/files/atomic_file.h"
#include "deploy/demo/demo.h"
#include "deploy/tool/commands.h"
#include "deploy/tool/tiers.h"

namespace updraft::tool {
namespace {

using nlohmann::json;

struct PairFlags {
  TierFlags tiers;
  std::vector<std::string> data;
  std::string results;
  int concurrency = 2;
  bool as_json = false;
};

struct Set {
  std::string name;
  std::vector<TaskItem> items;
};

absl::StatusOr<std::vector<Set>> ReadSets(const std::vector<std::string>& paths) {
  std::vector<Set> sets;
  for (const std::string& path : paths) {
    auto items = ReadTask(path);
    if (!items.ok()) return items.status();
    const std::filesystem::path file(path);
    // Sets from several folders tend to have the same names.
    sets.push_back({file.parent_path().filename() / file.stem(), *std::move(items)});
  }
  return sets;
}

json FileFacts(const std::string& path, const std::string& adapter) {
  std::error_code error;
  json facts = {{"file", std::filesystem::path(path).filename()}, {"bytes", std::filesystem::file_size(path, error)}};
  if (!adapter.empty()) facts["adapter"] = FileFacts(adapter, "");
  return facts;
}

// One set in three ways. Prints as it goes unless everything is to be one JSON object.
absl::StatusOr<json> Measure(const PairFlags& flags, const DemoOptions& options, const Set& set) {
  const std::pair<const char*, v1::TierChoice> ways[] = {{"edge", v1::TIER_CHOICE_LOCAL_ONLY},
                                                         {"cloud", v1::TIER_CHOICE_UPSTREAM_ONLY},
                                                         {"together", v1::TIER_CHOICE_UNSPECIFIED}};
  json measured = {{"set", set.name}};
  for (const auto& [name, tier] : ways) {
    const auto report = EvaluateTaskOnEdge(options, set.items, tier);
    if (!report.ok()) return report.status();
    measured[name] = json::parse(ToJson(*report));
    if (!flags.as_json) std::cout << "\n== " << set.name << ", " << name << "\n" << ToText(*report) << std::flush;
  }
  return measured;
}

absl::Status Write(const std::string& path, const std::string& text) {
  auto file = AtomicFile::Create(path);
  if (!file.ok()) return WithFlag("--results", file.status());
  if (absl::Status status = file->Append(std::as_bytes(std::span(text))); !status.ok()) return status;
  return file->Commit();
}

absl::Status EvaluatePair(const PairFlags& flags, const std::string& program) {
  const auto sets = ReadSets(flags.data);
  if (!sets.ok()) return sets.status();
  const sigset_t signals = BlockSignals();
  auto tiers = StartTiers(flags.tiers, ProgramFolder(program));
  if (!tiers.ok()) return tiers.status();
  json results = {{"edge", FileFacts(flags.tiers.edge_model, flags.tiers.edge_adapter)},
                  {"cloud", FileFacts(flags.tiers.cloud_model, flags.tiers.cloud_adapter)},
                  {"sets", json::array()}};
  const absl::Status status = WhileWatched(*tiers, signals, [&](std::stop_token stop) {
    DemoOptions options;
    options.edge_address = absl::StrCat("127.0.0.1:", tiers->edge.grpc_port);
    options.concurrency = flags.concurrency;
    options.progress = !flags.as_json;
    options.stop = std::move(stop);
    for (const Set& set : *sets) {
      auto measured = Measure(flags, options, set);
      if (!measured.ok()) return measured.status();
      results["sets"].push_back(*std::move(measured));
    }
    return absl::OkStatus();
  });
  if (!status.ok()) return status;
  if (flags.as_json) std::cout << results.dump() << "\n";
  return flags.results.empty() ? absl::OkStatus() : Write(flags.results, results.dump(1) + "\n");
}

}  // namespace

void AddPairCommand(CLI::App& evaluate, int* exit_code, const std::string& program) {
  auto flags = std::make_shared<PairFlags>();
  flags->tiers.out = "build/pair";
  CLI::App* command = evaluate.add_subcommand(
      "pair", "Starts both tiers and asks them sets of requests: edge alone, cloud alone, as routing decides");
  command->add_option("--data", flags->data, "JSONL files of requests; may be given several times")->required();
  AddTierOptions(command, &flags->tiers);
  command->add_option("--results", flags->results, "File for everything that was measured, JSON");
  command->add_option("--concurrency", flags->concurrency, "Queries in flight")->check(CLI::Range(1, 1024));
  command->add_flag("--json", flags->as_json, "One JSON object on stdout");
  command->callback([flags, exit_code, program] {
    if (absl::Status status = EvaluatePair(*flags, program); !status.ok()) *exit_code = Fail(status);
  });
}

}  // namespace updraft::tool
