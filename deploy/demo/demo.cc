#include "deploy/demo/demo.h"

#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <thread>
#include <utility>

#include "absl/strings/str_format.h"
#include "absl/time/clock.h"
#include "common/clock/steady.h"
#include "deploy/demo/client.h"

namespace updraft {
namespace {

// A bar with the time left, redrawn in place on a terminal; one line at the end of each pass elsewhere.
class ProgressBar {
 public:
  ProgressBar(std::string name, bool enabled)
      : name_(std::move(name)),
        enabled_(enabled),
        terminal_(isatty(STDERR_FILENO) == 1),
        start_(Clock::now()),
        drawn_(start_) {}

  void Update(int done, int total) {
    if (!enabled_) return;
    const auto now = Clock::now();
    const double seconds = std::chrono::duration<double>(now - start_).count();
    const bool finished = done == total;
    if (terminal_) {
      if (!finished && std::chrono::duration<double>(now - drawn_).count() < 0.1) return;
      drawn_ = now;
      constexpr int kWidth = 30;
      std::string bar;
      for (int i = 0; i < kWidth; ++i) bar += i * total < done * kWidth ? "\u2588" : "\u2591";
      std::fprintf(stderr, "\r%-22s %s %d/%d  %4.0f s%s\033[K", name_.c_str(), bar.c_str(), done, total, seconds,
                   finished ? "\n" : absl::StrFormat(", %.0f s left", seconds / done * (total - done)).c_str());
    } else if (finished) {
      std::fprintf(stderr, "%s: %d queries in %.1f s\n", name_.c_str(), total, seconds);
    }
    std::fflush(stderr);
  }

 private:
  using Clock = std::chrono::steady_clock;
  std::string name_;
  bool enabled_, terminal_;
  Clock::time_point start_, drawn_;
};

TierFacts FactsOf(const v1::GetStatusResponse& status) {
  TierFacts facts;
  facts.tier = status.tier();
  facts.model = status.model().name();
  facts.n_parameters = status.model().n_parameters();
  facts.file_bytes = status.model().file_bytes();
  facts.n_layer = status.model().n_layer();
  facts.exit_layers.assign(status.model().exit_layers().begin(), status.model().exit_layers().end());
  facts.resident_bytes = status.resident_bytes();
  facts.ready_after_ms = status.ready_after_ms();
  return facts;
}

// The processor's name and the cores that this process may use.
std::string DescribeMachine() {
  std::string name = "unknown processor";
  std::ifstream file("/proc/cpuinfo");
  for (std::string line; std::getline(file, line);) {
    const size_t colon = line.find(':');
    if (line.rfind("model name", 0) != 0 || colon == std::string::npos || colon + 2 > line.size()) continue;
    name = line.substr(colon + 2);
    break;
  }
  return absl::StrFormat("%s, %d cores", name, std::thread::hardware_concurrency());
}

std::string LocalTime() { return absl::FormatTime("%Y-%m-%d %H:%M %Z", absl::Now(), absl::LocalTimeZone()); }

absl::StatusOr<std::vector<AnswerRecord>> RunPass(InferenceClient& client, const DemoOptions& options,
                                                  const std::vector<TaskItem>& items, const std::string& name,
                                                  v1::TierChoice tier) {
  ProgressBar bar(name, options.progress);
  ClientOptions client_options;
  client_options.tier = tier;
  client_options.concurrency = options.concurrency;
  client_options.timeout = options.timeout;
  client_options.include_evidence = tier == v1::TIER_CHOICE_LOCAL_ONLY;
  client_options.on_progress = [&bar](int done, int total) { bar.Update(done, total); };
  return AskAll(client, items, client_options);
}

absl::Status WriteFile(const std::filesystem::path& path, const std::string& content) {
  std::ofstream file(path, std::ios::binary | std::ios::trunc);
  file.write(content.data(), static_cast<std::streamsize>(content.size()));
  file.close();
  if (!file) {
    return absl::InternalError(
        absl::StrFormat("report '%s': cannot be written; is there room, and may it be?", path.string()));
  }
  return absl::OkStatus();
}

}  // namespace

absl::Status DemoOptions::Validate() const {
  if (n_queries < 1 || n_queries > 100000) {
    return absl::InvalidArgumentError(absl::StrFormat("queries: expected 1 to 100000, found %d", n_queries));
  }
  if (concurrency < 1 || concurrency > 256) {
    return absl::InvalidArgumentError(absl::StrFormat("concurrency: expected 1 to 256, found %d", concurrency));
  }
  if (timeout <= absl::ZeroDuration()) return absl::InvalidArgumentError("timeout: expected a positive duration");
  return absl::OkStatus();
}

absl::StatusOr<DemoReport> RunDemo(const DemoOptions& options) {
  if (absl::Status status = options.Validate(); !status.ok()) return status;
  return RunDemo(options, CockpitTask(cockpit::Split::kTest, options.n_queries, options.seed));
}

absl::StatusOr<DemoReport> RunDemo(const DemoOptions& options, const std::vector<TaskItem>& items) {
  if (absl::Status status = options.Validate(); !status.ok()) return status;
  if (items.empty()) return absl::InvalidArgumentError("demo: expected queries, found none");
  const auto start = std::chrono::steady_clock::now();
  InferenceClient client(options.edge_address);
  // The edge may be up before its first probe of the upstream has come back, and a first connection may fail.
  auto status = client.GetStatus(absl::Seconds(10));
  const SteadyTime give_up = SteadyNow() + options.link_patience;
  const auto may_change = [&status] {
    return status.ok() ? !status->has_upstream() : absl::IsUnavailable(status.status());
  };
  while (may_change() && SteadyNow() < give_up && !options.stop.stop_requested()) {
    absl::SleepFor(absl::Milliseconds(50));
    status = client.GetStatus(absl::Seconds(10));
  }
  if (!status.ok()) return status.status();
  if (!status->has_upstream()) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "edge '%s' has no upstream in reach (link to '%s'); start updraft-cloud and point the edge at it",
        options.edge_address, status->link().upstream()));
  }
  DemoReport report;
  report.edge = FactsOf(*status);
  report.cloud = FactsOf(status->upstream());
  report.threshold = status->routing().threshold();
  report.concurrency = options.concurrency;
  report.seed = options.seed;
  report.machine = DescribeMachine();
  report.when = LocalTime();

  const std::pair<Pass, v1::TierChoice> passes[] = {{Pass::kEdge, v1::TIER_CHOICE_LOCAL_ONLY},
                                                    {Pass::kCloud, v1::TIER_CHOICE_UPSTREAM_ONLY},
                                                    {Pass::kTogether, v1::TIER_CHOICE_UNSPECIFIED}};
  for (const TaskItem& item : items) report.records.push_back({item, {}});
  for (const auto& [pass, tier] : passes) {
    const std::string name = pass == Pass::kTogether ? "together" : absl::StrFormat("%s alone", PassName(pass));
    auto answers = RunPass(client, options, items, name, tier);
    if (!answers.ok()) return answers.status();
    for (size_t i = 0; i < items.size(); ++i) report.records[i].at(pass) = std::move((*answers)[i]);
  }
  // After the passes: memory has seen what the queries need.
  if (auto after = client.GetStatus(absl::Seconds(10)); after.ok()) report.edge = FactsOf(*after);
  report.summary = Summarize(report.records, report.edge.n_layer);
  report.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return report;
}

