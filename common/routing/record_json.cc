#include "common/routing/record_json.h"

#include <cmath>
#include <cstdint>
#include <limits>
#include <nlohmann/json.hpp>
#include <set>
#include <type_traits>
#include <vector>

#include "absl/strings/str_format.h"
#include "common/routing/names.h"

namespace updraft {
namespace {

using Json = nlohmann::ordered_json;

// A number that is written in 16 hexadecimal digits: readers that hold numbers as doubles would round it.
struct Hex {
  uint64_t& value;
};

// The options and upstreams that there are.
template <typename T, typename Count>
struct Several {
  T* items;
  Count& n;
  int least, most;
};

// An index, absent where it is Option::kHere.
struct Index {
  uint8_t& value;
};

// ---- The fields: one list for both directions ---------------------------------------------------------------------
// Each binds all that there are: one that is added does not compile before it is in here.

template <typename V>
void Visit(V& v, LinkEstimate& link) {
  auto& [reachable, measured, rtt_s, rtt_jitter_s, goodput_up_bytes_per_s, goodput_down_bytes_per_s, samples, age_s,
         consecutive_failures] = link;
  v("reachable", reachable);
  v("measured", measured);
  v("rtt_s", rtt_s);
  v("rtt_jitter_s", rtt_jitter_s);
  v("goodput_up_bytes_per_s", goodput_up_bytes_per_s);
  v("goodput_down_bytes_per_s", goodput_down_bytes_per_s);
  v("samples", samples);
  v("age_s", age_s);
  v("consecutive_failures", consecutive_failures);
}

template <typename V>
void Visit(V& v, UpstreamLoad& load) {
  auto& [known, running_requests, queued_requests, queued_tokens, kv_used_fraction, predicted_wait_s,
         decode_tokens_per_s, prefill_tokens_per_s] = load;
  v("known", known);
  v("running_requests", running_requests);
  v("queued_requests", queued_requests);
  v("queued_tokens", queued_tokens);
  v("kv_used_fraction", kv_used_fraction);
  v("predicted_wait_s", predicted_wait_s);
  v("decode_tokens_per_s", decode_tokens_per_s);
  v("prefill_tokens_per_s", prefill_tokens_per_s);
}

template <typename V>
void Visit(V& v, UpstreamFacts& facts) {
  auto& [link, load, since_failure_s, busy_s] = facts;
  v("link", link);
  v("load", load);
  v("since_failure_s", since_failure_s);
  v("busy_s", busy_s);
}

template <typename V>
void Visit(V& v, RequestFacts& request) {
  auto& [key, asked, fits_locally, hops, n_prompt_tokens, n_draft_tokens, max_tokens, deadline_s, local_wait_s] =
      request;
  v("id", key);
  v("asked", asked);
  v("fits_locally", fits_locally);
  v("hops", hops);
  v("prompt_tokens", n_prompt_tokens);
  v("draft_tokens", n_draft_tokens);
  v("max_tokens", max_tokens);
  v("deadline_s", deadline_s);
  v("local_wait_s", local_wait_s);
}

template <typename V>
void Visit(V& v, Evidence& evidence) {
  auto& [confidence, p_right, gain] = evidence;
  v("confidence", confidence);
  v("p_right", p_right);
  v("gain", gain);
}

template <typename V>
void Visit(V& v, LocalState& local) {
  auto& [answer_tokens, tokens_per_s, prefill_tokens_per_s, previous] = local;
  v("answer_tokens", answer_tokens);
  v("tokens_per_s", tokens_per_s);
  v("prefill_tokens_per_s", prefill_tokens_per_s);
  v("previous", previous);
}

template <typename V>
void Visit(V& v, Situation& situation) {
  auto& [stage, now_s, request, evidence, local, upstreams, n_upstreams, draw] = situation;
  v("stage", stage);
  v("now_s", now_s);
  v("request", request);
  v("evidence", evidence);
  v("local", local);
  v("upstreams", Several<UpstreamFacts, uint8_t>{upstreams.data(), n_upstreams, 0, kMaxUpstreams});
  v("draw", draw);
}

template <typename V>
void Visit(V& v, Option& option) {
  auto& [way, upstream, obstacle, limit, ttft_s, total_s, total_p90_s, bytes_up, bytes_down, joules, money, p_wrong] =
      option;
  v("way", way);
  v("upstream", Index{upstream});
  v("obstacle", obstacle);
  v("limit", limit);
  v("ttft_s", ttft_s);
  v("total_s", total_s);
  v("total_p90_s", total_p90_s);
  v("bytes_up", bytes_up);
  v("bytes_down", bytes_down);
  v("joules", joules);
  v("money", money);
  v("p_wrong", p_wrong);
}

template <typename V>
void Visit(V& v, DecisionRecord& record) {
  auto& [schema, seq, policy_fp, model_fp, situation, options, n_options, choice, reason, degraded, threshold,
         propensity] = record;
  v("schema", schema);
  v("seq", seq);
  v("policy", Hex{policy_fp});
  v("model", Hex{model_fp});
  v("situation", situation);
  v("options", Several<Option, uint8_t>{options.data(), n_options, 1, kMaxOptions});
  v("choice", choice);
  v("reason", reason);
  v("degraded", degraded);
  v("threshold", threshold);
  v("propensity", propensity);
}

// ---- Out ----------------------------------------------------------------------------------------------------------

class Writer {
 public:
  template <typename T>
  void operator()(const char* name, T&& value) {
    object_[name] = Encode(value);
  }
  Json Take() { return std::move(object_); }

