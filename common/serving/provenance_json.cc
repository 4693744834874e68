#include "common/serving/provenance_json.h"

#include <string>
#include <utility>

#include "common/cockpit/json_object.h"
#include "common/rpc/convert.h"

namespace updraft {

using http::Json;

Json ProvenanceToJson(const v1::Done& done) {
  const v1::Provenance& provenance = done.provenance();
  Json spans = Json::array();
  for (const v1::Provenance::Span& span : provenance.spans()) {
    spans.push_back({{"tier", span.tier()}, {"n_tokens", span.n_tokens()}});
  }
  Json json = {{"spans", std::move(spans)},
               {"confidence", provenance.confidence()},
               {"decision", std::string(DecisionName(provenance.decision()))},
               {"reason", provenance.reason()},
               {"degraded", provenance.degraded()},
               {"bytes_up", provenance.bytes_up()},
               {"bytes_down", provenance.bytes_down()},
               {"queue_ms", provenance.queue_ms()},
               {"local_ms", provenance.local_ms()},
               {"upstream_ms", provenance.upstream_ms()},
               {"total_ms", provenance.total_ms()},
               {"first_token_ms", provenance.first_token_ms()},
               {"mean_exit_layer", provenance.mean_exit_layer()},
               {"draft_tokens", provenance.draft_tokens()}};
  if (provenance.has_p_right()) json["p_right"] = provenance.p_right();
  if (const auto disposition = DispositionLabel(done.disposition()); !disposition.empty()) {
    json["disposition"] = std::string(disposition);
  }
  // They may come from another tier: what is no object, or a deep one, stays out.
  for (const std::string& text : done.alternatives()) {
    absl::StatusOr<Json> alternative = cockpit::ParseObject(text, "alternative");
    if (alternative.ok()) json["alternatives"].push_back(*std::move(alternative));
  }
  return json;
}

}  // namespace updraft
