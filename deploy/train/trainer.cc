#include "deploy/train/trainer.h"

#include <ATen/Parallel.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <memory>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "deploy/train/adapter/sheets.h"
#include "deploy/train/batches.h"
#include "deploy/train/checkpoint.h"
#include "deploy/train/cockpit/random.h"
#include "deploy/train/encoder.h"
#include "deploy/train/gguf_model.h"
#include "deploy/train/optimizer.h"
#include "deploy/train/transformer.h"
#include "deploy/train/workers.h"

namespace updraft::train {
namespace {

using Clock = std::chrono::steady_clock;

double SecondsSince(Clock::time_point start) { return std::chrono::duration<double>(Clock::now() - start).count(); }

// A batch on the device.
struct TensorBatch {
  torch::Tensor tokens;    // [batch, time] i64
  torch::Tensor selected;  // [n] i64: positions whose next token is learned
  torch::Tensor targets;   // [n] i64
  int64_t real_tokens = 0;
};

TensorBatch ToTensors(const Batch& batch, int32_t padding, torch::Device device) {
  int64_t time = 0, learned = 0;
  for (const Sequence& sequence : batch) {
    time = std::max<int64_t>(time, sequence.length());
    learned += sequence.length() - sequence.answer_begin;
  }
  TensorBatch out;
  out.tokens = torch::full({static_cast<int64_t>(batch.size()), time}, padding, torch::kInt64);
  out.selected = torch::empty({learned}, torch::kInt64);
  out.targets = torch::empty({learned}, torch::kInt64);
  int64_t* tokens = out.tokens.data_ptr<int64_t>();
  int64_t* selected = out.selected.data_ptr<int64_t>();
  int64_t* targets = out.targets.data_ptr<int64_t>();
  for (size_t row = 0; row < batch.size(); ++row) {
    const Sequence& sequence = batch[row];
    const int64_t start = static_cast<int64_t>(row) * time;
    std::copy(sequence.tokens.begin(), sequence.tokens.end(), tokens + start);
    out.real_tokens += sequence.length();
    for (int32_t i = sequence.answer_begin; i < sequence.length(); ++i) {
      *selected++ = start + i - 1;
      *targets++ = sequence.tokens[i];
    }
  }
  out.tokens = out.tokens.to(device);
  out.selected = out.selected.to(device);
  out.targets = out.targets.to(device);
  return out;
}

double RateAt(const TrainStep& step, int64_t tokens) {
  double rate = step.learning_rate;
  if (tokens < step.warmup_tokens)
    rate *=
        static_cast<double>(tokens + step.batch_tokens) / static_cast<double>(step.warmup_tokens + step.batch_tokens);
  const int64_t left = step.tokens - tokens;
  if (left < step.decay_tokens)
    rate *= std::max(0.0, static_cast<double>(left) / static_cast<double>(step.decay_tokens));
  return rate;
}

// Summed over the positions.
torch::Tensor LossOf(const torch::Tensor& logits, const torch::Tensor& targets, const torch::Tensor& soft,
                     const TrainStep& step) {
  torch::Tensor loss = torch::nn::functional::cross_entropy(
      logits, targets, torch::nn::functional::CrossEntropyFuncOptions().reduction(torch::kSum));
  if (soft.defined()) {
    const torch::Tensor log_probabilities = torch::log_softmax(logits / step.temperature, -1);
    // Cross-entropy against the teacher; its own entropy is a constant.
    const torch::Tensor distance = -(soft * log_probabilities).sum() * (step.temperature * step.temperature);
    loss = loss * (1 - step.distill) + distance * step.distill;
  }
  return loss;
}

// Held-out examples, of which one pass tells what greedy decoding gets right.
class Check {
 public:
  Check(int examples, int batch_tokens, int max_tokens, Encoder* encoder) {
    std::vector<Sequence> sequences;
    cockpit::Generator generator(/*seed=*/977, cockpit::Split::kCalibrate);
    for (int i = 0; i < examples; ++i) {
      Sequence sequence = encoder->EncodeExample(generator.Next(static_cast<cockpit::Family>(i % cockpit::kFamilies)));
      if (sequence.tokens.size() <= static_cast<size_t>(max_tokens)) sequences.push_back(std::move(sequence));
    }
    batches_ = CutBatches(std::move(sequences), batch_tokens);
  }

