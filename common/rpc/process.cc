#include "common/rpc/process.h"

#include <pthread.h>
#include <unistd.h>

#include <fstream>
#include <sstream>
#include <string>

#include "absl/time/time.h"

namespace updraft {

uint64_t ResidentBytes() {
  std::ifstream file("/proc/self/statm");
  uint64_t total_pages = 0, resident_pages = 0;
  if (!(file >> total_pages >> resident_pages)) return 0;
  return resident_pages * static_cast<uint64_t>(sysconf(_SC_PAGESIZE));
}

SteadyTime ProcessStartTime() {
  std::ifstream stat_file("/proc/self/stat"), uptime_file("/proc/uptime");
  std::string stat;
  double uptime_s = 0;
  std::getline(stat_file, stat);
  // The program's name is in parentheses and may hold anything; the start time is the 20th field after it (proc(5),
  // field 22).
  const size_t name_end = stat.rfind(')');
  if (name_end == std::string::npos || !(uptime_file >> uptime_s)) return SteadyNow();
  std::istringstream fields(stat.substr(name_end + 1));
  std::string skipped;
  for (int i = 0; i < 19; ++i) fields >> skipped;
  double start_ticks = 0;
  if (!(fields >> start_ticks)) return SteadyNow();
  return SteadyNow() - absl::Seconds(uptime_s - start_ticks / static_cast<double>(sysconf(_SC_CLK_TCK)));
}

ShutdownSignal::ShutdownSignal() {
  signal(SIGPIPE, SIG_IGN);
  sigemptyset(&set_);
  sigaddset(&set_, SIGTERM);
  sigaddset(&set_, SIGINT);
  pthread_sigmask(SIG_BLOCK, &set_, nullptr);
}

int ShutdownSignal::Wait() {
  int received = 0;
  while (sigwait(&set_, &received) != 0) {
  }
  pthread_sigmask(SIG_UNBLOCK, &set_, nullptr);
  return received;
}

}  // namespace updraft
