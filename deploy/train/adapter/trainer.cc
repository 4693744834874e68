#include "deploy/train/adapter/trainer.h"

#include <ATen/Parallel.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "deploy/train/adapter/adapted_model.h"
#include "deploy/train/adapter/held_out.h"
#include "deploy/train/adapter/lora_file.h"
#include "deploy/train/adapter/mixed_stream.h"
#include "deploy/train/checkpoint.h"
#include "deploy/train/cockpit/random.h"
#include "deploy/train/workers.h"

namespace updraft::train {
namespace {

using Clock = std::chrono::steady_clock;
using nlohmann::json;

constexpr const char* kFormat = "updraft-adapter-checkpoint-1";

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// Of the recipe's rate when `done` of its length, 0 to 1, lies behind.
double RateShare(const AdapterRecipe& recipe, double done) {
  if (done < recipe.warmup) return done / recipe.warmup;
  const double left = 1 - done;
  if (left >= recipe.decay) return 1;
  // Half a cosine: slow at both ends.
  const double fall = 0.5 * (1 - std::cos(M_PI * std::max(0.0, left) / recipe.decay));
  return recipe.final_rate + (1 - recipe.final_rate) * fall;
}

class Run {
 public:
  Run(const AdapterRecipe& recipe, const TrainOptions& options)
      : recipe_(recipe),
        options_(options),
        device_(torch::cuda::is_available() ? torch::kCUDA : torch::kCPU),
        workers_(device_.is_cpu() ? WorkerCount() : 1) {}

  absl::Status Prepare() {
    absl::StatusOr<Base> base = ReadBase(recipe_.base, recipe_.base_sha256, recipe_.max_tokens);
    if (!base.ok()) return base.status();
    base_ = *std::move(base);
    base_.MoveTo(device_);
    absl::StatusOr<ChatEncoder> encoder = ChatEncoder::Create(base_.tokenizer);
    if (!encoder.ok()) return encoder.status();
    encoder_ = *std::move(encoder);
    if (absl::Status status = ReadData(); !status.ok()) return status;
    model_ = std::make_unique<AdaptedModel>(&base_, recipe_.adapter, recipe_.seed);
    optimizer_ = std::make_unique<Optimizer>(&model_->parameters(), workers_, /*adam_alone=*/true);
    if (options_.resume) {
      if (absl::Status status = Resume(); !status.ok()) return status;
    } else if (!recipe_.init_adapter.empty()) {
      absl::Status status = ReadLora(recipe_.init_adapter, recipe_.adapter, base_, &model_->parameters());
      if (!status.ok()) return status;
    }
    model_->Merge(workers_);
    Say(absl::StrFormat("%s: %d trained numbers over %s, %d threads, %s", recipe_.name, model_->ParameterCount(),
                        base_.name, workers_, device_.str()));
    return absl::OkStatus();
  }

  absl::Status Go() {
    last_checkpoint_ = last_check_ = began_ = Clock::now();
    shown_ = began_;
    shown_tokens_ = tokens_;
    while (Done() < 1 && !PieceEnds()) {
      if (absl::Status status = Update(); !status.ok()) return status;
      if (SecondsSince(last_check_) > recipe_.check_seconds && recipe_.check_examples > 0) {
        Say("\n  " + held_out_->Run(*model_, recipe_.check_examples, workers_));
        last_check_ = Clock::now();
      }
      if (SecondsSince(last_checkpoint_) > recipe_.checkpoint_seconds) {
        if (absl::Status status = Save(); !status.ok()) return status;
      }
    }
    if (absl::Status status = Save(); !status.ok()) return status;
    if (recipe_.check_examples > 0) {
      Say(absl::StrCat("\n  ", Done() < 1 ? "so far" : "done", ": ", held_out_->Run(*model_, 0, workers_)));
    }
    return absl::OkStatus();
  }

  absl::Status Export() {
    TrainingRecord record;
    record.recipe_fingerprint = absl::StrFormat("%016x", cockpit::HashBytes(recipe_.text));
    record.seed = recipe_.seed;
    record.tokens = tokens_;
    record.data_version = cockpit::kDataVersion;
    return WriteLora(options_.out, recipe_, record, base_, model_->parameters());
  }

 private:
  std::string CheckpointPath() const { return options_.out + ".checkpoint"; }
  void Say(const std::string& line) const {
    if (!options_.quiet) std::fprintf(stderr, "%s\n", line.c_str());
  }

  // What lies behind, 0 to 1.
  double Done() const {
    return recipe_.updates > 0 ? static_cast<double>(optimizer_->updates) / static_cast<double>(recipe_.updates)
                               : seconds_ / (60 * recipe_.minutes);
  }
  bool PieceEnds() const {
    return (options_.stop_after_updates > 0 && updates_here_ >= options_.stop_after_updates) ||
           (options_.minutes > 0 && SecondsSince(began_) >= 60 * options_.minutes);
  }

  absl::Status ReadData() {
    int64_t skipped = 0, lines = 0;
    for (const auto& [name, times] : recipe_.sheets) {
      absl::StatusOr<Sheet> sheet = ReadSheet(recipe_.sheet_folder, name);
      if (!sheet.ok()) return sheet.status();
      skipped += sheet->skipped;
      lines += static_cast<int64_t>(sheet->examples.size());
      for (const cockpit::Example& example : sheet->examples) {
        data_hash_ = cockpit::HashCombine(data_hash_, cockpit::HashBytes(cockpit::ToJsonLine(example)));
      }
      sheets_.push_back(*std::move(sheet));
    }
    Say(absl::StrFormat("%d written requests on %d sheets; %d questions asked back (clarify) skipped", lines,
                        sheets_.size(), skipped));
    absl::StatusOr<HeldOut> held_out = HeldOut::Create(recipe_, *encoder_);
    if (!held_out.ok()) return held_out.status();
    held_out_ = *std::move(held_out);
    stream_ = std::make_unique<MixedStream>(recipe_, sheets_, *encoder_);
    return absl::OkStatus();
  }

