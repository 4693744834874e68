// Real programs, started and stopped by tests.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/time/time.h"

namespace updraft::testing {

// A child process; its stdout and stderr go to a file. Killed when this goes out of scope, and when the test dies.
class Process {
 public:
  // environment: NAME=VALUE, beside the test's own.
  explicit Process(const std::vector<std::string>& args, const std::vector<std::string>& environment = {});
  ~Process();
  Process(const Process&) = delete;
  Process& operator=(const Process&) = delete;

  void Signal(int signal) const;
  // The exit code, 128 + the signal that ended it, or -1 when it is still running after `timeout`.
  int Wait(absl::Duration timeout);
  std::string Output() const;
  pid_t pid() const { return pid_; }

 private:
  pid_t pid_ = -1;
  int exit_code_ = -1;
  std::string log_path_;
};

// A daemon of ours on free ports, ready to serve.
class Daemon {
 public:
  // name: "updraft-edge" or "updraft-cloud"; flags beside the ports and the port file.
  Daemon(const std::string& name, std::vector<std::string> flags, const std::vector<std::string>& environment = {});

  bool ready() const { return !ports_.empty(); }
  std::string address() const { return "127.0.0.1:" + std::to_string(ports_.at(0)); }
  int grpc_port() const { return ports_.at(0); }
  bool has_http() const { return ports_.size() > 1; }
  int http_port() const { return ports_.at(1); }
  Process& process() { return process_; }

 private:
  std::string port_file_;
  Process process_;
  std::vector<int> ports_;
};

// Path of a built program.
std::string Program(const std::string& name);
// A file name of its own below the test's temporary folder.
std::string TempPath(const std::string& suffix);

}  // namespace updraft::testing
