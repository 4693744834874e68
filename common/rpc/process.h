// Facts and signals of this process.
#pragma once

#include <signal.h>

#include <cstdint>

#include "common/clock/steady.h"

namespace updraft {

// Resident memory of this process in bytes; 0 when the system does not say.
uint64_t ResidentBytes();

// When the process started, by the system's account (to 10 ms); the time of the call when the system does not say.
SteadyTime ProcessStartTime();

// SIGTERM and SIGINT as a call that returns. Make one in main() before any other thread exists: the signals are blocked
// for all threads made after it. SIGPIPE is ignored, a closed socket is an error code.
class ShutdownSignal {
 public:
  ShutdownSignal();
  // Blocks until one of the signals arrives, and returns it. From then on a second one ends the process at once, so
  // that a drain that takes too long can be cut short.
  int Wait();

 private:
  sigset_t set_;
};

}  // namespace updraft
