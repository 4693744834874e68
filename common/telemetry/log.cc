#include "common/telemetry/log.h"

#include <spdlog/sinks/stdout_sinks.h>
#include <spdlog/spdlog.h>

#include <memory>

#include "absl/strings/ascii.h"

namespace updraft {

namespace {

constexpr size_t kMaxValueBytes = 512;

bool IsPlain(std::string_view value) {
  if (value.empty()) return false;
  for (char c : value) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) &&
        std::string_view("-_.:/+@[]%").find(c) == std::string_view::npos) {
      return false;
    }
  }
  return true;
}

std::string Quoted(std::string_view value) {
  std::string quoted = "\"";
  for (char c : value.substr(0, kMaxValueBytes)) {
    if (c == '"' || c == '\\') {
      quoted += '\\';
      quoted += c;
    } else if (c == '\n') {
      quoted += "\\n";
    } else if (absl::ascii_iscntrl(static_cast<unsigned char>(c))) {
      absl::StrAppendFormat(&quoted, "\\x%02x", static_cast<unsigned char>(c));
    } else {
      quoted += c;
    }
  }
  if (value.size() > kMaxValueBytes) quoted += "...";
  return quoted + '"';
}

spdlog::level::level_enum ToSpdlog(LogLevel level) {
  switch (level) {
    case LogLevel::kDebug:
      return spdlog::level::debug;
    case LogLevel::kInfo:
      return spdlog::level::info;
    case LogLevel::kWarn:
      return spdlog::level::warn;
    case LogLevel::kError:
      return spdlog::level::err;
  }
  return spdlog::level::info;
}

}  // namespace

LogField::LogField(std::string_view key, std::string_view value)
    : text_(std::string(key) + '=' + (IsPlain(value) ? std::string(value) : Quoted(value))) {}

LogField::LogField(std::string_view key, const absl::Status& value) : LogField(key, value.ToString()) {}

LogField LogField::Json(std::string_view key, std::string_view json) {
  LogField field;
  field.text_ = std::string(key) + '=' + std::string(json);
  return field;
}

absl::Status SetUpLogging(const std::string& level, const std::string& program) {
  spdlog::level::level_enum threshold;
  if (level == "debug") {
    threshold = spdlog::level::debug;
  } else if (level == "info") {
    threshold = spdlog::level::info;
  } else if (level == "warn") {
    threshold = spdlog::level::warn;
  } else if (level == "error") {
    threshold = spdlog::level::err;
  } else {
    return absl::InvalidArgumentError(
        absl::StrFormat("log_level: expected debug, info, warn or error, found '%s'", level));
  }
  auto logger = std::make_shared<spdlog::logger>(program, std::make_shared<spdlog::sinks::stderr_sink_mt>());
  logger->set_level(threshold);
  logger->set_pattern("%Y-%m-%dT%H:%M:%S.%eZ %l %n %v", spdlog::pattern_time_type::utc);
  logger->flush_on(spdlog::level::info);
  spdlog::set_default_logger(std::move(logger));
  return absl::OkStatus();
}

bool LogEnabled(LogLevel level) {
  spdlog::logger* logger = spdlog::default_logger_raw();
  return logger != nullptr && logger->should_log(ToSpdlog(level));
}

void LogEvent(LogLevel level, std::string_view event, std::initializer_list<LogField> fields) {
  spdlog::logger* logger = spdlog::default_logger_raw();
  if (!LogEnabled(level)) return;
  std::string line(event);
  for (const LogField& field : fields) {
    line += ' ';
    line += field.text();
  }
  logger->log(ToSpdlog(level), spdlog::string_view_t(line));
}

}  // namespace updraft
