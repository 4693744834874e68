// Both daemons on loopback for as long as somebody measures: started in order, awaited, stopped in order whatever
// happens.
#pragma once

#include <CLI/App.hpp>
#include <csignal>
#include <filesystem>
#include <functional>
#include <stop_token>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "deploy/tool/daemon.h"

namespace updraft::tool {

struct TierFlags {
  std::string out = "build/demo";  // folder of the daemons' logs
  std::string edge_model = "deploy/models/cockpit-edge.gguf", edge_adapter;
  std::string cloud_model = "deploy/models/cockpit-full.gguf", cloud_adapter;
  std::string edge_chat_template, cloud_chat_template;  // as the daemons' --chat-template; empty: the files' own
  bool where_tools_look = false;  // listens at the addresses that the tools have as defaults, not on free ports
};

struct Edge {
  Daemon daemon;
  int grpc_port = 0, http_port = 0;
};

struct Tiers {
  Daemon cloud;
  int cloud_port = 0;
  Edge edge;
};

// --out, and a model, an adapter and a chat template of each (--edge-model, --edge-adapter, --edge-chat-template, the
// same of the cloud) of a command that starts both.
void AddTierOptions(CLI::App* command, TierFlags* flags);

// Where this program and the daemons lie. program: argv[0], for systems without /proc.
std::filesystem::path ProgramFolder(const std::string& program);

// The edge alone, with an upstream at that port of loopback. name: of its log.
absl::StatusOr<Edge> StartEdge(const TierFlags& flags, const std::filesystem::path& bin, int upstream_port,
                               const char* name);

// Cloud, then edge. NotFound names a file that does not exist.
absl::StatusOr<Tiers> StartTiers(const TierFlags& flags, const std::filesystem::path& bin);

// Blocks SIGINT and SIGTERM for this and later threads, so that they arrive through sigwait: children are stopped in
// order.
sigset_t BlockSignals();

// Measuring blocks in RPCs. A signal meanwhile ends the daemons, so that they fail; this thread then stops as it would
// after any error, and the process with it.
absl::Status WhileWatched(Tiers& tiers, const sigset_t& signals,
                          const std::function<absl::Status(std::stop_token)>& measure);

}  // namespace updraft::tool