 private:
  template <typename T>
  static Json Encode(T& value) {
    using Plain = std::remove_cv_t<T>;
    if constexpr (std::is_same_v<Plain, double>) {
      if (std::isnan(value)) return nullptr;
      if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
      return value;
    } else if constexpr (std::is_enum_v<Plain>) {
      return NameOf(value);
    } else if constexpr (std::is_arithmetic_v<Plain>) {
      return value;
    } else if constexpr (std::is_same_v<Plain, RequestKey>) {
      return value.view();
    } else if constexpr (std::is_same_v<Plain, Hex>) {
      return absl::StrFormat("%016x", value.value);
    } else if constexpr (std::is_same_v<Plain, Index>) {
      return value.value == Option::kHere ? Json(nullptr) : Json(value.value);
    } else if constexpr (requires { value.items; }) {
      Json array = Json::array();
      for (int i = 0; i < value.n; ++i) array.push_back(Encode(value.items[i]));
      return array;
    } else {
      Writer writer;
      Visit(writer, value);
      return writer.Take();
    }
  }

  Json object_ = Json::object();
};

// ---- In -----------------------------------------------------------------------------------------------------------

// Reads the fields of one object and keeps the first thing that is wrong with it.
class Reader {
 public:
  Reader(const Json& object, std::string path) : object_(object), path_(std::move(path)) {
    if (!object_.is_object()) Fail(path_, "an object", object_);
  }

  template <typename T>
  void operator()(const char* name, T&& value) {
    if (!status_.ok()) return;
    const auto it = object_.find(name);
    if (it == object_.end()) {
      status_ = absl::InvalidArgumentError(absl::StrFormat("decision record: '%s': missing", Path(name)));
      return;
    }
    known_.insert(name);
    Decode(Path(name), *it, value);
  }

  // After the last field.
  absl::Status Finish() {
    if (!status_.ok()) return status_;
    for (const auto& [name, value] : object_.items()) {
      if (known_.count(name) == 0) {
        return absl::InvalidArgumentError(
            absl::StrFormat("decision record: '%s': unknown field", Path(name.substr(0, 64))));
      }
    }
    return absl::OkStatus();
  }

 private:
  std::string Path(const std::string& name) const { return path_.empty() ? name : path_ + "." + name; }

