#include "common/tools/call_parser.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "common/tools/text_parts.h"
#include "nlohmann/json.hpp"

namespace updraft::tools {
namespace {

using Form = CallFormat::Form;

constexpr std::string_view kCallId = "[CALL_ID]";
constexpr size_t kMaxNameBytes = 256;   // of a tool, or of an id behind it
constexpr size_t kMaxUndecided = 1024;  // bytes that may still become the beginning of a call, and are looked at again

bool IsNameChar(char c) {
  return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-' || c == '.';
}

size_t NameBytes(std::string_view text) {
  return static_cast<size_t>(std::find_if_not(text.begin(), text.end(), IsNameChar) - text.begin());
}

// Whether more text may make it begin with `whole`, which it does not yet.
bool MayBecome(std::string_view text, std::string_view whole) {
  return text.size() < whole.size() && whole.starts_with(text);
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
  buffer_.erase(0, at_);
  at_ = 0;
  events_ = nullptr;
}

void CallParser::Finish(std::vector<CallEvent>& events) {
  events_ = &events;
  const bool is_open = state_ != State::kText && state_ != State::kBetween && state_ != State::kClosing;
  if (is_open && !is_call_) Spoil();
  if (state_ == State::kText || state_ == State::kBetween) GiveText(Rest());
  buffer_.clear();
  at_ = 0;
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
  const std::string_view rest = Rest();
  if (at_start_ && format_.bare) {
    const std::string_view begun = WithoutLeadingSpace(rest);
    const auto is_call = BeginsObjectOfCall(begun);
    if (!is_call && rest.size() < kMaxUndecided) return false;
    at_start_ = false;
    if (is_call.value_or(false)) {
      read_.clear();
      is_call_ = false;
      Consume(rest.size() - begun.size());
      BeginObject();
      return true;
    }
  }
  // What was searched before holds no marker, and all of it that was not given yet is white space.
  const size_t open = rest.find(format_.open, n_searched_);
  const size_t n_sure = open != std::string_view::npos ? open : rest.size() - HeldBack(rest, format_.open);
  size_t n_text = n_sure;
  while (n_text > n_searched_ && IsSpace(rest[n_text - 1])) --n_text;
  if (n_text <= n_searched_) n_text = 0;
  GiveText(rest.substr(0, n_text));
  at_ += n_text;
  n_searched_ = n_sure - n_text;
  if (open == std::string_view::npos) return false;
  Open(n_searched_ + format_.open.size());
  return true;
}

void CallParser::Open(size_t n_bytes) {
  read_.clear();
  is_call_ = false;
  n_searched_ = 0;
  Consume(n_bytes);
  state_ = State::kOpened;
}

bool CallParser::StepOpened() {
  SkipSpace();
  if (Rest().empty()) return false;
  const char c = Rest()[0];
  if (c == '{') {
    BeginObject();
  } else if (c == '[' && format_.form != Form::kObjects) {
    in_list_ = true;
    Consume(1);
    state_ = State::kElement;
  } else if (format_.form == Form::kNamed && IsNameChar(c)) {
    state_ = State::kName;
  } else {
    Spoil();
  }
  return true;
}

bool CallParser::StepElement() {
  SkipSpace();
  if (Rest().empty()) return false;
  const char c = Rest()[0];
  if (c == '{') {
    if (is_call_) read_.clear();
    BeginObject();
  } else if (c == ',') {
    Consume(1);
  } else if (c == ']' && is_call_) {
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
  if (!format_.close.empty()) {
    if (MayBecome(Rest(), format_.close)) return false;
    if (Rest().starts_with(format_.close)) Consume(format_.close.size());
  }
  state_ = State::kBetween;
  return true;
}

bool CallParser::StepBetween() {
  SkipSpace();
  if (Rest().empty() || MayBecome(Rest(), format_.open)) return false;
  if (format_.bare && Rest()[0] == ';') return Consume(1), true;
  if (format_.bare && Rest()[0] == '{') return BeginObject(), true;
  state_ = State::kText;
  n_searched_ = 0;
  return true;
}

// ---- A call ---------------------------------------------------------------------------------------------------------

void CallParser::BeginObject() {
  state_ = State::kObject;
  part_ = Part::kOpen;
  key_.clear();
  early_.clear();
  is_call_ = has_arguments_ = false;
}

bool CallParser::StepObject() {
  const State inside = state_;
  const std::string_view rest = Rest();
  size_t n = 0;
  bool fits = true;
  while (n < rest.size() && state_ == inside && fits) {
    // Behind the name what is read is nobody's to give back.
    if (!is_call_) read_ += rest[n];
    fits = TakeOfObject(rest[n]);
    if (fits) ++n;
  }
  at_ += n;
  if (fits) return !Rest().empty();
  if (!is_call_) read_.pop_back();
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
      if (ClosesAnother(c)) return false;
      if (TakeRaw(c)) return true;
      part_ = Part::kKey;  // a number or a word has no end of its own
      return TakeOfObject(c);
  }
  return false;
}

bool CallParser::BeginValue(char c) {
  const bool is_arguments = key_ == "arguments" || key_ == "parameters";
  if (is_arguments && has_arguments_) return false;
  if (c == '"' && (key_ == "name" || is_arguments)) {
    token_ = c;
    escaped_ = false;
    part_ = is_arguments ? Part::kArgumentsString : Part::kName;
    return true;
  }
  if (key_ == "name") return false;
  part_ = Part::kRaw;
  is_arguments_ = is_arguments && c == '{';
  has_arguments_ = has_arguments_ || is_arguments_;
  in_string_ = escaped_ = false;
  open_.clear();
  return TakeRaw(c);
}

bool CallParser::EndString() {
  std::optional<std::string> text = Decoded(token_);
  if (!text) return false;
  if (part_ == Part::kKeyString) {
    key_ = *std::move(text);
    part_ = Part::kColon;
    return true;
  }
  const Part ended = std::exchange(part_, Part::kKey);
  if (ended == Part::kName) {
    if (is_call_ || text->empty()) return false;
    GiveCall(*text);
    GiveArguments(early_);
    return true;
  }
  // Arguments as the text of their JSON.
  const std::string_view object = WithoutLeadingSpace(*text);
  if (object.empty()) return true;
  if (object[0] != '{' || !nlohmann::json::accept(object)) return false;
  has_arguments_ = true;
  is_call_ ? GiveArguments(object) : void(early_ = object);
  return true;
}

bool CallParser::ClosesAnother(char c) const {
  if (in_string_ || open_.empty()) return false;
  return (c == '}' && open_.back() != '{') || (c == ']' && open_.back() != '[');
}

bool CallParser::TakeRaw(char c) {
  const bool ends_scalar = open_.empty() && !in_string_ && (c == ',' || c == '}' || c == ']' || IsSpace(c));
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
    open_ += c;
  } else if (c == '}' || c == ']') {
    open_.pop_back();
  }
  if (is_arguments_) is_call_ ? GiveArguments(std::string_view(&c, 1)) : void(early_ += c);
  if (!open_.empty() || in_string_ || (c != '}' && c != ']' && c != '"')) return true;
  if (state_ == State::kArguments) {
    in_call_ = false;
    state_ = State::kClosing;
  } else {
    part_ = Part::kKey;
  }
  return true;
}

bool CallParser::EndObject() {
  if (!is_call_) return false;
  if (!has_arguments_) GiveArguments("{}");
  in_call_ = false;
  state_ = in_list_ ? State::kElement : State::kClosing;
  return true;
}

// NAME, or NAME [CALL_ID] ID, up to what the arguments begin with.
bool CallParser::StepName() {
  std::string_view rest = Rest();
  const auto wait = [this] { return Rest().size() < kMaxUndecided ? false : (Spoil(), true); };
  const std::string_view name = rest.substr(0, NameBytes(rest));
  if (name.size() > kMaxNameBytes) return Spoil(), true;
  rest = WithoutLeadingSpace(rest.substr(name.size()));
  if (rest.empty() || MayBecome(rest, kCallId)) return wait();
  if (ConsumePrefix(rest, kCallId)) {
    const size_t n_id = NameBytes(rest);
    if (n_id > kMaxNameBytes) return Spoil(), true;
    rest = WithoutLeadingSpace(rest.substr(n_id));
  }
  const std::string_view marker = "[ARGS]";
  if (rest.empty() || MayBecome(rest, marker)) return wait();
  ConsumePrefix(rest, marker);
  rest = WithoutLeadingSpace(rest);
  if (rest.empty()) return wait();
  if (rest[0] != '{') return Spoil(), true;
  GiveCall(std::string(name));
  at_ = buffer_.size() - rest.size();
  state_ = State::kArguments;
  part_ = Part::kRaw;
  is_arguments_ = has_arguments_ = true;
  in_string_ = escaped_ = false;
  open_.clear();
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
  is_call_ = true;
  read_.clear();
  if (++n_seen_ > 1 && one_call_) return;
  in_call_ = true;
  events_->push_back({CallEvent::Kind::kCall, name});
}

void CallParser::GiveArguments(std::string_view text) {
  if (text.empty() || (n_seen_ > 1 && one_call_)) return;
  const bool goes_on = !events_->empty() && events_->back().kind == CallEvent::Kind::kArguments;
  if (!goes_on) events_->push_back({CallEvent::Kind::kArguments, ""});
  events_->back().text += text;
}

void CallParser::Consume(size_t n_bytes) {
  if (!is_call_) read_.append(buffer_, at_, n_bytes);
  at_ += n_bytes;
}

void CallParser::SkipSpace() { Consume(Rest().size() - WithoutLeadingSpace(Rest()).size()); }

void CallParser::Spoil() {
  if (!is_call_) GiveText(read_);
  read_.clear();
  in_list_ = is_call_ = false;
  n_searched_ = 0;
  state_ = State::kText;
}

}  // namespace updraft::tools
