#include "common/serving/admission.h"

#include <algorithm>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/telemetry/log.h"

namespace updraft {
namespace {

// What to change: fewer KV tokens, if some would fit.
std::string Advice(const MemoryNeed& need, const KvStoreOptions& kv, const AvailableMemory& available) {
  const uint64_t without_kv = need.total() - need.kv_bytes;
  const uint64_t left = available.bytes - std::min(available.bytes, without_kv);
  const uint64_t n_blocks = left / std::max<uint64_t>(1, need.kv_bytes / static_cast<uint64_t>(kv.n_blocks));
  if (n_blocks == 0) return "choose a smaller model, or allow the process more memory";
  std::string advice = absl::StrFormat("lower --kv-tokens to at most %d", n_blocks * kv.block_tokens);
  if (kv.type == kernels::KvType::kF16) advice += ", store it smaller (--kv-type i8)";
  return advice + ", choose a smaller model, or allow the process more memory";
}

}  // namespace

absl::Status CheckMemory(const ModelConfig& config, const WeightsNeed& weights, const KvStoreOptions& kv, int max_rows,
                         const AvailableMemory& available, int n_at_once) {
  const absl::StatusOr<MemoryNeed> need = NeedOf(config, weights, kv, max_rows, n_at_once);
  if (!need.ok())
    return absl::Status(need.status().code(), absl::StrCat("kv_tokens: ", std::string(need.status().message())));
  LogEvent(LogLevel::kInfo, "memory",
           {{"weights_bytes", need->weights_bytes},
            {"kv_bytes", need->kv_bytes},
            {"step_bytes", need->step_bytes},
            {"other_bytes", need->other_bytes},
            {"available_bytes", available.source.empty() ? uint64_t{0} : available.bytes},
            {"source", available.source}});
  const uint64_t counted = available.less_mapped ? std::min(weights.in_place_bytes, need->total()) : 0;
  if (need->total() - counted <= available.bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrFormat(
      "memory: expected room for %s (weights %s, KV cache of %d tokens %s, steps of %d rows %s, the rest %s), found %s "
      "(%s); %s",
      ShowBytes(need->total()), ShowBytes(need->weights_bytes), int64_t{kv.n_blocks} * kv.block_tokens,
      ShowBytes(need->kv_bytes), max_rows, ShowBytes(need->step_bytes), ShowBytes(need->other_bytes),
      ShowBytes(available.bytes), available.source, Advice(*need, kv, available)));
}

int KvTokensOf(const ServedAtOnce& served, const ModelConfig& config) {
  if (served.n_in_turn == 0) return served.kv_tokens;
  return static_cast<int>(std::min<int64_t>(served.kv_tokens, int64_t{served.n_in_turn} * config.context_length));
}

AdmitModel AdmitWithinMemory(const ServedAtOnce& served) {
  return [served](const ModelConfig& config, const WeightsNeed& weights) {
    KvStoreOptions wanted = served.kv;
    wanted.n_blocks = (KvTokensOf(served, config) + wanted.block_tokens - 1) / wanted.block_tokens;
    return CheckMemory(config, weights, wanted, served.max_rows, ReadAvailableMemory(), std::max(1, served.n_in_turn));
  };
}

}  // namespace updraft