  void Fail(const std::string& path, const std::string& expected, const Json& found) {
    const std::string text = found.dump(-1, ' ', /*ensure_ascii=*/true, Json::error_handler_t::replace);
    status_ = absl::InvalidArgumentError(
        absl::StrFormat("decision record: '%s': expected %s, found %s", path, expected, text.substr(0, 64)));
  }

  template <typename T>
  void Decode(const std::string& path, const Json& json, T& value) {
    using Plain = std::remove_cv_t<T>;
    if constexpr (std::is_same_v<Plain, double>) {
      DecodeDouble(path, json, value);
    } else if constexpr (std::is_same_v<Plain, bool>) {
      json.is_boolean() ? void(value = json.get<bool>()) : Fail(path, "true or false", json);
    } else if constexpr (std::is_integral_v<Plain>) {
      DecodeInteger(path, json, value);
    } else if constexpr (std::is_enum_v<Plain>) {
      const auto found = json.is_string() ? FromName<Plain>(json.get_ref<const std::string&>()) : std::nullopt;
      found ? void(value = *found) : Fail(path, OneOf<Plain>(), json);
    } else if constexpr (std::is_same_v<Plain, RequestKey>) {
      DecodeKey(path, json, value);
    } else if constexpr (std::is_same_v<Plain, Hex>) {
      DecodeHex(path, json, value.value);
    } else if constexpr (std::is_same_v<Plain, Index>) {
      json.is_null() ? void(value.value = Option::kHere) : DecodeInteger(path, json, value.value);
    } else if constexpr (requires { value.items; }) {
      DecodeSeveral(path, json, value);
    } else {
      Reader reader(json, path);
      Visit(reader, value);
      status_ = reader.Finish();
    }
  }

  void DecodeDouble(const std::string& path, const Json& json, double& value) {
    if (json.is_null()) {
      value = kUnknown;
    } else if (json.is_number()) {
      value = json.get<double>();
    } else if (json == "inf") {
      value = kNever;
    } else if (json == "-inf") {
      value = -kNever;
    } else {
      Fail(path, R"(a number, null, "inf" or "-inf")", json);
    }
  }

  template <typename T>
  void DecodeInteger(const std::string& path, const Json& json, T& value) {
    using Limits = std::numeric_limits<T>;
    if (json.is_number_unsigned() && json.get<uint64_t>() <= static_cast<uint64_t>(Limits::max())) {
      value = static_cast<T>(json.get<uint64_t>());
    } else if (json.is_number_integer() && !json.is_number_unsigned() && std::is_signed_v<T> &&
               json.get<int64_t>() >= static_cast<int64_t>(Limits::min())) {
      value = static_cast<T>(json.get<int64_t>());
    } else {
      Fail(path, absl::StrFormat("an integer in [%d, %d]", Limits::min(), Limits::max()), json);
    }
  }

  void DecodeKey(const std::string& path, const Json& json, RequestKey& value) {
    if (json.is_string()) {
      const std::string& id = json.get_ref<const std::string&>();
      value = RequestKey(id);
      if (value.view() == id) return;
    }
    Fail(path, absl::StrFormat("at most %d printable ASCII characters", RequestKey::kMaxBytes), json);
  }

  void DecodeHex(const std::string& path, const Json& json, uint64_t& value) {
    static constexpr std::string_view kDigits = "0123456789abcdef";
    value = 0;
    bool valid = json.is_string() && json.get_ref<const std::string&>().size() == 16;
    if (valid) {
      for (const char c : json.get_ref<const std::string&>()) {
        const size_t digit = kDigits.find(c);
        valid = valid && digit != kDigits.npos;
        value = value << 4 | (digit & 15);
      }
    }
    if (!valid) Fail(path, "16 hexadecimal digits", json);
  }

