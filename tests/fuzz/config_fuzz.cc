// Any bytes as a daemon's configuration file ('F'), as its flags one a line ('A'), as an address ('H') and as the delay
// that a full tier tells ('D'): refused with words, or within what the configuration promises.
#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/cord.h"
#include "common/rpc/address.h"
#include "common/rpc/config.h"
#include "common/status/retry_delay.h"
#include "tests/fuzz/seeds.h"
#include "updraft/v1/config.pb.h"

namespace {

using namespace updraft;  // a program of its own

void Require(bool holds) {
  if (!holds) std::abort();
}

template <typename Config>
void CheckArgs(const std::vector<std::string>& words) {
  std::vector<const char*> args;
  for (const std::string& word : words) args.push_back(word.c_str());
  Config config;
  const auto action = LoadConfig(args, &config);
  if (!action.ok()) return Require(absl::IsInvalidArgument(action.status()) && !action.status().message().empty());
  if (*action == ConfigAction::kShowHelp) return;
  Require(ValidateConfig(config).ok());
  // What was resolved can be printed, and as a file says the same.
  const std::string json = ConfigToJson(config);
  Require(json.size() > 2);
  const int fd = memfd_create("config_fuzz", MFD_CLOEXEC);
  Require(fd >= 0 && write(fd, json.data(), json.size()) == static_cast<ssize_t>(json.size()));
  const std::string flag = "--config=/proc/self/fd/" + std::to_string(fd);
  const char* again_args[] = {flag.c_str()};
  Config again;
  const auto read = LoadConfig(again_args, &again);
  close(fd);
  Require(read.ok() && ConfigToJson(again) == json);
}

void CheckFile(const std::string& text) {
  const int fd = memfd_create("config_fuzz", MFD_CLOEXEC);
  Require(fd >= 0 && write(fd, text.data(), text.size()) == static_cast<ssize_t>(text.size()));
  const std::string path = "/proc/self/fd/" + std::to_string(fd);
  CheckArgs<v1::EdgeConfig>({"--config", path});
  CheckArgs<v1::CloudConfig>({"--config", path});
  close(fd);
}

void CheckFlags(std::string_view text) {
  std::vector<std::string> words;
  while (!text.empty()) {
    const size_t end = std::min(text.find('\n'), text.size());
    words.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
    // Files of this machine are no input.
    if (words.back().rfind("--config", 0) == 0) words.pop_back();
  }
  CheckArgs<v1::EdgeConfig>(words);
  CheckArgs<v1::CloudConfig>(words);
}

void CheckAddress(std::string_view text) {
  for (const PortZero zero : {PortZero::kAllowed, PortZero::kRefused}) {
    const auto parsed = ParseHostPort(text, "listen", zero);
    if (!parsed.ok()) {
      Require(absl::IsInvalidArgument(parsed.status()) && !parsed.status().message().empty());
      continue;
    }
    Require(!parsed->host.empty() && parsed->port >= (zero == PortZero::kAllowed ? 0 : 1) && parsed->port <= 65535);
    const auto again = ParseHostPort(parsed->ToString(), "listen", zero);
    Require(again.ok() && again->host == parsed->host && again->port == parsed->port);
    IsSameEndpoint(*parsed, *again);
  }
}

void CheckDelay(const std::string& text) {
  absl::Status status = absl::ResourceExhaustedError("full");
  status.SetPayload("updraft/retry-delay-ms", absl::Cord(text));
  const auto delay = RetryDelayOf(status);
  if (!delay) return;
  Require(*delay >= absl::ZeroDuration());
  // Told on to whoever asked us.
  const auto again = RetryDelayOf(WithRetryDelay(absl::UnavailableError("full"), *delay));
  Require(again.has_value() && *again >= *delay && *again <= *delay + absl::Milliseconds(1));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  switch (data[0]) {
    case 'F':
      CheckFile(text);
      break;
    case 'A':
      CheckFlags(text);
      break;
    case 'H':
      CheckAddress(text);
      break;
    default:
      CheckDelay(text);
  }
  return 0;
}

extern "C" void UpdraftFuzzSeeds(UpdraftFuzzAddSeed add, void* context) {
  for (const std::string_view seed : std::initializer_list<std::string_view>{
           R"(F{"model":"m.gguf","listen":"127.0.0.1:7071","upstream":"cloud:7070","policy":"auto","threads":2})",
           R"(F{"model":"m.gguf","maxQueued":5,"tier":null,"confidence_threshold":0.25,"log_level":"warn"})",
           R"(F{"model":"m.gguf","max_queued":1e1,"kv_tokens":"4096","confidence_threshold":NaN})",
           R"(F{"model":"\ud83d\ude00","kvType":"q8_0","max_queued":4e9,"pin":true,"unknown":[[{}]]})",
           "A--model=m.gguf\n--listen\n127.0.0.1:0\n--max-queued=7", "A--model\nm\n--pin\n--log-level=debug", "A-h",
           "H127.0.0.1:7070", "H[fe80::1%eth0]:443", "Hlocalhost:0", "D1500", "D9223372036854775807", "D-1"}) {
    add(context, reinterpret_cast<const uint8_t*>(seed.data()), seed.size());
  }
}
