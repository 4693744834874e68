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
                         const AvailableMemory& available) {
  const absl::StatusOr<MemoryNeed> need = NeedOf(config, weights, kv, max_rows);
  if (!need.ok())
    return absl::Status(need.status().code(), absl::StrCat("kv_tokens: ", std::string(need.status().message())));
  LogEvent(LogLevel::kInfo, "memory",
           {{"weights_bytes", need->weights_bytes},
            {"kv_bytes", need->kv_bytes},
            {"step_bytes", need->step_bytes},
            {"other_bytes", need->other_bytes},
            {"available_bytes", available.source.empty() ? uint64_t{0} : available.bytes},
            {"source", available.source}});
  if (need->total() <= available.bytes) return absl::OkStatus();
  return absl::ResourceExhaustedError(absl::StrFormat(
      "memory: expected room for %s (weights %s, KV cache of %d tokens %s, steps of %d rows %s, the rest %s), found %s "
      "(%s); %s",
      ShowBytes(need->total()), ShowBytes(need->weights_bytes), int64_t{kv.n_blocks} * kv.block_tokens,
      ShowBytes(need->kv_bytes), max_rows, ShowBytes(need->step_bytes), ShowBytes(need->other_bytes),
      ShowBytes(available.bytes), available.source, Advice(*need, kv, available)));
}

AdmitModel AdmitWithinMemory(int kv_tokens, KvStoreOptions kv, bool one_sequence, int max_rows) {
  return [=](const ModelConfig& config, const WeightsNeed& weights) {
    KvStoreOptions wanted = kv;
    const int tokens = one_sequence ? std::min(kv_tokens, config.context_length) : kv_tokens;
    wanted.n_blocks = (tokens + wanted.block_tokens - 1) / wanted.block_tokens;
    return CheckMemory(config, weights, wanted, max_rows, ReadAvailableMemory());
  };
}

}  // namespace updraft
