// A child process that serves: started with a port file, awaited until it is ready, stopped whatever happens.
#pragma once

#include <sys/types.h>

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"

namespace updraft::tool {

// Move-only. The child also dies with this process (PR_SET_PDEATHSIG), so that a killed demo leaves nothing behind.
class Daemon {
 public:
  // Runs args[0] with the rest; stdout and stderr go to `log_path`. NotFound when the program cannot be run.
  static absl::StatusOr<Daemon> Start(const std::string& name, const std::vector<std::string>& args,
                                      const std::string& log_path);
  ~Daemon() { Stop(absl::Seconds(5)); }
  Daemon(Daemon&& other) noexcept { *this = std::move(other); }
  Daemon& operator=(Daemon&& other) noexcept;
  Daemon(const Daemon&) = delete;
  Daemon& operator=(const Daemon&) = delete;

  // Waits until the child has written `port_file`, and returns the ports in it. Its log's last lines are in the error
  // when it exits instead.
  absl::StatusOr<std::vector<int>> AwaitPorts(const std::string& port_file, absl::Duration timeout);

  // SIGTERM, then SIGKILL after `grace`. Safe to call twice.
  void Stop(absl::Duration grace);
  bool Running();
  pid_t pid() const { return pid_; }

 private:
  Daemon() = default;
  std::string LogTail() const;

  std::string name_, log_path_;
  pid_t pid_ = -1;
};

}  // namespace updraft::tool
