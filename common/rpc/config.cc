#include "common/rpc/config.h"

#include <google/protobuf/descriptor.h>
#include <google/protobuf/util/json_util.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <optional>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "common/text/utf8.h"
#include "updraft/v1/config.pb.h"

namespace updraft {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

constexpr size_t kMaxFileBytes = 1 << 20;

const v1::FieldInfo& InfoOf(const FieldDescriptor& field) { return field.options().GetExtension(v1::info); }

std::string FlagName(const FieldDescriptor& field) { return absl::StrReplaceAll(field.name(), {{"_", "-"}}); }

const char* TypeName(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
    case FieldDescriptor::CPPTYPE_INT64:
    case FieldDescriptor::CPPTYPE_UINT32:
    case FieldDescriptor::CPPTYPE_UINT64:
      return "integer";
    case FieldDescriptor::CPPTYPE_FLOAT:
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return "number";
    case FieldDescriptor::CPPTYPE_BOOL:
      return "true|false";
    case FieldDescriptor::CPPTYPE_STRING:
      return "text";
    default:
      return "unsupported";
  }
}

absl::Status SetFromText(const FieldDescriptor& field, const std::string& text, Message* config) {
  const auto* reflection = config->GetReflection();
  const auto wrong_type = [&] {
    return absl::InvalidArgumentError(
        absl::StrFormat("--%s: expected %s, found '%s'", FlagName(field), TypeName(field), text));
  };
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32: {
      int32_t value = 0;
      if (!absl::SimpleAtoi(text, &value)) return wrong_type();
      reflection->SetInt32(config, &field, value);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_INT64: {
      int64_t value = 0;
      if (!absl::SimpleAtoi(text, &value)) return wrong_type();
      reflection->SetInt64(config, &field, value);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_DOUBLE: {
      double value = 0;
      if (!absl::SimpleAtod(text, &value) || !std::isfinite(value)) return wrong_type();
      reflection->SetDouble(config, &field, value);
      return absl::OkStatus();
    }
    case FieldDescriptor::CPPTYPE_BOOL:
      if (text != "true" && text != "false") return wrong_type();
      reflection->SetBool(config, &field, text == "true");
      return absl::OkStatus();
    case FieldDescriptor::CPPTYPE_STRING:
      if (field.is_repeated()) {
        reflection->AddString(config, &field, text);
      } else {
        reflection->SetString(config, &field, text);
      }
      return absl::OkStatus();
    default:
      return absl::InternalError(absl::StrFormat(
          "field '%s': a configuration field is an int32, int64, double, bool, string or list of strings",
          field.name()));
  }
}

void CopyField(const FieldDescriptor& field, const Message& from, Message* to) {
  const auto* reflection = from.GetReflection();
  if (field.is_repeated()) {
    for (int i = 0; i < reflection->FieldSize(from, &field); ++i) {
      reflection->AddString(to, &field, reflection->GetRepeatedString(from, &field, i));
    }
    return;
  }
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      return reflection->SetInt32(to, &field, reflection->GetInt32(from, &field));
    case FieldDescriptor::CPPTYPE_INT64:
      return reflection->SetInt64(to, &field, reflection->GetInt64(from, &field));
    case FieldDescriptor::CPPTYPE_DOUBLE:
      return reflection->SetDouble(to, &field, reflection->GetDouble(from, &field));
    case FieldDescriptor::CPPTYPE_BOOL:
      return reflection->SetBool(to, &field, reflection->GetBool(from, &field));
    default:
      return reflection->SetString(to, &field, reflection->GetString(from, &field));
  }
}

absl::Status SetDefaults(Message* config) {
  config->Clear();
  const Descriptor& descriptor = *config->GetDescriptor();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const std::string& text = InfoOf(*descriptor.field(i)).default_value();
    if (text.empty()) continue;
    if (absl::Status status = SetFromText(*descriptor.field(i), text, config); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::StatusOr<std::string> ReadFile(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  if (!file) {
    return absl::InvalidArgumentError(
        absl::StrFormat("--config: cannot read '%s'; give the path of a JSON file", path));
  }
  std::string text(kMaxFileBytes + 1, '\0');
  file.read(text.data(), static_cast<std::streamsize>(text.size()));
  text.resize(static_cast<size_t>(file.gcount()));
  if (text.size() > kMaxFileBytes) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "--config: '%s' is larger than %d bytes; that is not a configuration file", path, kMaxFileBytes));
  }
  return text;
}