absl::StatusOr<LinkReport> RunLinkPass(const DemoOptions& options, const DemoReport& plain) {
  if (absl::Status status = options.Validate(); !status.ok()) return status;
  const auto start = std::chrono::steady_clock::now();
  const auto patience = absl::ToChronoMilliseconds(options.link_patience);
  InferenceClient client(options.edge_address);
  auto status = client.GetStatus(absl::Seconds(10));
  while ((!status.ok() || !status->has_upstream()) && std::chrono::steady_clock::now() - start < patience &&
         !options.stop.stop_requested()) {
    absl::SleepFor(absl::Milliseconds(50));
    status = client.GetStatus(absl::Seconds(10));
  }
  if (!status.ok()) return status.status();
  std::vector<TaskItem> items;
  for (const QueryRecord& record : plain.records) items.push_back(record.item);
  auto answers = RunPass(client, options, items, "on the road", v1::TIER_CHOICE_UNSPECIFIED);
  if (!answers.ok()) return answers.status();
  LinkReport link;
  link.answers = *std::move(answers);
  SummarizeLink(&link);
  link.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  return link;
}

absl::Status WriteReport(const DemoReport& report, const std::string& folder) {
  std::error_code error;
  std::filesystem::create_directories(folder, error);
  if (error) {
    return absl::InternalError(absl::StrFormat("report folder '%s': cannot be made: %s", folder, error.message()));
  }
  if (absl::Status status = WriteFile(std::filesystem::path(folder) / "report.json", ToJson(report)); !status.ok())
    return status;
  return WriteFile(std::filesystem::path(folder) / "report.html", ToHtml(report));
}

absl::StatusOr<EdgeTaskReport> EvaluateTaskOnEdge(const DemoOptions& options, const std::vector<TaskItem>& items,
                                                  v1::TierChoice tier, std::vector<std::string>* answer_texts) {
  if (absl::Status status = options.Validate(); !status.ok()) return status;
  InferenceClient client(options.edge_address);
  auto answers = RunPass(client, options, items, "queries", tier);
  if (!answers.ok()) return answers.status();
  EdgeTaskReport report;
  std::vector<std::string> texts;
  std::vector<double> latency;
  int escalated = 0;
  double stated = 0.0;
  for (const AnswerRecord& answer : *answers) {
    ++report.kept.n;
    if (answer.status.ok() && !answer.escalated() && !EffectOf(answer.text).asks_back) {
      ++report.kept.correct;
      ++report.wrong_among_kept.n;
      report.wrong_among_kept.correct += answer.correct ? 0 : 1;
      stated += answer.p_right.value_or(answer.confidence);
    }
    texts.push_back(answer.text);
    report.errors += answer.status.ok() ? 0 : 1;
    escalated += answer.escalated() ? 1 : 0;
    if (answer.status.ok()) latency.push_back(answer.latency_ms);
  }
  report.kept_stated = report.kept.correct > 0 ? stated / report.kept.correct : 0.0;
  for (GroupScore* score : {&report.kept, &report.wrong_among_kept}) {
    score->interval = WilsonInterval(score->correct, score->n);
  }
  report.task = ScoreAnswers(items, texts);
  report.escalated_share = items.empty() ? 0.0 : static_cast<double>(escalated) / static_cast<double>(items.size());
  report.p50_ms = Quantile(latency, 0.5);
  report.p95_ms = Quantile(latency, 0.95);
  if (answer_texts != nullptr) *answer_texts = std::move(texts);
  return report;
}

}  // namespace updraft