  template <typename T, typename Count>
  void DecodeSeveral(const std::string& path, const Json& json, Several<T, Count>& several) {
    if (!json.is_array() || json.size() < static_cast<size_t>(several.least) ||
        json.size() > static_cast<size_t>(several.most)) {
      return Fail(path, absl::StrFormat("an array of %d to %d", several.least, several.most), json);
    }
    several.n = static_cast<Count>(json.size());
    for (size_t i = 0; i < json.size() && status_.ok(); ++i) {
      Decode(absl::StrFormat("%s[%d]", path, i), json[i], several.items[i]);
    }
  }

  template <typename E>
  static std::string OneOf() {
    std::string names;
    for (const E value : AllOf<E>()) names += (names.empty() ? "one of " : ", ") + std::string(NameOf(value));
    return names;
  }

  const Json& object_;
  const std::string path_;
  std::set<std::string> known_;
  absl::Status status_;
};

// The value of the line; nlohmann would keep the last of two fields of one name without a word.
absl::StatusOr<Json> ParseLine(std::string_view line) {
  if (line.size() > kMaxRecordBytes) {
    return absl::InvalidArgumentError(
        absl::StrFormat("decision record: expected at most %d bytes, found %d", kMaxRecordBytes, line.size()));
  }
  std::vector<std::set<std::string>> open;
  std::string twice;
  const auto watch = [&](int depth, Json::parse_event_t event, Json& parsed) {
    if (event == Json::parse_event_t::object_start) open.emplace_back();
    if (event == Json::parse_event_t::object_end) open.pop_back();
    if (event == Json::parse_event_t::key && !open.back().insert(parsed.get<std::string>()).second) {
      twice = parsed.get<std::string>();
    }
    return true;
  };
  Json json = Json::parse(line, watch, /*allow_exceptions=*/false);
  if (json.is_discarded()) {
    return absl::InvalidArgumentError("decision record: expected one line of JSON, found something else");
  }
  if (!twice.empty()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("decision record: '%s': twice in one object", twice.substr(0, 64)));
  }
  return json;
}

absl::Status CheckSchema(const Json& json) {
  if (!json.is_object() || !json.contains("schema")) return absl::OkStatus();  // told by the reader
  const Json& schema = json["schema"];
  if (!schema.is_number_unsigned() || schema.get<uint64_t>() == kRecordSchema) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrFormat("decision record: schema %d: this build reads schema %d; use the version that wrote the log",
                      schema.get<uint64_t>(), kRecordSchema));
}

// What the parts must be to each other, so that a record read is a record that can be used.
absl::Status CheckIndices(const DecisionRecord& record) {
  if (record.choice >= record.n_options) {
    return absl::InvalidArgumentError(
        absl::StrFormat("decision record: 'choice': expected an index below the %d options, found %d", record.n_options,
                        record.choice));
  }
  for (int i = 0; i < record.n_options; ++i) {
    const uint8_t up = record.options[static_cast<size_t>(i)].upstream;
    if (up == Option::kHere || up < record.situation.n_upstreams) continue;
    return absl::InvalidArgumentError(
        absl::StrFormat("decision record: 'options[%d].upstream': expected an index below the %d upstreams, found %d",
                        i, record.situation.n_upstreams, up));
  }
  return absl::OkStatus();
}

}  // namespace

std::string RecordToJson(const DecisionRecord& record) {
  DecisionRecord copy = record;  // the list of fields serves the reader as well, which writes to them
  Writer writer;
  Visit(writer, copy);
  return writer.Take().dump();
}

absl::StatusOr<DecisionRecord> RecordFromJson(std::string_view line) {
  auto json = ParseLine(line);
  if (!json.ok()) return json.status();
  if (absl::Status status = CheckSchema(*json); !status.ok()) return status;
  DecisionRecord record;
  Reader reader(*json, "");
  if (json->is_object()) Visit(reader, record);
  if (absl::Status status = reader.Finish(); !status.ok()) return status;
  if (absl::Status status = CheckIndices(record); !status.ok()) return status;
  return record;
}

}  // namespace updraft
