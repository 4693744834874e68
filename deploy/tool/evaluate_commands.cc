// evaluate perplexity | compare | task; the others are declared here and lie in files of their own.
#include <functional>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/files/file_error.h"
#include "common/files/read_file.h"
#include "common/model/model.h"
#include "common/rpc/convert.h"
#include "common/text/tokenizer.h"
#include "deploy/demo/demo.h"
#include "deploy/evaluate/compare.h"
#include "deploy/evaluate/perplexity.h"
#include "deploy/task/task.h"
#include "deploy/tool/commands.h"
#include "deploy/tool/router_commands.h"

namespace updraft::tool {
namespace {

using nlohmann::json;

// ---- perplexity, compare ------------------------------------------------------------------------------------------

struct TextFlags {
  std::string model, reference, reference_adapter, text;
  int context = 512, chunks = 0;
  LoadOptions load;
  kernels::KvType kv_type = kernels::KvType::kF16;
  bool as_json = false, reference_double = false;
};

struct TokenizedText {
  std::unique_ptr<Model> model;
  std::vector<int32_t> tokens;
  EvaluationOptions options;
};

absl::StatusOr<TokenizedText> LoadWithText(const TextFlags& flags) {
  auto text = ReadFile(flags.text);
  if (!text.ok()) return WithFlag("--text", text.status());
  TokenizedText loaded;
  auto model = LoadModel(flags.model, flags.load);
  if (!model.ok()) return model.status();
  loaded.model = *std::move(model);
  auto tokenizer = LoadTokenizer(loaded.model->file());
  if (!tokenizer.ok()) return tokenizer.status();
  auto tokens = (*tokenizer)->Encode(*text, {.add_special = true, .parse_special = false});
  if (!tokens.ok()) return tokens.status();
  loaded.tokens = *std::move(tokens);
  loaded.options.context = flags.context;
  loaded.options.chunks = flags.chunks;
  loaded.options.kv_type = flags.kv_type;
  // A file that opens texts with BOS expects it at the head of every chunk.
  if (!loaded.tokens.empty() && (*tokenizer)->bos_id() == loaded.tokens.front())
    loaded.options.bos = loaded.tokens.front();
  if (!flags.as_json) {
    loaded.options.progress = [](int done, int total) { ShowProgress("chunks", done, total); };
  }
  return loaded;
}

absl::Status RunPerplexity(const TextFlags& flags) {
  auto loaded = LoadWithText(flags);
  if (!loaded.ok()) return loaded.status();
  auto result = Perplexity(*loaded->model, loaded->tokens, loaded->options);
  if (!result.ok()) return result.status();
  if (flags.as_json) {
    std::cout << json{{"perplexity", result->perplexity},
                      {"perplexity_error", result->perplexity_error},
                      {"nll", result->nll},
                      {"tokens", result->tokens},
                      {"chunks", result->chunks}}
                     .dump()
              << "\n";
  } else {
    std::cout << absl::StrFormat("perplexity %.4f +- %.4f (%d tokens, %d chunks of %d)\n", result->perplexity,
                                 result->perplexity_error, result->tokens, result->chunks, flags.context);
  }
  return absl::OkStatus();
}

absl::Status RunCompare(const TextFlags& flags) {
  auto loaded = LoadWithText(flags);
  if (!loaded.ok()) return loaded.status();
  LoadOptions reference_load = flags.load;
  reference_load.adapter = flags.reference_adapter;
  auto reference = LoadModel(flags.reference, reference_load);
  if (!reference.ok()) return reference.status();
  absl::StatusOr<ComparisonResult> result;
  if (flags.reference_double) {
    auto model_source = ModelSource::Create(loaded->model.get(), flags.context, flags.kv_type);
    if (!model_source.ok()) return model_source.status();
    ReferenceSource reference_source(reference->get());
    result = Compare(**model_source, reference_source, loaded->tokens, loaded->options);
  } else {
    result = Compare(*loaded->model, **reference, loaded->tokens, loaded->options);
  }
  if (!result.ok()) return result.status();
  if (flags.as_json) {
    std::cout << json{{"kld_mean", result->kld_mean},
                      {"kld_mean_error", result->kld_mean_error},
                      {"kld_p99", result->kld_p99},
                      {"kld_max", result->kld_max},
                      {"top1_agreement", result->top1_agreement},
                      {"perplexity", result->perplexity},
                      {"perplexity_ratio", result->perplexity_ratio},
                      {"tokens", result->tokens}}
                     .dump()
              << "\n";
  } else {
    std::cout << absl::StrFormat(
        "KL divergence %.3g +- %.1g nats (99 %%: %.3g, max %.3g), same top token %.2f %%, perplexity %.4f = %.4f of "
        "the reference's, %d tokens\n",
        result->kld_mean, result->kld_mean_error, result->kld_p99, result->kld_max, 100 * result->top1_agreement,
        result->perplexity, result->perplexity_ratio, result->tokens);
  }
  return absl::OkStatus();
}

void AddTextOptions(CLI::App* command, TextFlags* flags) {
  command->add_option("--model", flags->model, "GGUF file")->required();
  command->add_option("--text", flags->text, "Text file")->required();
  command->add_option("--context", flags->context, "Tokens per chunk; the first half of each is not scored")
      ->check(CLI::Range(4, 1 << 20));
  command->add_option("--chunks", flags->chunks, "0: all")->check(CLI::Range(0, 1 << 30));
  AddKvTypeOption(command, &flags->kv_type);
  AddLoadOptions(command, &flags->load);
  command->add_flag("--json", flags->as_json, "One JSON object on stdout");
}

// ---- task ----------------------------------------------------------------------------------

struct TaskFlags {
  std::string model, adapter, chat_template, edge, data, exit = "off", tier = "auto", answers, split = "test";
  int count = 2000, workers = 2, concurrency = 2, max_tokens = 256;
  uint64_t seed = 1;
  bool as_json = false;
};

absl::StatusOr<ExitMode> ParseExit(const std::string& name) {
  if (name == "off") return ExitMode::kOff;
  if (name == "lossless") return ExitMode::kLossless;
  if (name == "lossy") return ExitMode::kLossy;
  return absl::InvalidArgumentError(absl::StrCat("--exit: expected off, lossless or lossy, found '", name, "'"));
}

absl::Status RunTask(const TaskFlags& flags) {
  const cockpit::Split split = flags.split == "train"       ? cockpit::Split::kTrain
                               : flags.split == "calibrate" ? cockpit::Split::kCalibrate
                                                            : cockpit::Split::kTest;
  auto items = flags.data.empty() ? CockpitTask(split, flags.count, flags.seed) : ReadTask(flags.data);
  if (!items.ok()) return items.status();
  if (flags.model.empty() == flags.edge.empty()) {
    return absl::InvalidArgumentError("evaluate task: give exactly one of --model FILE and --edge HOST:PORT");
  }
  if (!flags.edge.empty()) {
    DemoOptions options;
    options.edge_address = flags.edge;
    options.concurrency = flags.concurrency;
    options.progress = !flags.as_json;
    const v1::TierChoice tier = AskedToProto(FromName<PolicyMode>(flags.tier).value_or(PolicyMode::kAuto));
    std::vector<std::string> texts;
    auto report = EvaluateTaskOnEdge(options, *items, tier, &texts);
    if (!report.ok()) return report.status();
    if (!flags.answers.empty()) {
      if (absl::Status status = WriteAnswers(flags.answers, *items, texts); !status.ok()) return status;
    }
    std::cout << (flags.as_json ? ToJson(*report) : ToText(*report)) << "\n";
    return absl::OkStatus();
  }
  auto exit_mode = ParseExit(flags.exit);
  if (!exit_mode.ok()) return exit_mode.status();
  AnswerOptions options;
  options.adapter = flags.adapter;
  options.chat_template = flags.chat_template;
  options.exit_mode = *exit_mode;
  options.max_tokens = flags.max_tokens;
  options.n_workers = flags.workers;
  if (!flags.as_json) options.on_progress = [](int done, int total) { ShowProgress("answers", done, total); };
  std::vector<std::string> texts;
  auto report = EvaluateTask(flags.model, *items, options, &texts);
  if (!report.ok()) return report.status();
  if (!flags.answers.empty()) {
    if (absl::Status status = WriteAnswers(flags.answers, *items, texts); !status.ok()) return status;
  }
  std::cout << (flags.as_json ? ToJson(*report) : ToText(*report)) << "\n";
  return absl::OkStatus();
}

void AddDataOptions(CLI::App* command, TaskFlags* flags) {
  command->add_option("--data", flags->data,
                      "JSONL with messages and answer; without it held-out cockpit queries are generated");
  command->add_option("--count", flags->count, "Generated queries")->check(CLI::Range(1, 10'000'000));
  command->add_option("--seed", flags->seed, "Of the generated queries");
  command->add_option("--workers", flags->workers, "Threads, each with its own model")->check(CLI::Range(1, 64));
  command->add_option("--max-tokens", flags->max_tokens, "Of an answer")->check(CLI::Range(1, 1 << 20));
  command->add_flag("--json", flags->as_json, "One JSON object on stdout");
}

std::function<void()> Run(absl::Status (*function)(const TaskFlags&), std::shared_ptr<TaskFlags> flags,
                          int* exit_code) {
  return [function, flags, exit_code] {
    if (absl::Status status = function(*flags); !status.ok()) *exit_code = Fail(status);
  };
}

void AddTextCommands(CLI::App* evaluate, int* exit_code) {
  auto flags = std::make_shared<TextFlags>();
  const auto run = [flags, exit_code](absl::Status (*function)(const TextFlags&)) {
    return [flags, exit_code, function] {
      if (absl::Status status = function(*flags); !status.ok()) *exit_code = Fail(status);
    };
  };
  CLI::App* perplexity = evaluate->add_subcommand("perplexity", "Perplexity of a model on a text");
  AddTextOptions(perplexity, flags.get());
  perplexity->callback(run(RunPerplexity));

  CLI::App* compare =
      evaluate->add_subcommand("compare", "KL divergence and agreement of a model with a reference on a text");
  AddTextOptions(compare, flags.get());
  compare->add_option("--reference", flags->reference, "GGUF file with the same vocabulary")->required();
  compare->add_option("--reference-adapter", flags->reference_adapter, "LoRA GGUF beside the reference");
  compare->add_flag("--double", flags->reference_double,
                    "Run the reference in double precision on its dequantized weights (slow)");
  compare->callback(run(RunCompare));
}

}  // namespace

void AddEvaluateCommands(CLI::App& app, int* exit_code, const std::string& program) {
  CLI::App* evaluate =
      app.add_subcommand("evaluate", "Measure quality: perplexity, compare, task, pair, confidence, router");
  evaluate->require_subcommand(1);
  AddTextCommands(evaluate, exit_code);

  AddPairCommand(*evaluate, exit_code, program);
  AddEvaluateRouterCommand(*evaluate, exit_code);
  AddCalibrateCommands(app, *evaluate, exit_code);
  auto flags = std::make_shared<TaskFlags>();
  CLI::App* task = evaluate->add_subcommand("task", "Exact match, F1 and BLEU on a task, by family");
  task->add_option("--model", flags->model, "GGUF file to answer with");
  AddAdapterOption(task, &flags->adapter);
  AddChatTemplateOption(task, &flags->chat_template);
  task->add_option("--edge", flags->edge, "HOST:PORT of a running agent to ask instead");
  task->add_option("--tier", flags->tier, "With --edge: auto, local or upstream")
      ->check(CLI::IsMember({"auto", "local", "upstream"}));
  task->add_option("--concurrency", flags->concurrency, "With --edge: queries in flight")->check(CLI::Range(1, 1024));
  task->add_option("--exit", flags->exit, "Early exits: off, lossless or lossy");
  task->add_option("--answers", flags->answers, "File for every answer beside what was expected, JSONL");
  task->add_option("--split", flags->split, "Of the generated queries: train, calibrate or test")
      ->check(CLI::IsMember({"train", "calibrate", "test"}));
  AddDataOptions(task, flags.get());
  task->callback(Run(RunTask, flags, exit_code));
}

}  // namespace updraft::tool
