// relay: a recorded road between live processes, until a signal ends it.
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/rpc/process.h"
#include "common/rpc/server.h"
#include "common/telemetry/log.h"
#include "deploy/relay/relay.h"
#include "deploy/relay/road.h"
#include "deploy/tool/commands.h"

namespace updraft::tool {
namespace {

struct RelayFlags {
  relay::RelayOptions relay;
  relay::RoadOptions road;
  std::string format = "detect", port_file, capture;
  std::vector<std::string> events;
  bool loop = false, as_json = false;
};

void LogConnection(const relay::ConnectionRecord& record) {
  LogEvent(LogLevel::kInfo, "connection",
           {{"id", record.id},
            {"from", record.from},
            {"at_s", record.opened_s},
            {"seconds", record.ended_s - record.opened_s},
            {"bytes_up", record.bytes_up},
            {"bytes_down", record.bytes_down},
            {"end", record.end}});
}

nlohmann::json LaneJson(const relay::LaneCounters& lane) {
  return {{"bytes_entered", lane.bytes_entered},
          {"bytes_delivered", lane.bytes_delivered},
          {"bytes_lost", lane.bytes_lost}};
}

std::string CountersJson(const relay::Road& road, const relay::RelayCounters& counters) {
  const nlohmann::json object = {{"road", road.name},
                                 {"seconds", counters.seconds},
                                 {"connections", counters.connections},
                                 {"connections_refused", counters.connections_refused},
                                 {"connections_reset", counters.connections_reset},
                                 {"peak_held_bytes", counters.peak_held_bytes},
                                 {"up", LaneJson(counters.up)},
                                 {"down", LaneJson(counters.down)}};
  return object.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace);
}

absl::StatusOr<relay::Road> RoadOf(const RelayFlags& flags) {
  relay::RoadOptions options = flags.road;
  auto format = relay::ParseTraceFormat(flags.format);
  if (!format.ok()) return WithFlag("--format:", format.status());
  options.format = *format;
  options.beyond = flags.loop ? relay::StepCurve::Beyond::kRepeat : relay::StepCurve::Beyond::kHold;
  for (const std::string& text : flags.events) {
    auto event = relay::ParseEvent(text);
    if (!event.ok()) return WithFlag("--event:", event.status());
    options.events.push_back(*event);
  }
  return relay::MakeRoad(options);
}

absl::Status RunRelay(const RelayFlags& flags) {
  auto road = RoadOf(flags);
  if (!road.ok()) return road.status();
  if (absl::Status status = SetUpLogging("info", "relay"); !status.ok()) return status;
  ShutdownSignal shutdown;
  relay::RelayOptions options = flags.relay;
  options.road = *road;
  options.on_connection_end = LogConnection;
  if (!flags.capture.empty()) {
    auto capture = relay::CaptureToFolder(flags.capture);
    if (!capture.ok()) return WithFlag("--capture:", capture.status());
    options.capture = *std::move(capture);
  }
  auto started = relay::Relay::Start(std::move(options));
  if (!started.ok()) return started.status();
  const double length_s = relay::TraceLength(*road);
  LogEvent(LogLevel::kInfo, "ready",
           {{"listen", (*started)->address()},
            {"to", flags.relay.to},
            {"road", road->name},
            {"like", relay::Describe(*road, 0.0, length_s > 0.0 ? length_s : 1.0)}});
  if (!flags.port_file.empty()) {
    if (absl::Status status = WritePortFile(flags.port_file, absl::StrCat((*started)->port())); !status.ok()) {
      return status;
    }
  }
  const int signal = shutdown.Wait();
  (*started)->Stop();
  LogEvent(LogLevel::kInfo, "stopped", {{"signal", signal}});
  const relay::RelayCounters counters = (*started)->counters();
  if (flags.as_json) {
    std::cout << CountersJson(*road, counters) << "\n";
    return absl::OkStatus();
  }
  std::cout << absl::StrFormat(
      "%.1f s on the road '%s': %d connections, %d refused, %d reset; up %d bytes (%d lost), down %d bytes (%d lost)\n",
      counters.seconds, road->name, counters.connections, counters.connections_refused, counters.connections_reset,
      counters.up.bytes_delivered, counters.up.bytes_lost, counters.down.bytes_delivered, counters.down.bytes_lost);
  return absl::OkStatus();
}

void AddRoadOptions(CLI::App* command, RelayFlags* flags) {
  relay::RoadOptions& road = flags->road;
  command->add_option("--trace", road.trace, "FILE or FILE#NAME of a road; a pair x.up.y, x.down.y stays together");
  command->add_option("--trace-up", road.trace_up, "FILE or FILE#NAME of rates, up");
  command->add_option("--trace-down", road.trace_down, "FILE or FILE#NAME of rates, down");
  command->add_option("--rtt-trace", road.rtt_trace, "FILE or FILE#NAME of round trips; half of each is the delay");
  command->add_option("--format", flags->format,
                      "Of the traces: detect, road, road-json, opportunities, bins, mbps, 5g, rtt");
  command->add_flag("--loop", flags->loop, "Each trace begins again at its end; else its last values stay");
  command->add_option("--start", road.start_s, "Seconds into the traces at which the road begins");
  command->add_option("--scale", road.scale, "Of all rates of traces");
  command->add_option("--max-gap", road.max_gap_s, "Seconds without a reading that a recorded trace may have");
  command->add_option("--rate-up", road.rate_up, "Bytes a second, instead of a trace's");
  command->add_option("--rate-down", road.rate_down, "Bytes a second, instead of a trace's");
  command->add_option("--delay-ms", road.delay_ms, "One way, instead of a trace's");
  command->add_option("--jitter-ms", road.jitter_ms, "At most so much is added to the delay; the order stays");
  command->add_option(
      "--event", flags->events,
      "SECONDS:stall:SECONDS, SECONDS:cut:SECONDS, SECONDS:blackhole:SECONDS or SECONDS:reset; repeatable");
}

}  // namespace

void AddRelayCommand(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<RelayFlags>();
  CLI::App* command = app.add_subcommand("relay", "A recorded road between live processes, both directions");
  command->add_option("--listen", flags->relay.listen, "HOST:PORT; port 0 picks a free one")->required();
  command->add_option("--to", flags->relay.to, "HOST:PORT of what the road leads to")->required();
  AddRoadOptions(command, flags.get());
  command->add_option("--queue-bytes", flags->relay.queue_bytes, "That wait at the bottleneck, each direction");
  command->add_option("--window-bytes", flags->relay.window_bytes, "On the way in one connection and direction");
  command->add_option("--max-connections", flags->relay.max_connections, "At a time");
  command->add_option("--seed", flags->relay.seed, "Of the jitter");
  command
      ->add_option("--reset-after-bytes-up", flags->relay.reset_after_bytes_up,
                   "Bytes delivered, after which their connection is reset; a list N,M,...: M after that, and so on")
      ->delimiter(',');
  command->add_option("--reset-after-bytes-down", flags->relay.reset_after_bytes_down, "The same, down")
      ->delimiter(',');
  command->add_option("--capture", flags->capture,
                      "New folder for what enters the road: CONNECTION.up, CONNECTION.down");
  command->add_option("--port-file", flags->port_file, "Is written once it listens: the port");
  command->add_flag("--json", flags->as_json, "Counters at the end as one JSON object on stdout");
  command->callback([flags, exit_code] {
    if (absl::Status status = RunRelay(*flags); !status.ok()) *exit_code = Fail(status);
  });
}

}  // namespace updraft::tool
