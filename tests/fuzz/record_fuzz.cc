// Any bytes as a line of a log of decisions, and an honest line with values exchanged. What is refused is refused with
// words; what is read is written and read again as the same bytes, can be explained, and can be replayed under any
// policy.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <iterator>
#include <string>
#include <string_view>
#include <vector>

#include "absl/strings/match.h"
#include "common/routing/choose.h"
#include "common/routing/record_json.h"
#include "common/routing/session.h"
#include "tests/fuzz/seeds.h"

namespace {

using updraft::DecisionRecord;

void Require(bool holds) {
  if (!holds) std::abort();
}

void CheckUsable(const DecisionRecord& record) {
  Require(record.choice < record.n_options && record.n_options <= updraft::kMaxOptions);
  Require(record.situation.n_upstreams <= updraft::kMaxUpstreams);
  Require(!updraft::Explain(record).empty());
  updraft::DecisionOf(record);
  for (const updraft::PolicyMode mode : updraft::AllOf<updraft::PolicyMode>()) {
    updraft::RoutingPolicy policy;
    policy.mode = mode;
    const DecisionRecord replayed = updraft::Replay(record, policy);
    Require(!updraft::Explain(replayed).empty());
    const std::string line = updraft::RecordToJson(replayed);
    const auto parsed = updraft::RecordFromJson(line);
    Require(parsed.ok() && updraft::RecordToJson(updraft::Replay(*parsed, policy)) == line);
  }
}

void CheckLine(std::string_view line) {
  const auto record = updraft::RecordFromJson(line);
  if (!record.ok()) {
    Require(absl::IsInvalidArgument(record.status()) || absl::IsFailedPrecondition(record.status()));
    Require(absl::StartsWith(record.status().message(), "decision record: "));
    return;
  }
  const std::string written = updraft::RecordToJson(*record);
  const auto again = updraft::RecordFromJson(written);
  Require(again.ok() && updraft::RecordToJson(*again) == written);
  CheckUsable(*record);
}

std::vector<std::string> HonestLines() {
  std::vector<std::string> lines;
  updraft::SessionOptions options;
  for (options.n_upstreams = 0; options.n_upstreams <= 2; ++options.n_upstreams) {
    updraft::RoutingSession session(options);
    for (const updraft::Stage stage : updraft::AllOf<updraft::Stage>()) {
      updraft::Situation situation;
      situation.stage = stage;
      situation.request.key = updraft::RequestKey("seed");
      situation.request.fits_locally = options.n_upstreams < 2;
      situation.evidence.confidence = 0.25;
      lines.push_back(updraft::RecordToJson(session.Decide(situation)));
    }
  }
  return lines;
}

// The n-th value of the line that is neither object nor array, replaced.
std::string WithValue(std::string line, size_t n, std::string_view value) {
  std::vector<size_t> starts;
  for (size_t i = 0; i + 1 < line.size(); ++i) {
    if (line[i] == ':' && line[i + 1] != '{' && line[i + 1] != '[') starts.push_back(i + 1);
  }
  if (starts.empty()) return line;
  const size_t begin = starts[n % starts.size()], end = std::min(line.find_first_of(",}]", begin), line.size());
  return line.replace(begin, end - begin, value);
}

// The first byte chooses a line, each pair of the others a value of it and what stands there instead.
void CheckEdits(std::string_view bytes) {
  static const std::vector<std::string> lines = HonestLines();
  static constexpr std::string_view kValues[] = {"null",
                                                 "0",
                                                 "1",
                                                 "2",
                                                 "-1",
                                                 "0.5",
                                                 "-0.0",
                                                 "1e308",
                                                 "-1e308",
                                                 "5e-324",
                                                 "2147483647",
                                                 "-2147483648",
                                                 "true",
                                                 "false",
                                                 "\"inf\"",
                                                 "\"-inf\"",
                                                 "\"before\"",
                                                 "\"auto\"",
                                                 "\"upstream\"",
                                                 "\"keep\"",
                                                 "\"none\"",
                                                 "\"unsure\"",
                                                 "\"local\"",
                                                 "\"defer\"",
                                                 "\"too-slow\"",
                                                 "\"unreachable\"",
                                                 "\"local-too-slow\"",
                                                 "\"draft-verify\"",
                                                 "\"stream-up\"",
                                                 "\"during\"",
                                                 "9223372036854775807",
                                                 "\"0000000000000000\""};
  if (bytes.empty()) return;
  std::string line = lines[static_cast<uint8_t>(bytes[0]) % lines.size()];
  for (size_t i = 1; i + 1 < std::min<size_t>(bytes.size(), 24); i += 2) {
    line = WithValue(line, static_cast<uint8_t>(bytes[i]),
                     kValues[static_cast<uint8_t>(bytes[i + 1]) % std::size(kValues)]);
    CheckLine(line);
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  if (!bytes.empty() && bytes[0] == 'e') {
    CheckEdits(bytes.substr(1));
  } else {
    CheckLine(bytes);
  }
  return 0;
}

extern "C" void UpdraftFuzzSeeds(UpdraftFuzzAddSeed add, void* context) {
  const auto seed = [&](const std::string& bytes) {
    add(context, reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size());
  };
  for (const std::string& line : HonestLines()) seed(line);
  for (int i = 0; i < 16; ++i) {
    std::string edits = "e";
    for (int j = 0; j < 20; ++j) edits += static_cast<char>(i * 61 + j * 37);
    seed(edits);
  }
}