  // "exact slot 95.0 implicit ...; all 80.0", and the same for each exit.
  std::string Run(Transformer* model, int32_t padding) const {
    torch::NoGradGuard no_gradient;
    const size_t heads = 1 + model->shape().exits.size();
    std::vector<std::array<int, cockpit::kFamilies>> right(heads);
    std::array<int, cockpit::kFamilies> all{};
    for (const Batch& batch : batches_) {
      const TensorBatch tensors = ToTensors(batch, padding, model->device());
      const Transformer::Output output = model->Forward(tensors.tokens, tensors.selected);
      for (size_t head = 0; head < heads; ++head) {
        const torch::Tensor& logits = head == 0 ? output.logits : output.exits[head - 1];
        const torch::Tensor hits = logits.argmax(-1).eq(tensors.targets).to(torch::kCPU);
        const bool* hit = hits.data_ptr<bool>();
        for (const Sequence& sequence : batch) {
          const int family = static_cast<int>(sequence.family);
          right[head][family] +=
              std::all_of(hit, hit + (sequence.settings_end - sequence.answer_begin), [](bool b) { return b; });
          if (head == 0) ++all[family];
          hit += sequence.length() - sequence.answer_begin;
        }
      }
    }
    std::string out;
    for (size_t head = 0; head < heads; ++head) {
      absl::StrAppend(&out, head == 0 ? "exact" : absl::StrCat("; exit ", model->shape().exits[head - 1]));
      int sum = 0, total = 0;
      for (int f = 0; f < cockpit::kFamilies; ++f) {
        const std::string name(cockpit::FamilyName(static_cast<cockpit::Family>(f)));
        absl::StrAppendFormat(&out, " %s %.0f", name, 100.0 * right[head][f] / std::max(1, all[f]));
        sum += right[head][f];
        total += all[f];
      }
      absl::StrAppendFormat(&out, " all %.1f", 100.0 * sum / std::max(1, total));
    }
    return out;
  }

 private:
  std::vector<Batch> batches_;
};

class Run {
 public:
  Run(const Recipe& recipe, const TrainOptions& options)
      : recipe_(recipe), options_(options), device_(torch::cuda::is_available() ? torch::kCUDA : torch::kCPU) {}