  absl::Status Resume() {
    const absl::StatusOr<json> header = ReadCheckpointHeader(CheckpointPath(), kFormat);
    if (!header.ok()) return header.status();
    if (header->value("data", uint64_t{0}) != data_hash_ || header->value("base", "") != base_.sha256) {
      return absl::FailedPreconditionError(
          absl::StrCat(CheckpointPath(),
                       ": was made with another base or other sheets; to go on from what it learned name its "
                       "adapter as init_adapter in a recipe of its own"));
    }
    tokens_ = header->value("tokens", int64_t{0});
    seconds_ = header->value("seconds", 0.0);
    stream_->Restore({header->value("pool", int64_t{0}), header->value("taken", int64_t{0})});
    return ReadCheckpointTensors(CheckpointPath(), kFormat, &model_->parameters(), optimizer_.get());
  }

  absl::Status Save() {
    last_checkpoint_ = Clock::now();
    const json header = {{"format", kFormat},
                         {"data", data_hash_},
                         {"base", base_.sha256},
                         {"tokens", tokens_},
                         {"seconds", seconds_},
                         {"pool", stream_->place().pool},
                         {"taken", stream_->place().taken}};
    absl::Status status = WriteCheckpoint(CheckpointPath(), header, model_->parameters(), *optimizer_);
    return status.ok() ? Export() : status;
  }

  absl::Status Update() {
    const Clock::time_point begin = Clock::now();
    std::vector<LossBatch> batches;
    double weight = 0;
    for (int i = 0; i < recipe_.batches; ++i) {
      const Batch batch = stream_->Next();
      for (const Sequence& sequence : batch) tokens_ += sequence.length();
      batches.push_back(ToLossBatch(batch, encoder_->end()));
      weight += batches.back().weights.sum().item<double>();
    }
    std::vector<AdaptedModel::Result> results(batches.size());
    std::atomic<size_t> next{0};
    RunOnWorkers(std::min(workers_, recipe_.batches), [&](int) {
      for (size_t i = next++; i < batches.size(); i = next++) {
        batches[i].weights /= weight;
        results[i] = model_->Backward(batches[i]);
      }
    });
    double loss = 0;
    std::vector<std::vector<torch::Tensor>> gradients;  // summed in this order, whoever made them
    for (AdaptedModel::Result& result : results) {
      loss += result.loss;
      gradients.push_back(std::move(result.gradients));
    }
    if (!std::isfinite(loss)) {
      return absl::InternalError(
          absl::StrFormat("the loss is %g after %d updates; lower learning_rate and go on from the last checkpoint",
                          loss, optimizer_->updates));
    }
    optimizer_->Step(gradients, recipe_.learning_rate * RateShare(recipe_, Done()), recipe_.weight_decay, recipe_.clip);
    model_->Merge(workers_);
    ++updates_here_;
    seconds_ += SecondsSince(begin);
    Show(loss);
    return absl::OkStatus();
  }

  void Show(double loss) {
    loss_sum_ += loss;
    ++loss_count_;
    const bool terminal = isatty(STDERR_FILENO) != 0;
    if (options_.quiet || SecondsSince(shown_) < (terminal ? 1.0 : 20.0)) return;
    const double speed = static_cast<double>(tokens_ - shown_tokens_) / SecondsSince(shown_);
    std::fprintf(stderr, "%s%5.1f%%  update %lld  loss %.4f  %.3f M tokens  %.2f rounds  %.0f tokens/s  %.1f min%s",
                 terminal ? "\r" : "", 100 * Done(), static_cast<long long>(optimizer_->updates),
                 loss_sum_ / loss_count_, static_cast<double>(tokens_) / 1e6, stream_->rounds(), speed, seconds_ / 60,
                 terminal ? "   " : "\n");
    loss_sum_ = loss_count_ = 0;
    shown_tokens_ = tokens_;
    shown_ = Clock::now();
  }

  const AdapterRecipe& recipe_;
  const TrainOptions& options_;
  torch::Device device_;
  int workers_;
  Base base_;
  std::optional<ChatEncoder> encoder_;
  std::vector<Sheet> sheets_;
  uint64_t data_hash_ = 0;
  std::optional<HeldOut> held_out_;
  std::unique_ptr<MixedStream> stream_;
  std::unique_ptr<AdaptedModel> model_;
  std::unique_ptr<Optimizer> optimizer_;
  int64_t tokens_ = 0;
  double seconds_ = 0;  // spent in updates
  int64_t updates_here_ = 0;
  Clock::time_point began_, last_checkpoint_, last_check_, shown_;
  int64_t shown_tokens_ = 0;
  double loss_sum_ = 0;
  int loss_count_ = 0;
};

}  // namespace

absl::Status TrainAdapter(const AdapterRecipe& recipe, const TrainOptions& options) {
  // libtorch reports with exceptions; they end here.
  try {
    Run run(recipe, options);
    if (absl::Status status = run.Prepare(); !status.ok()) return status;
    return options.export_only ? run.Export() : run.Go();
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("training stopped: ", error.what()));
  }
}

}  // namespace updraft::train
