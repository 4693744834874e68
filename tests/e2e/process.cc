#include "tests/e2e/process.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>
#include <fstream>

#include "absl/time/clock.h"
#include "common/clock/steady.h"
#include "tests/files.h"

namespace updraft::testing {

namespace {

std::vector<std::string> DaemonArgs(const std::string& name, std::vector<std::string> flags,
                                    const std::string& port_file) {
  std::vector<std::string> args = {Program(name), "--port-file", port_file};
  bool has_listen = false;
  for (const std::string& flag : flags) has_listen = has_listen || flag.rfind("--listen", 0) == 0;
  if (!has_listen) args.insert(args.end(), {"--listen", "127.0.0.1:0"});
  if (name == "updraft-edge") args.insert(args.end(), {"--http-listen", "127.0.0.1:0"});
  args.insert(args.end(), flags.begin(), flags.end());
  return args;
}

}  // namespace

std::string Program(const std::string& name) {
  const char* folder = std::getenv("UPDRAFT_BIN_DIR");
  return std::string(folder != nullptr ? folder : "build/release/bin") + "/" + name;
}

std::string TempPath(const std::string& suffix) {
  static int counter = 0;
  return ::testing::TempDir() + "updraft_e2e_" + std::to_string(getpid()) + "_" + std::to_string(counter++) + suffix;
}

Process::Process(const std::vector<std::string>& args, const std::vector<std::string>& environment)
    : log_path_(TempPath(".log")) {
  std::vector<char*> argv;
  for (const std::string& arg : args) argv.push_back(const_cast<char*>(arg.c_str()));
  argv.push_back(nullptr);
  pid_ = fork();
  if (pid_ != 0) return;
  prctl(PR_SET_PDEATHSIG, SIGKILL);
  const int log = open(log_path_.c_str(), O_CREAT | O_WRONLY | O_TRUNC, 0600);
  dup2(log, STDOUT_FILENO);
  dup2(log, STDERR_FILENO);
  for (const std::string& variable : environment) putenv(const_cast<char*>(variable.c_str()));
  execvp(argv[0], argv.data());
  _exit(127);
}

Process::~Process() {
  if (exit_code_ < 0) {
    Signal(SIGKILL);
    Wait(absl::Seconds(10));
  }
  std::remove(log_path_.c_str());
}

void Process::Signal(int signal) const {
  if (pid_ > 0 && exit_code_ < 0) kill(pid_, signal);
}

int Process::Wait(absl::Duration timeout) {
  const SteadyTime deadline = SteadyNow() + timeout;
  while (exit_code_ < 0) {
    int status = 0;
    if (waitpid(pid_, &status, WNOHANG) == pid_) {
      exit_code_ = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    } else if (SteadyNow() >= deadline) {
      break;
    } else {
      absl::SleepFor(absl::Milliseconds(5));
    }
  }
  return exit_code_;
}

std::string Process::Output() const { return ReadAll(log_path_); }

Daemon::Daemon(const std::string& name, std::vector<std::string> flags, const std::vector<std::string>& environment)
    : port_file_(TempPath(".ports")), process_(DaemonArgs(name, std::move(flags), port_file_), environment) {
  const SteadyTime deadline = SteadyNow() + absl::Seconds(60);
  while (ports_.empty() && SteadyNow() < deadline && process_.Wait(absl::ZeroDuration()) < 0) {
    std::ifstream in(port_file_);
    for (int port; in >> port;) ports_.push_back(port);
    if (ports_.empty()) absl::SleepFor(absl::Milliseconds(5));
  }
  std::remove(port_file_.c_str());
  EXPECT_TRUE(ready()) << name << " did not start:\n" << process_.Output();
}

}  // namespace updraft::testing