  absl::Status Prepare() {
    if (absl::Status status = ReadSheets(); !status.ok()) return status;
    std::optional<BpeVocabulary> vocabulary;
    std::optional<LoadedModel> start;
    if (!recipe_.teacher.empty()) {
      absl::StatusOr<LoadedModel> teacher = ReadModel(recipe_.teacher, device_);
      if (!teacher.ok()) return teacher.status();
      vocabulary = teacher->vocabulary;
      teacher_ = std::move(teacher->model);
    }
    if (!recipe_.init_from.empty()) {
      absl::StatusOr<LoadedModel> loaded = ReadModel(recipe_.init_from, device_);
      if (!loaded.ok()) return loaded.status();
      start = *std::move(loaded);
      if (teacher_ == nullptr && recipe_.vocabulary > static_cast<int>(start->vocabulary.tokens.size())) {
        absl::StatusOr<BpeVocabulary> larger = WithWholeCharacters(start->vocabulary, Pieces(), recipe_.vocabulary);
        if (!larger.ok()) return larger.status();
        start = WithVocabulary(*start, *larger);
      }
      if (vocabulary && vocabulary->merges != start->vocabulary.merges) {
        return absl::InvalidArgumentError(
            "recipe: teacher and init_from have different tokenizers; use one model's for both");
      }
      vocabulary = start->vocabulary;
    }
    if (options_.resume) {
      absl::StatusOr<Checkpoint> checkpoint = LoadCheckpoint(CheckpointPath());
      if (!checkpoint.ok()) return checkpoint.status();
      progress_ = checkpoint->progress;
      vocabulary = checkpoint->vocabulary;
    }
    if (!vocabulary) {
      Say(absl::StrFormat("learning a tokenizer of %d tokens from %d examples", recipe_.vocabulary,
                          recipe_.tokenizer_examples));
      absl::StatusOr<BpeVocabulary> learned = TrainBpe(Pieces(), recipe_.vocabulary);
      if (!learned.ok()) return learned.status();
      vocabulary = *std::move(learned);
    }
    absl::StatusOr<Encoder> encoder = Encoder::Create(*vocabulary);
    if (!encoder.ok()) return encoder.status();
    encoder_ = std::make_unique<Encoder>(*std::move(encoder));
    model_ = std::make_unique<Transformer>(recipe_.model, static_cast<int32_t>(vocabulary->tokens.size()), recipe_.seed,
                                           device_);
    if (start && !options_.resume) {
      if (absl::Status status = InitializeFrom(*start, model_.get()); !status.ok()) return status;
    }
    if (start && recipe_.keep_start > 0) {
      if (!recipe_.keep_from.empty()) {
        absl::StatusOr<LoadedModel> kept = ReadModel(recipe_.keep_from, device_);
        if (!kept.ok()) return kept.status();
        const auto &known = kept->vocabulary.merges, &all = vocabulary->merges;
        if (known.size() > all.size() || !std::equal(known.begin(), known.end(), all.begin())) {
          return absl::InvalidArgumentError("recipe: keep_from: its tokens are not the first ones of this model's");
        }
        start = WithVocabulary(*kept, *vocabulary);
      }
      start_ = std::make_unique<Transformer>(recipe_.model, model_->vocabulary(), recipe_.seed, device_);
      if (absl::Status status = InitializeFrom(*start, start_.get()); !status.ok()) return status;
    }
    workers_ = device_.is_cpu() ? WorkerCount() : 1;
    optimizer_ = std::make_unique<Optimizer>(&model_->parameters(), workers_);
    if (options_.resume) {
      if (absl::Status status = LoadCheckpointTensors(CheckpointPath(), model_.get(), optimizer_.get()); !status.ok())
        return status;
    }
    Say(absl::StrFormat("%s: %d parameters, %d tokens in the vocabulary, %d threads, %s", recipe_.name,
                        model_->ParameterCount(), model_->vocabulary(), at::get_num_threads(), device_.str()));
    return absl::OkStatus();
  }

  absl::Status Steps() {
    last_checkpoint_ = last_check_ = Clock::now();
    while (progress_.step < recipe_.steps.size() && !stopped_) {
      if (absl::Status status = Step(recipe_.steps[progress_.step]); !status.ok()) return status;
      if (stopped_) break;
      ++progress_.step;
      progress_.step_tokens = 0;
      progress_.place = {};
      if (absl::Status status = Save(); !status.ok()) return status;
    }
    return absl::OkStatus();
  }

  absl::Status Export() {
    TrainingRecord record;
    record.recipe_fingerprint = absl::StrFormat("%016x", cockpit::HashBytes(recipe_.text));
    record.seed = recipe_.seed;
    record.tokens = progress_.total_tokens;
    record.data_version = cockpit::kDataVersion;
    if (start_ != nullptr) KeepStart();
    return WriteModel(options_.out, recipe_, record, encoder_->vocabulary(), model_.get());
  }

  bool stopped() const { return stopped_; }

 private:
  void KeepStart() {
    torch::NoGradGuard no_gradient;
    for (auto& [name, tensor] : model_->parameters()) tensor.lerp_(start_->Get(name), recipe_.keep_start);
  }

