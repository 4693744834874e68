// calibrate, and evaluate confidence.
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <functional>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/time/time.h"
#include "common/files/atomic_file.h"
#include "deploy/calibrate/answer_store.h"
#include "deploy/calibrate/calibrate.h"
#include "deploy/calibrate/page.h"
#include "deploy/calibrate/progress_file.h"
#include "deploy/calibrate/upstream.h"
#include "deploy/task/task.h"
#include "deploy/tool/commands.h"

namespace updraft::tool {
namespace {

using nlohmann::json;

constexpr size_t kMinPrompts = 50;  // of ConfidenceModel::Fit, said before hours are spent

struct CalibrateFlags {
  std::string model, adapter, chat_template, out, data, prompts, report, outcomes, acts;
  std::string upstream, upstream_model, upstream_adapter, upstream_chat_template;
  int count = 2000, workers = 2, max_tokens = 256;
  uint64_t seed = 1;
  double max_wrong = 0.05, max_loss = 0.01, delta = 0.05, exit_budget = 0.005, max_escalated = 1.0, margin = 0.05;
  double timeout_s = 120;
  bool as_json = false;

  bool has_upstream() const { return !upstream.empty() || !upstream_model.empty(); }
};

absl::StatusOr<std::vector<TaskItem>> Items(const CalibrateFlags& flags, cockpit::Split split) {
  if (!flags.data.empty() && !flags.prompts.empty()) {
    return absl::InvalidArgumentError("--data and --prompts: expected one of them, found both");
  }
  if (!flags.data.empty()) return ReadTask(flags.data);
  if (flags.prompts.empty()) return CockpitTask(split, flags.count, flags.seed);
  auto items = ReadPrompts(flags.prompts);
  if (!items.ok()) return WithFlag("--prompts", items.status());
  const bool all_labelled =
      std::all_of(items->begin(), items->end(), [](const TaskItem& item) { return item.labelled; });
  if (!all_labelled && !flags.has_upstream()) {
    return absl::InvalidArgumentError(
        "--prompts: some have no answer to judge by; give --upstream-model FILE or --upstream HOST:PORT to judge by");
  }
  return items;
}

absl::StatusOr<std::unique_ptr<Upstream>> UpstreamOf(const CalibrateFlags& flags) {
  if (!flags.upstream.empty() && !flags.upstream_model.empty()) {
    return absl::InvalidArgumentError("--upstream and --upstream-model: expected one of them, found both");
  }
  if (!flags.upstream.empty()) {
    auto upstream = RemoteUpstream(flags.upstream, flags.max_tokens, absl::Seconds(flags.timeout_s));
    if (!upstream.ok()) return WithFlag("--upstream", upstream.status());
    return upstream;
  }
  AnswerOptions options;
  options.adapter = flags.upstream_adapter;
  options.chat_template = flags.upstream_chat_template;
  options.max_tokens = flags.max_tokens;
  options.n_workers = flags.workers;
  auto upstream = LocalUpstream(flags.upstream_model, options);
  if (!upstream.ok()) return WithFlag("--upstream-model", upstream.status());
  return upstream;
}

// Before anything is asked: a prompt that this model cannot read says nothing of it.
absl::Status CheckPrompts(const CalibrateFlags& flags, const std::vector<TaskItem>& items) {
  auto answerer = Answerer::Load(flags.model, /*n_threads=*/1, flags.adapter, flags.chat_template);
  if (!answerer.ok()) return answerer.status();
  const size_t context = static_cast<size_t>((*answerer)->model().config().context_length);
  for (size_t i = 0; i < items.size(); ++i) {
    auto tokens = (*answerer)->Render(items[i].messages);
    if (!tokens.ok()) return WithFlag(absl::StrFormat("--prompts: prompt %d", i + 1), tokens.status());
    if (tokens->size() < context) continue;
    return absl::InvalidArgumentError(absl::StrFormat(
        "--prompts: prompt %d: has %d tokens for this model, whose context is %d and must hold an answer, "
        "too; shorten it or leave it out",
        i + 1, tokens->size(), context));
  }
  return absl::OkStatus();
}

// Which run it is: who answers, and how. Findings are about single prompts, so that others may be added.
std::string RunName(const CalibrateFlags& flags, const std::string& upstream) {
  std::string name = absl::StrCat("calibrate, upstream ", upstream, ", max_tokens ", flags.max_tokens, ",");
  // A chat template may be a file as well.
  for (const std::string& path : {flags.model, flags.adapter, flags.chat_template, flags.upstream_model,
                                  flags.upstream_adapter, flags.upstream_chat_template}) {
    absl::StrAppend(&name, " '", path, "'");
    struct stat file = {};
    if (path.empty() || stat(path.c_str(), &file) != 0) continue;
    absl::StrAppend(&name, " ", file.st_size, " ", file.st_mtim.tv_sec, ".", file.st_mtim.tv_nsec);
  }
  return name;
}

// What a run needs beside its options.
struct Run {
  std::unique_ptr<Upstream> upstream;      // null: none is asked
  std::unique_ptr<ProgressFile> progress;  // null: nothing is kept
  std::unique_ptr<StoredAnswers> store;
  CalibrateOptions options;
};

CalibrateOptions OptionsOf(const CalibrateFlags& flags) {
  CalibrateOptions options;
  options.adapter = flags.adapter;
  options.chat_template = flags.chat_template;
  options.max_loss = flags.max_loss;
  options.delta = flags.delta;
  options.acts = flags.acts;
  options.max_wrong = flags.max_wrong;
  options.exit_budget = flags.exit_budget;
  options.max_escalated = flags.max_escalated;
  options.max_tokens = flags.max_tokens;
  options.likelihood_margin = flags.margin;
  options.n_workers = flags.workers;
  if (!flags.as_json) {
    options.on_progress = [](const std::string& stage, int done, int total) { ShowProgress(stage, done, total); };
  }
  return options;
}

absl::StatusOr<std::unique_ptr<Run>> RunOf(const CalibrateFlags& flags, const std::vector<TaskItem>& items) {
  auto run = std::make_unique<Run>();
  CalibrateOptions& options = run->options = OptionsOf(flags);
  if (!flags.prompts.empty()) {
    if (absl::Status status = CheckPrompts(flags, items); !status.ok()) return status;
  }
  if (flags.has_upstream()) {
    auto upstream = UpstreamOf(flags);
    if (!upstream.ok()) return upstream.status();
    run->upstream = *std::move(upstream);
  }
  if (!flags.out.empty()) {
    auto progress = ProgressFile::Open(flags.out + ".progress.jsonl",
                                       RunName(flags, run->upstream ? run->upstream->identity() : ""));
    if (!progress.ok()) return WithFlag("--out", progress.status());
    run->progress = *std::move(progress);
    std::vector<std::string> keys;
    for (const TaskItem& item : items) keys.push_back(KeyOf(item.messages));
    run->store = std::make_unique<StoredAnswers>(run->progress.get(), std::move(keys));
    options.store = run->store.get();
    if (run->progress->n_found_at_start() > 0) {
      std::cerr << absl::StrFormat("goes on with %d findings of '%s'\n", run->progress->n_found_at_start(),
                                   run->progress->path());
    }
  }
  if (!run->upstream) return run;
  options.judge = [upstream = run->upstream.get(),
                   judge = JudgeOptions{.likelihood_margin = flags.margin,
                                        .n_workers = flags.workers,
                                        .progress = run->progress.get(),
                                        .on_progress = options.on_progress,
                                        .on_silent = [](const std::string& why) {
                                          std::cerr << "where answers differ, likelihood does not judge: " << why
                                                    << "\n";
                                        }}](std::span<const TaskItem> judged, std::span<const Said> answers) {
    return JudgeAgainst(*upstream, judged, answers, judge);
  };
  return run;
}

absl::Status RunConfidence(const CalibrateFlags& flags) {
  auto items = Items(flags, cockpit::Split::kTest);
  if (!items.ok()) return items.status();
  auto run = RunOf(flags, *items);
  if (!run.ok()) return run.status();
  auto report = EvaluateConfidence(flags.model, *items, (*run)->options);
  if (!report.ok()) return report.status();
  std::cout << (flags.as_json ? ToJson(*report) : ToText(*report)) << "\n";
  return absl::OkStatus();
}

// Files appear by being renamed, so it is the folder that must take them.
absl::Status CheckWritable(const std::string& flag, const std::string& path) {
  if (path.empty()) return absl::OkStatus();
  const auto refuse = [&](const std::string& why) {
    return absl::PermissionDeniedError(
        absl::StrFormat("%s '%s': cannot be written: %s; give another file", flag, path, why));
  };
  struct stat file = {};
  if (stat(path.c_str(), &file) == 0) {
    if (!S_ISREG(file.st_mode)) return refuse("it is no file");
    if (access(path.c_str(), W_OK) != 0) return refuse(std::strerror(errno));
  }
  const std::string folder = std::filesystem::path(path).parent_path().string();
  if (access(folder.empty() ? "." : folder.c_str(), W_OK | X_OK) != 0) {
    return refuse(absl::StrFormat("its folder: %s", std::strerror(errno)));
  }
  return absl::OkStatus();
}

// What both models made of each prompt, for `updraft train router`.
absl::Status WriteOutcomes(const std::string& path, const CalibrationReport& report,
                           const std::vector<TaskItem>& items) {
  std::string rows;
  for (size_t i = 0; i < items.size(); ++i) {
    json messages = json::array();
    for (const text::ChatMessage& message : items[i].messages) {
      messages.push_back({{"role", message.role}, {"content", message.content}});
    }
    const Judgement& judgement = report.answers[i].judgement;
    const json row = {{"messages", messages}, {"weak", judgement.right}, {"strong", judgement.upstream_right}};
    rows += row.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
  }
  auto file = AtomicFile::Create(path);
  if (!file.ok()) return file.status();
  if (absl::Status status = file->Append(std::as_bytes(std::span(rows))); !status.ok()) return status;
  return file->Commit();
}

absl::Status RunCalibrate(const CalibrateFlags& flags) {
  if (!flags.outcomes.empty() && !flags.has_upstream()) {
    return absl::InvalidArgumentError("--outcomes: needs an upstream, --upstream-model FILE or --upstream HOST:PORT");
  }
  for (const auto& [flag, path] :
       {std::pair("--out", flags.out), std::pair("--report", flags.report), std::pair("--outcomes", flags.outcomes)}) {
    if (absl::Status status = CheckWritable(flag, path); !status.ok()) return status;
  }
  auto items = Items(flags, cockpit::Split::kCalibrate);
  if (!items.ok()) return items.status();
  if (!flags.prompts.empty() && items->size() < kMinPrompts) {
    return absl::InvalidArgumentError(
        absl::StrFormat("--prompts: expected at least %d to fit on, found %d", kMinPrompts, items->size()));
  }
  auto run = RunOf(flags, *items);
  if (!run.ok()) return run.status();
  auto calibration = Calibrate(flags.model, *items, (*run)->options);
  if (!calibration.ok()) return calibration.status();
  const CalibrationReport& report = calibration->report;
  // The model last: where it replaces the one that was calibrated, it is another run's from then on.
  if (!flags.report.empty()) {
    const PageNames names{.model = flags.adapter.empty() ? flags.model : flags.model + " with " + flags.adapter,
                          .upstream = (*run)->upstream ? (*run)->upstream->name() : ""};
    const absl::Status status = WriteCalibrationPage(flags.report, report, *items, names);
    if (!status.ok()) return WithFlag("--report", status);
  }
  if (!flags.outcomes.empty()) {
    const absl::Status status = WriteOutcomes(flags.outcomes, report, *items);
    if (!status.ok()) return WithFlag("--outcomes", status);
  }
  const absl::Status status = WriteCalibration(*calibration, flags.model, flags.adapter, flags.out);
  if (!status.ok()) return status;
  (*run)->progress->Remove();
  std::cout << (flags.as_json ? ToJson(report) : ToText(report)) << "\n";
  return absl::OkStatus();
}

// What both commands have.
void AddCommonOptions(CLI::App* command, CalibrateFlags* flags) {
  command->add_option("--model", flags->model, "GGUF file")->required();
  AddAdapterOption(command, &flags->adapter);
  AddChatTemplateOption(command, &flags->chat_template);
  command->add_option("--upstream-model", flags->upstream_model,
                      "GGUF file of whoever stands above; without it or --upstream that one counts as always right");
  command->add_option("--upstream-adapter", flags->upstream_adapter, "LoRA GGUF beside the upstream's model");
  command->add_option("--upstream-chat-template", flags->upstream_chat_template,
                      "As --chat-template, of the upstream's model");
  command->add_option("--upstream", flags->upstream, "HOST:PORT of a running tier that stands above");
  command->add_option("--upstream-timeout", flags->timeout_s, "Seconds for one answer of a running tier")
      ->check(CLI::Range(0.1, 86400.0));
  command
      ->add_option("--likelihood-margin", flags->margin,
                   "Of an answer without a label that is not upstream's: by how many nats per token upstream may find "
                   "its own likelier")
      ->check(CLI::Range(0.0, 100.0));
  command->add_option("--prompts", flags->prompts,
                      "JSONL with messages or a prompt, and an answer where one is known; others are judged by "
                      "upstream's");
  command->add_option(
      "--data", flags->data,
      "JSONL with messages and answer; without it and --prompts held-out cockpit queries are generated");
  command->add_option("--count", flags->count, "Generated queries")->check(CLI::Range(1, 10'000'000));
  command->add_option("--seed", flags->seed, "Of the generated queries");
  command->add_option("--workers", flags->workers, "Threads, each with its own model")->check(CLI::Range(1, 64));
  command->add_option("--max-tokens", flags->max_tokens, "Of an answer")->check(CLI::Range(1, 1 << 20));
  command->add_option("--delta", flags->delta, "Probability that --max-loss and --max-wrong may be broken with")
      ->check(CLI::Range(1e-6, 1.0 - 1e-6));
  command->add_flag("--json", flags->as_json, "One JSON object on stdout");
}

void AddCalibrateOptions(CLI::App* command, CalibrateFlags* flags) {
  command
      ->add_option("--out", flags->out,
                   "GGUF file to write: the model, or its adapter where there is one; may be the same")
      ->required();
  command->add_option("--report", flags->report, "HTML page to write: reliability, risk by coverage, where it fails");
  command->add_option("--outcomes", flags->outcomes,
                      "JSONL to write: of each prompt, how right this model and upstream were, for train router");
  command
      ->add_option("--max-loss", flags->max_loss,
                   "Share of all requests that may be kept and wrong where upstream would have been right")
      ->check(CLI::Range(1e-6, 1.0 - 1e-6));
  command->add_option("--acts", flags->acts, "The answers act on something, of this task; written into the file")
      ->check(CLI::IsMember({"cockpit"}));
  command
      ->add_option(
          "--max-wrong", flags->max_wrong,
          "Where answers act: share of all requests that may be acted on wrongly where nobody stands above; below "
          "the probability that keeps to it, the tier asks back")
      ->check(CLI::Range(1e-6, 1.0 - 1e-6));
  command->add_option("--max-escalated", flags->max_escalated, "Hand over no more than this share, whatever that costs")
      ->check(CLI::Range(0.0, 1.0));
  command->add_option("--exit-budget", flags->exit_budget, "Share of answers that lossy exits may change");
}

}  // namespace

void AddCalibrateCommands(CLI::App& app, CLI::App& evaluate, int* exit_code) {
  auto flags = std::make_shared<CalibrateFlags>();
  const auto run = [flags, exit_code](absl::Status (*function)(const CalibrateFlags&)) {
    return [flags, exit_code, function] {
      if (absl::Status status = function(*flags); !status.ok()) *exit_code = Fail(status);
    };
  };
  CLI::App* confidence =
      evaluate.add_subcommand("confidence", "How well a file's calibrated confidence does on held-out data");
  AddCommonOptions(confidence, flags.get());
  confidence->callback(run(RunConfidence));

  CLI::App* calibrate = app.add_subcommand(
      "calibrate", "Fit confidence, threshold and exits of an edge model; write them into a new file");
  AddCommonOptions(calibrate, flags.get());
  AddCalibrateOptions(calibrate, flags.get());
  calibrate->callback(run(RunCalibrate));
}

}  // namespace updraft::tool
