#include "deploy/bench/peers.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

extern char** environ;

namespace updraft {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// Runs a program to its end. Its standard output; what it says on standard error passes to ours only when it fails.
absl::StatusOr<std::string> RunAndCapture(const std::vector<std::string>& args) {
  int out[2];
  if (pipe2(out, O_CLOEXEC) != 0) return absl::ResourceExhaustedError(absl::StrCat("pipe: ", std::strerror(errno)));
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, out[1], STDOUT_FILENO);
  posix_spawn_file_actions_addopen(&actions, STDERR_FILENO, "/dev/null", O_WRONLY, 0);
  std::vector<std::string> copies = args;
  std::vector<char*> argv;
  for (std::string& arg : copies) argv.push_back(arg.data());
  argv.push_back(nullptr);
  pid_t pid = -1;
  const int error = posix_spawn(&pid, argv[0], &actions, nullptr, argv.data(), environ);
  posix_spawn_file_actions_destroy(&actions);
  close(out[1]);
  if (error != 0) {
    close(out[0]);
    return absl::NotFoundError(absl::StrCat("cannot run '", args[0], "': ", std::strerror(error)));
  }
  std::string text;
  char buffer[4096];
  while (true) {
    const ssize_t n = read(out[0], buffer, sizeof(buffer));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) break;
    text.append(buffer, static_cast<size_t>(n));
  }
  close(out[0]);
  int status = 0;
  while (waitpid(pid, &status, 0) < 0 && errno == EINTR) {
  }
  if (WIFEXITED(status) && WEXITSTATUS(status) == 0) return text;
  std::string command;
  for (const std::string& arg : args) absl::StrAppend(&command, command.empty() ? "" : " ", arg);
  return absl::UnavailableError(absl::StrCat(
      "'", command, "' ended with ",
      WIFEXITED(status) ? absl::StrCat("status ", WEXITSTATUS(status)) : absl::StrCat("signal ", WTERMSIG(status)),
      "; run it by hand to see why"));
}

absl::StatusOr<Speed> RunSelf(const PeerBenchOptions& options) {
  auto output = RunAndCapture({options.self, "bench", "model", "--model", options.model, "--prefill",
                               absl::StrCat(options.prefill), "--decode", absl::StrCat(options.decode), "--threads",
                               absl::StrCat(options.n_threads), "--repeat", "1", "--json"});
  if (!output.ok()) return output.status();
  const json parsed = json::parse(*output, nullptr, /*allow_exceptions=*/false);
  if (!parsed.contains("prefill_tok_s") || !parsed.contains("decode_tok_s")) {
    return absl::InternalError("bench model --json: no speeds in what it printed");
  }
  return Speed{parsed["prefill_tok_s"].value("median", 0.0), parsed["decode_tok_s"].value("median", 0.0)};
}

absl::StatusOr<Speed> RunLlamaBench(const Peer& peer, const PeerBenchOptions& options) {
  std::vector<std::string> args = {peer.program,
                                   "-m",
                                   options.model,
                                   "-p",
                                   absl::StrCat(options.prefill),
                                   "-n",
                                   absl::StrCat(options.decode),
                                   "-t",
                                   absl::StrCat(options.n_threads),
                                   "-r",
                                   "1",
                                   "-o",
                                   "json"};
  args.insert(args.end(), options.peer_args.begin(), options.peer_args.end());
  auto output = RunAndCapture(args);
  if (!output.ok()) return output.status();
  auto speed = ParseLlamaBench(*output);
  if (!speed.ok())
    return absl::InvalidArgumentError(absl::StrCat(peer.program, ": ", std::string(speed.status().message())));
  return speed;
}

}  // namespace

absl::StatusOr<std::vector<Peer>> FindPeers(const std::string& folder) {
  std::vector<Peer> peers;
  std::error_code error;
  fs::recursive_directory_iterator entries(folder, fs::directory_options::skip_permission_denied, error);
  for (; !error && entries != fs::recursive_directory_iterator(); entries.increment(error)) {
    if (entries->path().filename() != "llama-bench" || !entries->is_regular_file(error)) continue;
    if (access(entries->path().c_str(), X_OK) != 0) continue;
    fs::path name;  // up to the build folder, below which every project looks alike
    for (const fs::path& part : fs::relative(entries->path().parent_path(), folder)) {
      if (part == "build" || part == "bin" || part == ".") break;
      name /= part;
    }
    if (name.empty()) name = fs::absolute(folder).lexically_normal().filename();
    peers.push_back({name.empty() ? "llama-bench" : name.string(), entries->path().string()});
  }
  if (peers.empty()) {
    return absl::NotFoundError(absl::StrFormat(
        "peers: expected executable files named llama-bench under '%s', found none; build llama.cpp there", folder));
  }
  std::sort(peers.begin(), peers.end(), [](const Peer& a, const Peer& b) { return a.name < b.name; });
  return peers;
}

absl::StatusOr<Speed> ParseLlamaBench(const std::string& output) {
  const json parsed = json::parse(output, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_array()) return absl::InvalidArgumentError("expected a JSON array of tests");
  Speed speed;
  for (const json& test : parsed) {
    if (!test.is_object()) continue;
    const auto figure = [&test](const char* key) {
      return test.contains(key) && test[key].is_number() ? test[key].get<double>() : 0.0;
    };
    if (figure("n_prompt") > 0 && figure("n_gen") == 0) speed.prefill_tok_s = figure("avg_ts");
    if (figure("n_gen") > 0 && figure("n_prompt") == 0) speed.decode_tok_s = figure("avg_ts");
  }
  if (speed.prefill_tok_s > 0 && speed.decode_tok_s > 0) return speed;
  return absl::InvalidArgumentError("expected a prompt test and a generation test with avg_ts");
}

absl::StatusOr<std::vector<PeerSpeeds>> RunPeers(const std::vector<Peer>& peers, const PeerBenchOptions& options,
                                                 const std::function<void(const std::string&, int, Speed)>& on_speed) {
  if (options.prefill < 1 || options.decode < 1 || options.rounds < 1) {
    return absl::InvalidArgumentError("peers: expected prefill, decode and rounds of at least 1");
  }
  std::vector<PeerSpeeds> speeds(peers.size() + 1);
  speeds[0].name = "updraft";
  for (size_t i = 0; i < peers.size(); ++i) speeds[i + 1].name = peers[i].name;
  for (int round = 0; round < options.rounds; ++round) {
    for (size_t turn = 0; turn < speeds.size(); ++turn) {
      const size_t who = (turn + static_cast<size_t>(round)) % speeds.size();
      auto speed = who == 0 ? RunSelf(options) : RunLlamaBench(peers[who - 1], options);
      if (!speed.ok()) return speed.status();
      speeds[who].rounds.push_back(*speed);
      if (on_speed) on_speed(speeds[who].name, round, *speed);
    }
  }
  return speeds;
}

Ratio RatioOf(const PeerSpeeds& ours, const PeerSpeeds& theirs, double Speed::*of) {
  std::vector<double> ratios;
  for (size_t i = 0; i < std::min(ours.rounds.size(), theirs.rounds.size()); ++i) {
    ratios.push_back((ours.rounds[i].*of) / (theirs.rounds[i].*of));
  }
  if (ratios.empty()) return {};
  std::sort(ratios.begin(), ratios.end());
  const size_t n = ratios.size();
  return {.median = n % 2 == 1 ? ratios[n / 2] : 0.5 * (ratios[n / 2 - 1] + ratios[n / 2]),
          .min = ratios.front(),
          .max = ratios.back()};
}

}  // namespace updraft
