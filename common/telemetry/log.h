// Logs of the daemons: one event per line on stderr, as key=value, for people and for machines.
//   2026-11-21T10:15:04.123Z info edge request id=7f3a decision=hand-over reason="confidence 0.41 below 0.83"
//   total_ms=84.2
#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <type_traits>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"

namespace updraft {

enum class LogLevel { kDebug, kInfo, kWarn, kError };

// One key=value pair. Numbers are printed shortly; strings are quoted where they hold anything but plain characters, so
// that no value can end the line or look like another pair.
class LogField {
 public:
  LogField(std::string_view key, std::string_view value);
  LogField(std::string_view key, const char* value) : LogField(key, std::string_view(value)) {}
  LogField(std::string_view key, const std::string& value) : LogField(key, std::string_view(value)) {}
  LogField(std::string_view key, const absl::Status& value);
  LogField(std::string_view key, bool value) : LogField(key, std::string_view(value ? "true" : "false")) {}
  template <typename Number>
  requires(std::is_arithmetic_v<Number> && !std::is_same_v<Number, bool>) LogField(std::string_view key, Number value)
      : text_(std::string(key) + '=') {
    if constexpr (std::is_floating_point_v<Number>) {
      absl::StrAppendFormat(&text_, "%.6g", static_cast<double>(value));
    } else {
      text_ += std::to_string(value);
    }
  }
  // One line of JSON that this process made, unquoted and whole: the last field of its line.
  static LogField Json(std::string_view key, std::string_view json);
  const std::string& text() const { return text_; }

 private:
  LogField() = default;
  std::string text_;
};

// Call once in main(), before the first event. level: "debug", "info", "warn" or "error" (InvalidArgument otherwise);
// program: the tier's or tool's name, in every line.
absl::Status SetUpLogging(const std::string& level, const std::string& program);

// Whether an event of this level would be written: to spare the making of large fields. Thread-safe.
bool LogEnabled(LogLevel level);

// Thread-safe. `event` is one word ("request", "ready", "link-lost"). Never log what people said to the model.
void LogEvent(LogLevel level, std::string_view event, std::initializer_list<LogField> fields = {});

}  // namespace updraft