// proto3 scalars do not remember whether JSON mentioned them, so the keys of the JSON object say which fields to take.
absl::Status ApplyFile(const std::string& path, Message* config) {
  const absl::StatusOr<std::string> text = ReadFile(path);
  if (!text.ok()) return text.status();
  const auto json = nlohmann::json::parse(*text, nullptr, /*allow_exceptions=*/false);
  if (!json.is_object()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("--config: '%s': expected one JSON object such as {\"model\": \"m.gguf\"}, found %s", path,
                        json.is_discarded() ? "text that is not JSON" : json.type_name()));
  }
  const Descriptor& descriptor = *config->GetDescriptor();
  std::vector<const FieldDescriptor*> present;
  for (const auto& item : json.items()) {
    const FieldDescriptor* field = descriptor.FindFieldByName(item.key());
    if (field == nullptr) field = descriptor.FindFieldByCamelcaseName(item.key());
    if (field == nullptr) {
      return absl::InvalidArgumentError(absl::StrFormat("--config: '%s': unknown field '%s'; --help lists the fields",
                                                        path, item.key().substr(0, 200)));
    }
    if (!item.value().is_null()) present.push_back(field);
  }
  std::unique_ptr<Message> parsed(config->New());
  const auto status = google::protobuf::util::JsonStringToMessage(*text, parsed.get());
  if (!status.ok()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("--config: '%s': %s", path, std::string(status.message().data(), status.message().size())));
  }
  for (const FieldDescriptor* field : present) CopyField(*field, *parsed, config);
  return absl::OkStatus();
}

struct Flag {
  std::string name;
  std::optional<std::string> value;  // nullopt: a switch
};

absl::StatusOr<std::vector<Flag>> SplitFlags(std::span<const char* const> args, const Descriptor& descriptor) {
  std::vector<Flag> flags;
  for (size_t i = 0; i < args.size(); ++i) {
    const std::string word = args[i];
    if (word == "-h") {
      flags.push_back({"help", std::nullopt});
      continue;
    }
    if (word.size() < 3 || word.compare(0, 2, "--") != 0) {
      return absl::InvalidArgumentError(
          absl::StrFormat("expected a flag such as --listen=HOST:PORT, found '%s'", word.substr(0, 200)));
    }
    const size_t equals = word.find('=');
    Flag flag{absl::StrReplaceAll(word.substr(2, equals == std::string::npos ? equals : equals - 2), {{"-", "_"}}), {}};
    const FieldDescriptor* field = descriptor.FindFieldByName(flag.name);
    if (field == nullptr && flag.name != "config" && flag.name != "help") {
      return absl::InvalidArgumentError(absl::StrFormat("unknown flag '%s'", word.substr(0, 200)));
    }
    if (equals != std::string::npos) {
      flag.value = word.substr(equals + 1);
    } else if (field != nullptr && field->cpp_type() == FieldDescriptor::CPPTYPE_BOOL) {
      flag.value = "true";
    } else if (flag.name != "help") {
      if (i + 1 >= args.size())
        return absl::InvalidArgumentError(absl::StrFormat("%s: expected a value after it", word));
      flag.value = args[++i];
    }
    flags.push_back(std::move(flag));
  }
  return flags;
}

// Whole numbers as people write them.
std::string NumberText(double value) {
  return value == std::floor(value) && std::abs(value) < 1e15 ? absl::StrCat(static_cast<int64_t>(value))
                                                              : absl::StrCat(value);
}

std::string RangeText(const v1::FieldInfo& info) {
  if (info.has_min() && info.has_max()) return absl::StrCat(NumberText(info.min()), " to ", NumberText(info.max()));
  if (info.has_min()) return absl::StrCat("at least ", NumberText(info.min()));
  if (info.has_max()) return absl::StrCat("at most ", NumberText(info.max()));
  return "";
}

absl::Status CheckUtf8(const FieldDescriptor& field, const std::string& value) {
  const size_t at = text::FirstIllFormed(value);
  if (at == std::string::npos) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat("%s: expected text in UTF-8, found byte 0x%02x at position %d",
                                                    field.name(), static_cast<unsigned char>(value[at]), at));
}