  absl::Status ReadSheets() {
    for (const auto& [name, times] : recipe_.sheets) {
      const absl::StatusOr<Sheet> sheet = ReadSheet(recipe_.sheet_folder, name);
      if (!sheet.ok()) return sheet.status();
      for (int i = 0; i < times; ++i) written_.insert(written_.end(), sheet->examples.begin(), sheet->examples.end());
    }
    if (!written_.empty()) lines_ = std::make_unique<cockpit::LineVariation>(written_);
    return absl::OkStatus();
  }
  PieceCounts Pieces() const { return CountPieces(recipe_.seed + 1000, recipe_.tokenizer_examples, written_); }
  std::string CheckpointPath() const { return options_.out + ".checkpoint"; }
  void Say(const std::string& line) const {
    if (!options_.quiet) std::fprintf(stderr, "%s\n", line.c_str());
  }
  absl::Status Save() {
    last_checkpoint_ = Clock::now();
    return SaveCheckpoint(CheckpointPath(), progress_, encoder_->vocabulary(), model_.get(), optimizer_.get());
  }

  absl::Status Step(const TrainStep& step) {
    model_->set_rounding(step.matrices, step.embedding);
    // Every step of a recipe has a stream of its own.
    BatchStream stream(recipe_.seed + 7919 * progress_.step, step.mix, step.batch_tokens, recipe_.model.context,
                       encoder_.get(), {.lines = lines_.get(), .share = step.written, .vary = step.vary});
    if (progress_.step_tokens > 0) stream.Restore(progress_.place);
    const Check check(recipe_.check_examples, step.batch_tokens, recipe_.model.context, encoder_.get());
    const int32_t padding = encoder_->vocabulary().end_of_text;
    double loss_sum = 0;
    int loss_count = 0;
    int64_t shown_tokens = progress_.total_tokens;
    Clock::time_point shown = Clock::now();
    while (progress_.step_tokens < step.tokens) {
      const Clock::time_point begin = Clock::now();
      std::vector<TensorBatch> batches;
      int64_t tokens = 0;
      for (int i = 0; i < step.batches; ++i) {
        batches.push_back(ToTensors(stream.Next(), padding, device_));
        tokens += batches.back().real_tokens;
      }
      const double loss = Update(step, batches);
      if (!std::isfinite(loss)) {
        return absl::InternalError(absl::StrFormat(
            "step '%s': the loss is %g after %d tokens; lower its learning_rate and go on from the last checkpoint",
            step.name, loss, progress_.step_tokens));
      }
      loss_sum += loss;
      ++loss_count;
      progress_.step_tokens += tokens;
      progress_.total_tokens += tokens;
      progress_.place = stream.place();
      progress_.seconds += SecondsSince(begin);
      const bool terminal = isatty(STDERR_FILENO) != 0;
      if (SecondsSince(shown) > (terminal ? 1.0 : 20.0)) {
        const double speed = static_cast<double>(progress_.total_tokens - shown_tokens) / SecondsSince(shown);
        Show(step, loss_sum / loss_count, speed, terminal);
        loss_sum = loss_count = 0;
        shown_tokens = progress_.total_tokens;
        shown = Clock::now();
      }
      if (SecondsSince(last_check_) > recipe_.check_seconds) {
        Say("\n  " + check.Run(model_.get(), padding));
        last_check_ = Clock::now();
      }
      ++updates_here_;
      stopped_ = options_.stop_after_updates > 0 && updates_here_ >= options_.stop_after_updates;
      if (stopped_ || SecondsSince(last_checkpoint_) > recipe_.checkpoint_seconds) {
        if (absl::Status status = Save(); !status.ok()) return status;
      }
      if (stopped_) return absl::OkStatus();
    }
    if (recipe_.check_examples > 0) Say("\n  " + step.name + " done: " + check.Run(model_.get(), padding));
    return absl::OkStatus();
  }

