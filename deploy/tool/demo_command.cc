// demo: starts both daemons on loopback, sends held-out queries through the edge and reports; --link does it again with
// a road between the two; --serve leaves them running.
#include <csignal>
#include <filesystem>
#include <iostream>
#include <memory>
#include <optional>
#include <stop_token>
#include <string>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "deploy/demo/demo.h"
#include "deploy/relay/relay.h"
#include "deploy/relay/road.h"
#include "deploy/tool/commands.h"
#include "deploy/tool/tiers.h"

namespace updraft::tool {
namespace {

struct DemoFlags {
  TierFlags tiers;
  std::string link;
  double link_start_s = 0.0, link_scale = 1.0;
  std::optional<double> link_delay_ms;
  int queries = 600, concurrency = 2;
  uint64_t seed = 1;
  bool serve = false;
};

absl::Status Serve(Tiers& tiers, const sigset_t& signals) {
  const std::string grpc = absl::StrCat("127.0.0.1:", tiers.edge.grpc_port);
  std::cout << "Both daemons are up. Talk to them:\n"
            << "  build/release/bin/updraft ask --edge " << grpc << " \"set the driver temperature to 22 degrees\"\n"
            << "  build/release/bin/updraft chat --edge " << grpc << "\n"
            << "  build/release/bin/updraft status --edge " << grpc << "\n"
            << "  curl -s http://127.0.0.1:" << tiers.edge.http_port
            << "/v1/chat/completions -H 'Content-Type: application/json' \\\n"
            << "    -d '{\"model\":\"updraft\",\"messages\":[{\"role\":\"user\",\"content\":\"I am freezing\"}]}'\n"
            << "Ctrl-C stops both.\n"
            << std::flush;
  const timespec tick{0, 500'000'000};
  while (sigtimedwait(&signals, nullptr, &tick) < 0) {
    if (!tiers.cloud.Running()) return absl::InternalError("updraft-cloud ended; see cloud.log in the output folder");
    if (!tiers.edge.daemon.Running())
      return absl::InternalError("updraft-edge ended; see edge.log in the output folder");
  }
  return absl::OkStatus();
}

DemoOptions OptionsOf(const DemoFlags& flags, const Edge& edge, std::stop_token stop) {
  DemoOptions options;
  options.edge_address = absl::StrCat("127.0.0.1:", edge.grpc_port);
  options.n_queries = flags.queries;
  options.seed = flags.seed;
  options.concurrency = flags.concurrency;
  options.stop = std::move(stop);
  return options;
}

absl::StatusOr<relay::Road> LinkRoad(const DemoFlags& flags) {
  return relay::MakeRoad({.trace = flags.link,
                          .beyond = relay::StepCurve::Beyond::kRepeat,
                          .start_s = flags.link_start_s,
                          .scale = flags.link_scale,
                          .delay_ms = flags.link_delay_ms});
}

// The queries once more, with an edge of its own behind the road.
absl::Status MeasureOnRoad(const DemoFlags& flags, const std::filesystem::path& bin, const relay::Road& road,
                           const sigset_t& signals, Tiers* tiers, DemoReport* report) {
  tiers->edge.daemon.Stop(absl::Seconds(5));
  auto link = relay::Relay::Start({.to = absl::StrCat("127.0.0.1:", tiers->cloud_port), .road = road});
  if (!link.ok()) return link.status();
  auto edge = StartEdge(flags.tiers, bin, (*link)->port(), "edge-on-road");
  if (!edge.ok()) return edge.status();
  tiers->edge = *std::move(edge);
  return WhileWatched(*tiers, signals, [&](std::stop_token stop) {
    auto on_road = RunLinkPass(OptionsOf(flags, tiers->edge, std::move(stop)), *report);
    if (!on_road.ok()) return on_road.status();
    const relay::RelayCounters counters = (*link)->counters();  // ending it loses what is on the way
    on_road->road = road.name;
    on_road->like = relay::Describe(road, 0.0, counters.seconds);
    on_road->bytes_lost = counters.up.bytes_lost + counters.down.bytes_lost;
    report->link = *std::move(on_road);
    return absl::OkStatus();
  });
}

// What was measured of this pair and lies beside the edge's model; a file that cannot be read is said aloud.
std::optional<PeopleResults> PeopleOf(const TierFlags& tiers) {
  const std::filesystem::path path = std::filesystem::path(tiers.edge_model).parent_path() / "people.json";
  const auto all = ReadPeopleResults(path);
  if (!all.ok()) {
    if (!absl::IsNotFound(all.status())) std::cerr << "updraft demo: " << all.status().message() << "\n";
    return std::nullopt;
  }
  const auto file = [](const std::string& name) {
    std::error_code error;
    return MeasuredFile{.name = std::filesystem::path(name).filename(),
                        .bytes = std::filesystem::file_size(name, error)};
  };
  std::optional<MeasuredFile> adapter;
  if (!tiers.cloud_adapter.empty()) adapter = file(tiers.cloud_adapter);
  return tiers.edge_adapter.empty() ? ResultsOfPair(*all, file(tiers.edge_model), file(tiers.cloud_model), adapter)
                                    : std::nullopt;
}

absl::Status Demo(const DemoFlags& flags, const std::string& program) {
  std::optional<relay::Road> road;
  if (!flags.link.empty()) {
    auto made = LinkRoad(flags);
    if (!made.ok()) return WithFlag("--link:", made.status());
    road = *std::move(made);
  }
  const sigset_t signals = BlockSignals();
  const std::filesystem::path bin = ProgramFolder(program);
  TierFlags started = flags.tiers;
  started.where_tools_look = flags.serve;
  auto tiers = StartTiers(started, bin);
  if (!tiers.ok()) return tiers.status();
  if (flags.serve) return Serve(*tiers, signals);
  DemoReport report;
  absl::Status status = WhileWatched(*tiers, signals, [&](std::stop_token stop) {
    auto measured = RunDemo(OptionsOf(flags, tiers->edge, std::move(stop)));
    if (measured.ok()) report = *std::move(measured);
    return measured.status();
  });
  if (status.ok() && road) status = MeasureOnRoad(flags, bin, *road, signals, &*tiers, &report);
  if (!status.ok()) return status;
  report.people = PeopleOf(flags.tiers);
  std::cout << ToText(report) << "\n";
  if (status = WriteReport(report, flags.tiers.out); !status.ok()) return status;
  std::cout << "The same with plots: " << flags.tiers.out << "/report.html, " << flags.tiers.out << "/report.json\n";
  return absl::OkStatus();
}

}  // namespace

void AddDemoCommand(CLI::App& app, int* exit_code, const std::string& program) {
  auto flags = std::make_shared<DemoFlags>();
  CLI::App* command =
      app.add_subcommand("demo", "Both daemons on loopback, held-out queries through the edge, a report");
  command->add_option("--queries", flags->queries, "Held-out queries")->check(CLI::Range(1, 1'000'000));
  command->add_option("--seed", flags->seed, "Of the queries");
  command->add_option("--concurrency", flags->concurrency, "Queries in flight")->check(CLI::Range(1, 1024));
  AddTierOptions(command, &flags->tiers);
  CLI::Option* serve =
      command->add_flag("--serve", flags->serve, "Start both daemons, print how to talk to them, and wait for Ctrl-C");
  CLI::Option* link = command
                          ->add_option("--link", flags->link,
                                       "FILE or FILE#NAME of a road (see relay): the queries once more with it between "
                                       "edge and cloud")
                          ->excludes(serve);
  command->add_option("--link-start", flags->link_start_s, "Seconds into the road")->needs(link);
  command->add_option("--link-scale", flags->link_scale, "Of its rates")->needs(link);
  command->add_option("--link-delay-ms", flags->link_delay_ms, "One way, instead of the road's")->needs(link);
  command->callback([flags, exit_code, program] {
    if (absl::Status status = Demo(*flags, program); !status.ok()) *exit_code = Fail(status);
  });
}

}  // namespace updraft::tool
