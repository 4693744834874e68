#include "deploy/demo/client.h"

#include <algorithm>
#include <atomic>
#include <string>
#include <thread>
#include <utility>

#include "common/rpc/convert.h"
#include "common/sync/mutex.h"

namespace updraft {
namespace {

constexpr int kGiveUpAfter = 20;  // failures without one success

v1::GenerateRequest RequestOf(const TaskItem& item, const ClientOptions& options) {
  v1::GenerateRequest request;
  for (const text::ChatMessage& message : item.messages) {
    v1::Message* added = request.mutable_conversation()->add_messages();
    added->set_role(message.role);
    added->set_content(message.content);
  }
  request.set_tier(options.tier);
  request.set_include_evidence(options.include_evidence);
  return request;
}

AnswerRecord Ask(InferenceClient& client, const TaskItem& item, const ClientOptions& options) {
  AnswerRecord record;
  const auto collect_exits = [&](const v1::Chunk& chunk) {
    for (const v1::Evidence& evidence : chunk.evidence()) {
      if (evidence.exit_layer() > 0) record.exit_layers.push_back(evidence.exit_layer());
    }
    return true;
  };
  auto answer = client.Generate(RequestOf(item, options), options.timeout, collect_exits);
  if (!answer.ok()) {
    record.status = answer.status();
    return record;
  }
  const v1::Provenance& provenance = answer->done.provenance();
  record.text = answer->text;
  record.correct = IsCorrect(item, answer->text);
  for (const v1::Provenance::Span& span : provenance.spans()) {
    record.tiers += (record.tiers.empty() ? "" : " + ") + span.tier();
  }
  record.decision = DecisionFromProto(provenance.decision()).value_or(Decision::kKeep);
  record.reason = provenance.reason();
  record.confidence = provenance.confidence();
  if (provenance.has_p_right()) record.p_right = provenance.p_right();
  record.latency_ms = absl::ToDoubleMilliseconds(answer->total);
  record.first_token_ms = absl::ToDoubleMilliseconds(answer->first_chunk);
  record.bytes_up = provenance.bytes_up();
  record.bytes_down = provenance.bytes_down();
  record.mean_exit_layer = provenance.mean_exit_layer();
  record.degraded = provenance.degraded();
  record.completion_tokens = answer->done.usage().completion_tokens();
  return record;
}

}  // namespace

absl::StatusOr<std::vector<AnswerRecord>> AskAll(InferenceClient& client, const std::vector<TaskItem>& items,
                                                 const ClientOptions& options) {
  const int total = static_cast<int>(items.size());
  std::vector<AnswerRecord> records(items.size());
  std::atomic<int> next_index = 0;
  struct {
    Mutex mu;  // guards calls of on_progress, too
    int done ABSL_GUARDED_BY(mu) = 0;
    int failed ABSL_GUARDED_BY(mu) = 0;
    absl::Status hopeless ABSL_GUARDED_BY(mu);
  } all;
  const auto work = [&] {
    for (int i = next_index++; i < total; i = next_index++) {
      records[i] = Ask(client, items[i], options);
      MutexLock lock(all.mu);
      ++all.done;
      all.failed += records[i].status.ok() ? 0 : 1;
      if (all.failed == all.done && all.failed >= std::min(kGiveUpAfter, total)) {
        all.hopeless = records[i].status;
        next_index = total;
      }
      if (options.on_progress) options.on_progress(all.done, total);
    }
  };
  std::vector<std::thread> workers;
  for (int i = 0; i < std::clamp(options.concurrency, 1, std::max(total, 1)); ++i) workers.emplace_back(work);
  for (std::thread& worker : workers) worker.join();
  MutexLock lock(all.mu);
  if (!all.hopeless.ok()) return all.hopeless;
  return records;
}

}  // namespace updraft
