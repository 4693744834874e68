#include "deploy/tool/daemon.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/clock/steady.h"

namespace updraft::tool {
namespace {

// Runs in the child between fork and exec: async-signal-safe calls only.
[[noreturn]] void Exec(char* const* argv, int log_fd, int error_fd, pid_t parent) {
  prctl(PR_SET_PDEATHSIG, SIGTERM);
  if (getppid() != parent) _exit(127);  // the parent died before prctl took effect
  setpgid(0, 0);                        // Ctrl-C reaches the parent, which stops its children in order
  dup2(log_fd, STDOUT_FILENO);
  dup2(log_fd, STDERR_FILENO);
  execvp(argv[0], argv);
  const int error = errno;
  [[maybe_unused]] const ssize_t written = write(error_fd, &error, sizeof(error));
  _exit(127);
}

}  // namespace

absl::StatusOr<Daemon> Daemon::Start(const std::string& name, const std::vector<std::string>& args,
                                     const std::string& log_path) {
  const int log_fd = open(log_path.c_str(), O_CREAT | O_TRUNC | O_WRONLY | O_CLOEXEC, 0644);
  if (log_fd < 0) {
    return absl::UnavailableError(
        absl::StrCat(name, ": cannot write its log '", log_path, "': ", std::strerror(errno)));
  }
  int pipe_fds[2];
  if (pipe2(pipe_fds, O_CLOEXEC) != 0) {
    close(log_fd);
    return absl::ResourceExhaustedError(absl::StrCat(name, ": pipe: ", std::strerror(errno)));
  }
  std::vector<std::string> copies = args;
  std::vector<char*> argv;
  for (std::string& arg : copies) argv.push_back(arg.data());
  argv.push_back(nullptr);

  const pid_t parent = getpid();
  const pid_t pid = fork();
  if (pid == 0) Exec(argv.data(), log_fd, pipe_fds[1], parent);
  const int fork_error = errno;
  close(log_fd);
  close(pipe_fds[1]);
  if (pid < 0) {
    close(pipe_fds[0]);
    return absl::ResourceExhaustedError(absl::StrCat(name, ": fork: ", std::strerror(fork_error)));
  }
  // The write end closes at exec; bytes in the pipe mean that exec failed.
  int exec_error = 0;
  const ssize_t n = read(pipe_fds[0], &exec_error, sizeof(exec_error));
  close(pipe_fds[0]);
  if (n == sizeof(exec_error)) {
    waitpid(pid, nullptr, 0);
    return absl::NotFoundError(absl::StrCat(name, ": cannot run '", args[0], "': ", std::strerror(exec_error)));
  }
  Daemon daemon;
  daemon.name_ = name;
  daemon.log_path_ = log_path;
  daemon.pid_ = pid;
  return daemon;
}

Daemon& Daemon::operator=(Daemon&& other) noexcept {
  if (this != &other) {
    Stop(absl::Seconds(5));
    name_ = std::move(other.name_);
    log_path_ = std::move(other.log_path_);
    pid_ = std::exchange(other.pid_, -1);
  }
  return *this;
}

bool Daemon::Running() {
  if (pid_ < 0) return false;
  if (waitpid(pid_, nullptr, WNOHANG) == 0) return true;
  pid_ = -1;
  return false;
}

std::string Daemon::LogTail() const {
  std::ifstream in(log_path_);
  std::ostringstream text;
  text << in.rdbuf();
  std::string log = text.str();
  if (log.size() > 2000) log = absl::StrCat("...", log.substr(log.size() - 2000));
  return log;
}

absl::StatusOr<std::vector<int>> Daemon::AwaitPorts(const std::string& port_file, absl::Duration timeout) {
  const SteadyTime give_up = SteadyNow() + timeout;
  while (true) {
    std::ifstream in(port_file);
    std::vector<int> ports;
    for (int port; in >> port;) ports.push_back(port);
    if (!ports.empty()) return ports;
    if (!Running()) {
      return absl::InternalError(
          absl::StrCat(name_, " ended before it was ready; its log '", log_path_, "' says:\n", LogTail()));
    }
    if (SteadyNow() > give_up) {
      return absl::DeadlineExceededError(absl::StrCat(name_, " was not ready after ", absl::FormatDuration(timeout),
                                                      "; its log '", log_path_, "' says:\n", LogTail()));
    }
    absl::SleepFor(absl::Milliseconds(10));
  }
}

void Daemon::Stop(absl::Duration grace) {
  if (!Running()) return;
  kill(pid_, SIGTERM);
  const SteadyTime give_up = SteadyNow() + grace;
  while (Running()) {
    if (SteadyNow() > give_up) {
      kill(pid_, SIGKILL);
      waitpid(pid_, nullptr, 0);
      pid_ = -1;
      return;
    }
    absl::SleepFor(absl::Milliseconds(10));
  }
}

}  // namespace updraft::tool
