#include "common/tools/call_parser.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "nlohmann/json.hpp"

namespace updraft::tools {
namespace {

using Form = CallFormat::Form;

constexpr std::string_view kCallId = "[CALL_ID]";

bool IsSpace(char c) { return absl::ascii_isspace(static_cast<unsigned char>(c)); }

bool IsNameChar(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '.';
}

std::string_view WithoutLeadingSpace(std::string_view text) {
  return text.substr(static_cast<size_t>(std::find_if_not(text.begin(), text.end(), IsSpace) - text.begin()));
}

std::string_view WithoutTrailingSpace(std::string_view text) {
  while (!text.empty() && IsSpace(text.back())) text.remove_suffix(1);
  return text;
}

bool ConsumePrefix(std::string_view& text, std::string_view prefix) {
  if (!text.starts_with(prefix)) return false;
  text.remove_prefix(prefix.size());
  return true;
}

// Whether `text` may still become something that begins with `whole`.
bool MayBecome(std::string_view text, std::string_view whole) {
  return whole.starts_with(text.substr(0, whole.size()));
}

// How many bytes at the end of `text` a marker may begin with.
size_t HeldBack(std::string_view text, std::string_view marker) {
  for (size_t n = std::min(text.size(), marker.size() - 1); n > 0; --n) {
    if (marker.starts_with(text.substr(text.size() - n))) return n;
  }
  return 0;
}

// Whether `text` begins with { "name", white space aside; nullopt: it may become so.
std::optional<bool> BeginsObjectOfCall(std::string_view text) {
  constexpr std::string_view kBegin = "{\"name\"";
  size_t matched = 0;
  for (const char c : text) {
    if (matched == kBegin.size()) break;
    if (matched <= 1 && IsSpace(c)) continue;
    if (c != kBegin[matched]) return false;
    ++matched;
  }
  return matched == kBegin.size() ? std::optional<bool>(true) : std::nullopt;
}

// Of a JSON string with its quotes; nullopt: it is none.
std::optional<std::string> Decoded(const std::string& token) {
  const nlohmann::json json = nlohmann::json::parse(token, nullptr, /*allow_exceptions=*/false);
  return json.is_string() ? std::optional<std::string>(json.get<std::string>()) : std::nullopt;
}

}  // namespace

CallParser::CallParser(CallFormat format, bool one_call) : format_(std::move(format)), one_call_(one_call) {}

void CallParser::Push(std::string_view text, std::vector<CallEvent>& events) {
  events_ = &events;
  buffer_ += text;
  while (Step()) {
  }
  events_ = nullptr;
}

void CallParser::Finish(std::vector<CallEvent>& events) {
  events_ = &events;
  const bool is_open = state_ != State::kText && state_ != State::kBetween && state_ != State::kClosing;
  if (is_open && !given_since_open_) Spoil();
  if (state_ == State::kText) GiveText(buffer_);
  buffer_.clear();
  events_ = nullptr;
}

bool CallParser::Step() {
  switch (state_) {
    case State::kText:
      return StepText();
    case State::kOpened:
      return StepOpened();
    case State::kElement:
      return StepElement();
    case State::kObject:
    case State::kArguments:
      return StepObject();
    case State::kName:
      return StepName();
    case State::kClosing:
      return StepClosing();
    case State::kBetween:
      return StepBetween();
  }
  return false;
}

// ---- Around calls ---------------------------------------------------------------------------------------------------

bool CallParser::StepText() {
  if (at_start_ && format_.bare) {
    const size_t begin = std::find_if_not(buffer_.begin(), buffer_.end(), IsSpace) - buffer_.begin();
    const auto is_call = BeginsObjectOfCall(std::string_view(buffer_).substr(begin));
    if (!is_call) return false;
    at_start_ = false;
    if (*is_call) {
      read_.clear();
      given_since_open_ = false;
      Consume(begin);
      BeginObject();
      return true;
    }
  }
  const size_t open = buffer_.find(format_.open);
  if (open != std::string::npos) {
    const std::string_view before = WithoutTrailingSpace(std::string_view(buffer_).substr(0, open));
    const size_t n_space = open - before.size();
    GiveText(before);
    buffer_.erase(0, open - n_space);
    read_.clear();
    given_since_open_ = false;
    Consume(n_space + format_.open.size());
    state_ = State::kOpened;
    return true;
  }
  const std::string_view sure = std::string_view(buffer_).substr(0, buffer_.size() - HeldBack(buffer_, format_.open));
  const std::string_view given = WithoutTrailingSpace(sure);
  if (given.empty()) return false;
  GiveText(given);
  buffer_.erase(0, given.size());
  return false;
}

bool CallParser::StepOpened() {
  SkipSpace();
  if (buffer_.empty()) return false;
  const char c = buffer_[0];
  if (c == '{') {
    BeginObject();
  } else if (c == '[' && format_.form != Form::kObjects) {
    in_list_ = true;
    Consume(1);
    state_ = State::kElement;
  } else if (format_.form == Form::kNamed && IsNameChar(c)) {
    token_.clear();
    state_ = State::kName;
  } else {
    Spoil();
  }
  return true;
}

bool CallParser::StepElement() {
  SkipSpace();
  if (buffer_.empty()) return false;
  if (buffer_[0] == '{') {
    BeginObject();
  } else if (buffer_[0] == ',') {
    Consume(1);
  } else if (buffer_[0] == ']' && given_since_open_) {
    Consume(1);
    in_list_ = false;
    state_ = State::kClosing;
  } else {
    Spoil();
  }
  return true;
}

bool CallParser::StepClosing() {
  SkipSpace();
  if (format_.close.empty()) return state_ = State::kBetween, true;
  if (buffer_.size() < format_.close.size() && MayBecome(buffer_, format_.close)) return false;
  if (buffer_.starts_with(format_.close)) Consume(format_.close.size());
  state_ = State::kBetween;
  return true;
}

bool CallParser::StepBetween() {
  SkipSpace();
  if (buffer_.empty()) return false;
  if (format_.bare && buffer_[0] == ';') return Consume(1), true;
  if (format_.bare && buffer_[0] == '{') return BeginObject(), true;
  if (buffer_.size() < format_.open.size() && MayBecome(buffer_, format_.open)) return false;
  state_ = State::kText;
  return true;
}

// ---- A call ---------------------------------------------------------------------------------------------------------

void CallParser::BeginObject() {
  state_ = State::kObject;
  part_ = Part::kOpen;
  key_.clear();
  early_.clear();
  named_ = has_arguments_ = false;
}

bool CallParser::StepObject() {
  size_t n = 0;
  const State inside = state_;
  bool fits = true;
  while (n < buffer_.size() && state_ == inside && fits) {
    fits = TakeOfObject(buffer_[n]);
    if (fits) ++n;
  }
  Consume(n);
  if (fits) return n > 0 && !buffer_.empty();
  Spoil();
  return true;
}

bool CallParser::TakeOfObject(char c) {
  switch (part_) {
    case Part::kOpen:
      part_ = Part::kKey;
      return c == '{';
    case Part::kKey:
      if (IsSpace(c) || c == ',') return true;
      if (c == '}') return EndObject();
      if (c != '"') return false;
      token_ = c;
      escaped_ = false;
      part_ = Part::kKeyString;
      return true;
    case Part::kKeyString:
    case Part::kName:
    case Part::kArgumentsString:
      token_ += c;
      if (escaped_ || c == '\\') {
        escaped_ = !escaped_;
        return true;
      }
      return c != '"' || EndString();
    case Part::kColon:
      if (c == ':') part_ = Part::kValue;
      return c == ':' || IsSpace(c);
    case Part::kValue:
      return IsSpace(c) || BeginValue(c);
    case Part::kRaw:
      if (TakeRaw(c)) return true;
      part_ = Part::kKey;  // a number or a word has no end of its own
      return TakeOfObject(c);
  }
  return false;
}

bool CallParser::BeginValue(char c) {
  const bool is_arguments = key_ == "arguments" || key_ == "parameters";
  if (c == '"' && (key_ == "name" || is_arguments)) {
    token_ = c;
    escaped_ = false;
    part_ = is_arguments ? Part::kArgumentsString : Part::kName;
    return !is_arguments || !has_arguments_;
  }
  if (key_ == "name") return false;
  part_ = Part::kRaw;
  is_arguments_ = is_arguments && c == '{' && !std::exchange(has_arguments_, has_arguments_ || c == '{');
  in_string_ = escaped_ = false;
  depth_ = 0;
  return TakeRaw(c);
}

bool CallParser::EndString() {
  const std::optional<std::string> text = Decoded(token_);
  if (!text) return false;
  switch (part_) {
    case Part::kKeyString:
      key_ = *text;
      part_ = Part::kColon;
      return true;
    case Part::kName:
      if (named_ || text->empty()) return false;
      part_ = Part::kKey;
      GiveCall(*text);
      GiveArguments(early_);
      return true;
    default:  // arguments as the text of their JSON
      part_ = Part::kKey;
      has_arguments_ = true;
      named_ ? GiveArguments(*text) : void(early_ = *text);
      return true;
  }
}

bool CallParser::TakeRaw(char c) {
  const bool ends_scalar = depth_ == 0 && !in_string_ && (c == ',' || c == '}' || c == ']' || IsSpace(c));
  if (ends_scalar) return false;
  if (in_string_) {
    if (escaped_ || c == '\\') {
      escaped_ = !escaped_;
    } else if (c == '"') {
      in_string_ = false;
    }
  } else if (c == '"') {
    in_string_ = true;
  } else if (c == '{' || c == '[') {
    ++depth_;
  } else if (c == '}' || c == ']') {
    --depth_;
  }
  if (is_arguments_) named_ ? GiveArguments(std::string_view(&c, 1)) : void(early_ += c);
  if (depth_ > 0 || in_string_ || (c != '}' && c != ']' && c != '"')) return true;
  if (state_ == State::kArguments) {
    state_ = State::kClosing;
  } else {
    part_ = Part::kKey;
  }
  return true;
}

bool CallParser::EndObject() {
  if (!named_) return false;
  if (!has_arguments_) GiveArguments("{}");
  state_ = in_list_ ? State::kElement : State::kClosing;
  return true;
}

// NAME, or NAME [CALL_ID] ID, up to what the arguments begin with.
bool CallParser::StepName() {
  const size_t end = std::find_if_not(buffer_.begin(), buffer_.end(), IsNameChar) - buffer_.begin();
  if (end == buffer_.size()) return false;
  std::string_view rest = WithoutLeadingSpace(std::string_view(buffer_).substr(end));
  if (rest.empty()) return false;
  if (rest.size() < kCallId.size() && MayBecome(rest, kCallId)) return false;
  if (ConsumePrefix(rest, kCallId)) {
    const size_t behind = std::find_if_not(rest.begin(), rest.end(), IsNameChar) - rest.begin();
    if (behind == rest.size()) return false;
    rest.remove_prefix(behind);
  }
  const std::string_view marker = format_.before_arguments;
  if (!marker.empty() && rest.size() < marker.size() && MayBecome(rest, marker)) return false;
  ConsumePrefix(rest, marker);
  rest = WithoutLeadingSpace(rest);
  if (rest.empty()) return false;
  if (rest[0] != '{') return Spoil(), true;
  GiveCall(buffer_.substr(0, end));
  Consume(buffer_.size() - rest.size());
  state_ = State::kArguments;
  part_ = Part::kRaw;
  is_arguments_ = has_arguments_ = true;
  in_string_ = escaped_ = false;
  depth_ = 0;
  return true;
}

// ---- What is given --------------------------------------------------------------------------------------------------

void CallParser::GiveText(std::string_view text) {
  if (text.empty()) return;
  at_start_ = false;
  const bool goes_on = !events_->empty() && events_->back().kind == CallEvent::Kind::kText;
  if (!goes_on) events_->push_back({CallEvent::Kind::kText, ""});
  events_->back().text += text;
}

void CallParser::GiveCall(const std::string& name) {
  named_ = given_since_open_ = true;
  read_.clear();
  if (++n_seen_ > 1 && one_call_) return;
  ++n_calls_;
  events_->push_back({CallEvent::Kind::kCall, name});
}

void CallParser::GiveArguments(std::string_view text) {
  if (text.empty() || (n_seen_ > 1 && one_call_)) return;
  const bool goes_on = !events_->empty() && events_->back().kind == CallEvent::Kind::kArguments;
  if (!goes_on) events_->push_back({CallEvent::Kind::kArguments, ""});
  events_->back().text += text;
}

void CallParser::Consume(size_t n_bytes) {
  if (!given_since_open_) read_.append(buffer_, 0, n_bytes);
  buffer_.erase(0, n_bytes);
}

void CallParser::SkipSpace() {
  Consume(static_cast<size_t>(std::find_if_not(buffer_.begin(), buffer_.end(), IsSpace) - buffer_.begin()));
}

void CallParser::Spoil() {
  if (!given_since_open_) GiveText(read_);
  read_.clear();
  in_list_ = false;
  given_since_open_ = false;
  state_ = State::kText;
}

}  // namespace updraft::tools
