// The engine as fronts see it (common/serving/backend.h): requests of the wire in, chunks and provenance out.
#pragma once

#include <atomic>
#include <memory>
#include <string>

#include "cloud/engine/engine.h"
#include "cloud/service/engine_request.h"
#include "common/serving/backend.h"
#include "common/telemetry/metrics.h"
#include "updraft/v1/inference.pb.h"

namespace updraft {

struct CloudBackendOptions {
  std::string tier = "cloud";
  RequestLimits limits;
};

class CloudBackend final : public Backend {
 public:
  // All three must outlive the backend.
  CloudBackend(const ServedModel* model, engine::Engine* engine, Metrics* metrics, CloudBackendOptions options)
      : model_(model), engine_(engine), metrics_(metrics), options_(std::move(options)) {}

  RequestHandle Submit(v1::GenerateRequest request, SteadyTime deadline, std::shared_ptr<AnswerSink> sink) override;
  v1::Load CurrentLoad() const override;
  v1::GetStatusResponse Status() const override;
  const ServedModel& served() const override { return *model_; }
  int max_sequence_tokens() const override { return options_.limits.max_sequence_tokens; }
  bool draining() const override { return draining_; }
  void RefreshMetrics(Metrics* metrics) const override;

  // New requests are refused with Unavailable from here on.
  void BeginDrain() { draining_ = true; }

 private:
  class Feed;  // the engine's end of one answer

  const ServedModel* const model_;
  engine::Engine* const engine_;
  Metrics* const metrics_;
  const CloudBackendOptions options_;
  std::atomic<bool> draining_{false};
};

}  // namespace updraft