  // Loss of one batch summed over its positions; the gradients go to `model`.
  double Backward(const TrainStep& step, const TensorBatch& batch, int64_t learned, Transformer* model) const {
    torch::Tensor soft;
    if (teacher_ && step.distill > 0) {
      torch::NoGradGuard no_gradient;
      soft = torch::softmax(teacher_->Forward(batch.tokens, batch.selected).logits / step.temperature, -1);
    }
    const Transformer::Output output = model->Forward(batch.tokens, batch.selected);
    const torch::Tensor final_loss = LossOf(output.logits, batch.targets, soft, step);
    torch::Tensor loss = final_loss;
    if (step.exit_weight > 0) {
      for (const torch::Tensor& logits : output.exits)
        loss = loss + step.exit_weight * LossOf(logits, batch.targets, soft, step);
    }
    (loss / static_cast<double>(learned)).backward();
    return final_loss.item<double>();
  }

  // One step on several batches, which count by their learned positions. Worker w takes batches w, w + workers, ...
  double Update(const TrainStep& step, const std::vector<TensorBatch>& batches) {
    int64_t learned = 0;
    for (const TensorBatch& batch : batches) learned += batch.targets.numel();
    const int workers = std::min(workers_, static_cast<int>(batches.size()));
    std::vector<double> losses(batches.size());
    std::vector<std::vector<torch::Tensor>> gradients(static_cast<size_t>(workers));
    RunOnWorkers(workers, [&](int worker) {
      Transformer twin = model_->Twin();
      for (size_t i = static_cast<size_t>(worker); i < batches.size(); i += static_cast<size_t>(workers))
        losses[i] = Backward(step, batches[i], learned, &twin);
      for (auto& [name, parameter] : twin.parameters())
        gradients[static_cast<size_t>(worker)].push_back(parameter.grad());
    });
    optimizer_->Step(gradients, RateAt(step, progress_.step_tokens), step.weight_decay, step.clip);
    double loss = 0;
    for (double part : losses) loss += part;
    return loss / static_cast<double>(learned);
  }

  void Show(const TrainStep& step, double loss, double speed, bool terminal) const {
    if (options_.quiet) return;
    const double share = std::min(1.0, static_cast<double>(progress_.step_tokens) / static_cast<double>(step.tokens));
    std::string bar(24, '.');
    std::fill(bar.begin(), bar.begin() + static_cast<int>(share * 24), '#');
    const double left = static_cast<double>(step.tokens - progress_.step_tokens) / std::max(1.0, speed);
    std::fprintf(stderr, "%s[%s] %s %5.1f%%  loss %.4f  %.2f M tokens  %.0f tokens/s  %d:%02d left%s",
                 terminal ? "\r" : "", bar.c_str(), step.name.c_str(), 100 * share, loss,
                 static_cast<double>(progress_.total_tokens) / 1e6, speed, static_cast<int>(left) / 60,
                 static_cast<int>(left) % 60, terminal ? "   " : "\n");
  }

  const Recipe& recipe_;
  const TrainOptions& options_;
  torch::Device device_;
  std::vector<cockpit::Example> written_;          // lines of the sheets, each as often as it counts
  std::unique_ptr<cockpit::LineVariation> lines_;  // null: no sheets
  std::unique_ptr<Encoder> encoder_;
  std::unique_ptr<Transformer> model_, teacher_;
  std::unique_ptr<Transformer> start_;  // as the model began; null: nothing of it is kept
  std::unique_ptr<Optimizer> optimizer_;
  int workers_ = 1;
  Progress progress_;
  Clock::time_point last_checkpoint_, last_check_;
  int64_t updates_here_ = 0;
  bool stopped_ = false;
};

}  // namespace

absl::Status Train(const Recipe& recipe, const TrainOptions& options) {
  // libtorch reports with exceptions; they end here.
  try {
    Run run(recipe, options);
    if (absl::Status status = run.Prepare(); !status.ok()) return status;
    if (!options.export_only) {
      if (absl::Status status = run.Steps(); !status.ok()) return status;
      if (run.stopped()) return absl::OkStatus();
    }
    return run.Export();
  } catch (const std::exception& error) {
    return absl::InternalError(absl::StrCat("training stopped: ", error.what()));
  }
}

}  // namespace updraft::train
