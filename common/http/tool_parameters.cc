#include "common/http/tool_parameters.h"

#include <cstdint>
#include <utility>

#include "common/http/json.h"

namespace updraft::http::openai {
namespace {

// Writes down what lies at tools[i].function.parameters while the parser reads; keeps nothing else.
class Collector {
 public:
  bool null() { return Scalar("null"); }
  bool boolean(bool value) { return Scalar(value ? "true" : "false"); }
  bool number_integer(int64_t value) { return Scalar(std::to_string(value)); }
  bool number_unsigned(uint64_t value) { return Scalar(std::to_string(value)); }
  bool number_float(double, const std::string& written) { return Scalar(written); }
  bool string(std::string& value) { return Scalar(DumpJson(value)); }
  bool binary(Json::binary_t&) { return false; }
  bool key(std::string& value) {
    if (Collects()) {
      Separate();
      text_.back() += DumpJson(value) + ": ";
    }
    path_.back().key = std::move(value);
    return true;
  }
  bool start_object(size_t) { return Open('{'); }
  bool start_array(size_t) { return Open('['); }
  bool end_object() { return Close('}'); }
  bool end_array() { return Close(']'); }
  template <typename Exception>
  bool parse_error(size_t, const std::string&, const Exception&) {
    return false;
  }

  std::vector<std::string> Take() { return std::move(text_); }

 private:
  struct Level {
    bool is_object;
    bool has_items = false;
    std::string key = {};
  };
  static constexpr size_t kParameters = 4;  // levels around the value: body, tools, tool, function

  bool InTool() const {
    return path_.size() >= 2 && path_[0].is_object && path_[0].key == "tools" && !path_[1].is_object;
  }
  bool AtParameters() const {
    return path_.size() == kParameters && InTool() && path_[2].is_object && path_[2].key == "function" &&
           path_[3].is_object && path_[3].key == "parameters";
  }
  bool Collects() const { return path_.size() > kParameters && collecting_; }

  void Separate() {
    if (path_.size() <= kParameters) return;
    if (std::exchange(path_.back().has_items, true)) text_.back() += ", ";
  }
  void BeforeValue() {
    // Of a key that is there twice the last counts.
    if (path_.size() == 1 && path_[0].is_object && path_[0].key == "tools") text_.clear();
    const bool at_function = path_.size() == 3 && InTool() && path_[2].is_object && path_[2].key == "function";
    if (at_function || AtParameters()) text_.back().clear();
    if (Collects() && !path_.back().is_object) Separate();
  }
  bool Scalar(const std::string& written) {
    BeforeValue();
    if (Collects() || AtParameters()) text_.back() += written;
    return true;
  }
  bool Open(char bracket) {
    BeforeValue();
    if (path_.size() == 2 && InTool()) text_.emplace_back();
    collecting_ = collecting_ || AtParameters();
    path_.push_back({bracket == '{'});
    if (Collects()) text_.back() += bracket;
    return true;
  }
  bool Close(char bracket) {
    if (Collects()) text_.back() += bracket;
    path_.pop_back();
    collecting_ = collecting_ && path_.size() > kParameters;
    return true;
  }

  std::vector<Level> path_;
  std::vector<std::string> text_;
  bool collecting_ = false;
};

}  // namespace

std::vector<std::string> ToolParameters(std::string_view body) {
  Collector collector;
  if (!Json::sax_parse(body.begin(), body.end(), &collector)) return {};
  return collector.Take();
}

}  // namespace updraft::http::openai