absl::Status CheckField(const FieldDescriptor& field, const Message& config) {
  const v1::FieldInfo& info = InfoOf(field);
  const auto* reflection = config.GetReflection();
  if (field.is_repeated()) {
    for (int i = 0; i < reflection->FieldSize(config, &field); ++i) {
      absl::Status status = CheckUtf8(field, reflection->GetRepeatedString(config, &field, i));
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }
  if (field.cpp_type() == FieldDescriptor::CPPTYPE_STRING) {
    const std::string value = reflection->GetString(config, &field);
    if (absl::Status status = CheckUtf8(field, value); !status.ok()) return status;
    if (info.required() && value.empty()) {
      return absl::InvalidArgumentError(
          absl::StrFormat("%s: expected %s, found nothing; give --%s or the field '%s' in --config", field.name(),
                          info.help(), FlagName(field), field.name()));
    }
    if (info.choices_size() > 0 &&
        std::find(info.choices().begin(), info.choices().end(), value) == info.choices().end()) {
      return absl::InvalidArgumentError(absl::StrFormat("%s: expected one of %s, found '%s'", field.name(),
                                                        absl::StrJoin(info.choices(), ", "), value.substr(0, 200)));
    }
    return absl::OkStatus();
  }
  double value = 0;
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_INT32:
      value = reflection->GetInt32(config, &field);
      break;
    case FieldDescriptor::CPPTYPE_INT64:
      value = static_cast<double>(reflection->GetInt64(config, &field));
      break;
    case FieldDescriptor::CPPTYPE_DOUBLE:
      value = reflection->GetDouble(config, &field);
      break;
    default:
      return absl::OkStatus();
  }
  // The comparisons are false for NaN, which a JSON file can spell.
  const bool works =
      std::isfinite(value) && (!info.has_min() || value >= info.min()) && (!info.has_max() || value <= info.max());
  if (works) return absl::OkStatus();
  return absl::InvalidArgumentError(
      absl::StrFormat("%s: expected %s, found %s", field.name(), RangeText(info), NumberText(value)));
}

}  // namespace

absl::StatusOr<ConfigAction> LoadConfig(std::span<const char* const> args, Message* config) {
  const Descriptor& descriptor = *config->GetDescriptor();
  if (absl::Status status = SetDefaults(config); !status.ok()) return status;
  const absl::StatusOr<std::vector<Flag>> flags = SplitFlags(args, descriptor);
  if (!flags.ok()) return flags.status();
  for (const Flag& flag : *flags) {
    if (flag.name == "help") return ConfigAction::kShowHelp;
  }
  for (const Flag& flag : *flags) {
    if (flag.name != "config") continue;
    if (absl::Status status = ApplyFile(*flag.value, config); !status.ok()) return status;
  }
  for (const Flag& flag : *flags) {  // the file's lists go
    const FieldDescriptor* field = descriptor.FindFieldByName(flag.name);
    if (field != nullptr && field->is_repeated()) config->GetReflection()->ClearField(config, field);
  }
  for (const Flag& flag : *flags) {
    if (flag.name == "config") continue;
    const absl::Status status = SetFromText(*descriptor.FindFieldByName(flag.name), *flag.value, config);
    if (!status.ok()) return status;
  }
  if (absl::Status status = ValidateConfig(*config); !status.ok()) return status;
  return ConfigAction::kRun;
}

absl::Status ValidateConfig(const Message& config) {
  const Descriptor& descriptor = *config.GetDescriptor();
  for (int i = 0; i < descriptor.field_count(); ++i) {
    if (absl::Status status = CheckField(*descriptor.field(i), config); !status.ok()) return status;
  }
  return absl::OkStatus();
}

std::string ConfigHelp(std::string_view program, std::string_view summary, const Descriptor& descriptor) {
  std::string help = absl::StrFormat(
      "%s: %s\n\n  --config FILE\n      JSON object with the fields below (with underscores); flags win over it\n",
      std::string(program), std::string(summary));
  for (int i = 0; i < descriptor.field_count(); ++i) {
    const FieldDescriptor& field = *descriptor.field(i);
    const v1::FieldInfo& info = InfoOf(field);
    std::string notes = info.default_value().empty() ? (info.required() ? "required" : "")
                                                     : absl::StrCat("default ", info.default_value());
    const std::string range = info.choices_size() > 0 ? absl::StrJoin(info.choices(), "|") : RangeText(info);
    if (!range.empty()) absl::StrAppend(&notes, notes.empty() ? "" : "; ", range);
    if (field.is_repeated()) absl::StrAppend(&notes, notes.empty() ? "" : "; ", "may be given several times");
    absl::StrAppend(&help, "  --", FlagName(field), " <", TypeName(field), ">\n      ", info.help(),
                    notes.empty() ? "" : absl::StrCat(" (", notes, ")"), "\n");
  }
  return help;
}

std::string ConfigToJson(const Message& config) {
  google::protobuf::util::JsonPrintOptions options;
  options.always_print_primitive_fields = true;
  options.preserve_proto_field_names = true;
  std::string json;
  // Fails only for messages with Any, or for text that is not UTF-8, which LoadConfig refuses.
  if (!google::protobuf::util::MessageToJsonString(config, &json, options).ok()) return "{}";
  return json;
}

}  // namespace updraft
