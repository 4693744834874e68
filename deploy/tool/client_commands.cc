// ask, chat, status: talk to a running agent (or directly to a cloud service: it serves the same interface).
#include <google/protobuf/util/json_util.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/rpc/convert.h"
#include "common/rpc/inference_client.h"
#include "deploy/tool/commands.h"

namespace updraft::tool {
namespace {

struct AskFlags {
  std::string text, edge = "127.0.0.1:7071", tier = "auto";
  int max_tokens = 0, timeout_s = 60;
  double temperature = 0.0;
  bool as_json = false;
};

absl::StatusOr<v1::TierChoice> ParseTier(const std::string& name) {
  if (const auto asked = FromName<PolicyMode>(name)) return AskedToProto(*asked);
  return absl::InvalidArgumentError(absl::StrCat("--tier: expected auto, local or upstream, found '", name, "'"));
}

absl::StatusOr<std::string> ToJson(const google::protobuf::Message& message) {
  google::protobuf::util::JsonPrintOptions options;
  options.preserve_proto_field_names = true;
  options.always_print_primitive_fields = true;
  std::string text;
  const auto status = google::protobuf::util::MessageToJsonString(message, &text, options);
  if (!status.ok()) return absl::InternalError("cannot render the reply as JSON");
  return text;
}

// "edge" or "edge+cloud": the tiers that wrote the answer.
std::string Tiers(const v1::Provenance& provenance) {
  std::string tiers;
  for (const auto& span : provenance.spans()) {
    if (span.n_tokens() == 0) continue;
    absl::StrAppend(&tiers, tiers.empty() ? "" : "+", span.tier());
  }
  return tiers.empty() ? "nobody" : tiers;
}

void PrintProvenance(const ClientAnswer& answer) {
  const v1::Provenance& p = answer.done.provenance();
  std::fprintf(
      stderr,
      "[%s] %s | confidence %.2f | %.0f ms (first token %.0f) | %llu B up, %llu B down | mean exit layer %.1f%s\n",
      Tiers(p).c_str(), p.reason().c_str(), p.confidence(), absl::ToDoubleMilliseconds(answer.total),
      absl::ToDoubleMilliseconds(answer.first_chunk), static_cast<unsigned long long>(p.bytes_up()),
      static_cast<unsigned long long>(p.bytes_down()), p.mean_exit_layer(), p.degraded() ? " | degraded" : "");
}

// Not a flag: others see those of a process.
std::string KeyFromEnvironment() {
  const char* key = std::getenv("UPDRAFT_API_KEY");
  return key == nullptr ? "" : key;
}

absl::StatusOr<v1::GenerateRequest> RequestOf(const AskFlags& flags) {
  auto tier = ParseTier(flags.tier);
  if (!tier.ok()) return tier.status();
  v1::GenerateRequest request;
  request.set_tier(*tier);
  request.set_max_tokens(flags.max_tokens);
  request.mutable_sampling()->set_temperature(static_cast<float>(flags.temperature));
  return request;
}

absl::Status Ask(const AskFlags& flags) {
  auto request = RequestOf(flags);
  if (!request.ok()) return request.status();
  v1::Message* message = request->mutable_conversation()->add_messages();
  message->set_role("user");
  message->set_content(flags.text);
  InferenceClient client(flags.edge, KeyFromEnvironment());
  auto answer = client.Generate(*request, absl::Seconds(flags.timeout_s), [&](const v1::Chunk& chunk) {
    if (!flags.as_json) std::cout << chunk.text() << std::flush;
    return true;
  });
  if (!answer.ok()) return answer.status();
  if (!flags.as_json) {
    std::cout << "\n";
    PrintProvenance(*answer);
    return absl::OkStatus();
  }
  auto done = ToJson(answer->done);
  if (!done.ok()) return done.status();
  nlohmann::json out = nlohmann::json::parse(*done);
  out["text"] = answer->text;
  out["total_ms"] = absl::ToDoubleMilliseconds(answer->total);
  out["first_token_ms"] = absl::ToDoubleMilliseconds(answer->first_chunk);
  std::cout << out.dump() << "\n";
  return absl::OkStatus();
}

absl::Status Chat(const AskFlags& flags) {
  auto request = RequestOf(flags);
  if (!request.ok()) return request.status();
  InferenceClient client(flags.edge, KeyFromEnvironment());
  const bool interactive = isatty(STDIN_FILENO) != 0;
  if (interactive) std::fprintf(stderr, "Talking to %s. An empty line or Ctrl-D ends.\n", flags.edge.c_str());
  std::string line;
  while (true) {
    if (interactive) std::cerr << "> " << std::flush;
    if (!std::getline(std::cin, line) || line.empty()) return absl::OkStatus();
    v1::Message* user = request->mutable_conversation()->add_messages();
    user->set_role("user");
    user->set_content(line);
    auto answer = client.Generate(*request, absl::Seconds(flags.timeout_s), [](const v1::Chunk& chunk) {
      std::cout << chunk.text() << std::flush;
      return true;
    });
    std::cout << "\n";
    if (!answer.ok()) return answer.status();
    PrintProvenance(*answer);
    v1::Message* assistant = request->mutable_conversation()->add_messages();
    assistant->set_role("assistant");
    assistant->set_content(answer->text);
  }
}

// Only transfers beyond the first flight of a connection tell a rate.
std::string RateText(double bytes_per_s) {
  return bytes_per_s > 0.0 ? absl::StrFormat("%.0f kB/s", bytes_per_s / 1e3) : "not measured";
}

void PrintTier(const v1::GetStatusResponse& s) {
  std::cout << absl::StrFormat(
      "%-6s %s, %d layers, %.1f MB, context %d, up %.0f s, resident %.0f MB, ready after %.0f ms\n", s.tier(),
      s.model().name(), s.model().n_layer(), static_cast<double>(s.model().file_bytes()) / 1e6,
      s.model().context_length(), s.uptime_s(), static_cast<double>(s.resident_bytes()) / 1e6, s.ready_after_ms());
  std::cout << absl::StrFormat("       load: %d running, %d queued, KV %.0f %% used, wait %.0f ms\n",
                               s.load().running_requests(), s.load().queued_requests(),
                               100.0 * s.load().kv_used_fraction(), s.load().predicted_wait_ms());
}

absl::Status Status(const AskFlags& flags) {
  InferenceClient client(flags.edge, KeyFromEnvironment());
  auto status = client.GetStatus(absl::Seconds(5));
  if (!status.ok()) return status.status();
  if (flags.as_json) {
    auto text = ToJson(*status);
    if (!text.ok()) return text.status();
    std::cout << *text << "\n";
    return absl::OkStatus();
  }
  PrintTier(*status);
  if (status->has_link() && !status->link().upstream().empty()) {
    const v1::Link& link = status->link();
    std::cout << absl::StrFormat("link   %s %s, rtt %.1f ms (+-%.1f), up %s, down %s, %d samples, newest %.0f s old\n",
                                 link.upstream(), link.reachable() ? "reachable" : "UNREACHABLE", link.rtt_ms(),
                                 link.rtt_jitter_ms(), RateText(link.goodput_up_bytes_per_s()),
                                 RateText(link.goodput_down_bytes_per_s()), link.samples(), link.age_s());
  }
  if (status->has_routing()) {
    const v1::RoutingSummary& r = status->routing();
    std::cout << absl::StrFormat(
        "route  policy %s, threshold %.3f: %d requests, %d kept, %d handed over, %d upstream, %d degraded\n",
        r.policy(), r.threshold(), r.requests(), r.kept(), r.handed_over(), r.streamed_upstream(), r.degraded());
  }
  if (status->has_upstream()) PrintTier(status->upstream());
  return absl::OkStatus();
}

void AddAskOptions(CLI::App* command, AskFlags* flags) {
  command->add_option("--edge", flags->edge, "HOST:PORT of the agent's gRPC service");
  command->add_option("--tier", flags->tier, "auto, local or upstream");
  command->add_option("--max-tokens", flags->max_tokens, "0: the agent's default")->check(CLI::Range(0, 1 << 20));
  command->add_option("--temperature", flags->temperature, "0: greedy");
  command->add_option("--timeout", flags->timeout_s, "Seconds")->check(CLI::Range(1, 3600));
}

}  // namespace

void AddClientCommands(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<AskFlags>();
  const auto run = [flags, exit_code](absl::Status (*function)(const AskFlags&)) {
    return [flags, exit_code, function] {
      if (absl::Status status = function(*flags); !status.ok()) *exit_code = Fail(status);
    };
  };
  CLI::App* ask = app.add_subcommand("ask", "One query through the agent, with its provenance");
  ask->add_option("text", flags->text, "The query")->required();
  ask->add_flag("--json", flags->as_json, "One JSON object on stdout");
  AddAskOptions(ask, flags.get());
  ask->callback(run(Ask));

  CLI::App* chat = app.add_subcommand("chat", "A conversation with live provenance");
  AddAskOptions(chat, flags.get());
  chat->callback(run(Chat));

  CLI::App* status = app.add_subcommand("status", "Both tiers, the link between them, routing");
  status->add_option("--edge", flags->edge, "HOST:PORT of the agent's gRPC service");
  status->add_flag("--json", flags->as_json, "One JSON object on stdout");
  status->callback(run(Status));
}

}  // namespace updraft::tool
