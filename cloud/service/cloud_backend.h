// The engine as fronts see it (common/serving/backend.h): requests of the wire in, chunks and provenance out.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <utility>

#include "cloud/engine/engine.h"
#include "cloud/service/answer_feed.h"
#include "cloud/service/engine_request.h"
#include "common/serving/backend.h"
#include "common/serving/disposition_rule.h"
#include "common/telemetry/metrics.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

struct CloudBackendOptions {
  std::string tier = "cloud";
  RequestLimits limits;
  DispositionRule disposition_rule;  // of the model
};

class CloudBackend final : public Backend {
 public:
  // All three must outlive the backend.
  CloudBackend(const ServedModel* model, engine::Engine* engine, Metrics* metrics, CloudBackendOptions options)
      : tier_{.name = std::move(options.tier),
              .model = model,
              .engine = engine,
              .metrics = metrics,
              .rule = std::move(options.disposition_rule)},
        limits_(options.limits) {}

  RequestHandle Submit(v1::GenerateRequest request, SteadyTime deadline, std::shared_ptr<AnswerSink> sink) override;
  v1::Load CurrentLoad() const override;
  v1::GetStatusResponse Status() const override;
  const ServedModel& served() const override { return *tier_.model; }
  int max_sequence_tokens() const override { return limits_.max_sequence_tokens; }
  bool draining() const override { return draining_; }
  void RefreshMetrics(Metrics* metrics) const override;

  // New requests are refused with Unavailable from here on.
  void BeginDrain() { draining_ = true; }

 private:
  const FeedTier tier_;
  const RequestLimits limits_;
  std::atomic<bool> draining_{false};
};

}  // namespace updraft
