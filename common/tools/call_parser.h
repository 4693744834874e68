// Calls of tools, read out of an answer as it is written.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "common/tools/call_format.h"

namespace updraft::tools {

struct CallEvent {
  enum class Kind : uint8_t {
    kText,       // of the answer, beside calls
    kCall,       // a call begins; `text` is the name of its tool
    kArguments,  // the next part of the last call's arguments: JSON, as the model wrote it
  };
  Kind kind = Kind::kText;
  std::string text;
};

// One answer; one thread. However the text is cut, the events, joined, are the same. What looks like a call and is none
// (no name, no object) is text, as it was written; what breaks off after its name was given stays as far as it got.
// White space before and between calls, and commas between those of a list, are dropped.
class CallParser {
 public:
  // one_call: further ones are dropped.
  explicit CallParser(CallFormat format, bool one_call = false);

  void Push(std::string_view text, std::vector<CallEvent>& events);
  // The answer is over: what was held back.
  void Finish(std::vector<CallEvent>& events);

  // Whether a call was given, and the last one to its end: not cut within its arguments.
  bool last_is_whole() const { return n_seen_ > 0 && !in_call_; }

 private:
  enum class State : uint8_t {
    kText,
    kOpened,   // behind OPEN
    kElement,  // in a list, before the next object or its end
    kObject,
    kName,       // kNamed: in the name
    kArguments,  // kNamed: in the object behind it
    kClosing,    // behind the last object, before CLOSE
    kBetween,    // behind a call, before the next or text
  };
  // Where in the object of a call.
  enum class Part : uint8_t { kOpen, kKey, kKeyString, kColon, kValue, kName, kArgumentsString, kRaw };

  bool Step();  // takes something out of the buffer; false: more text is needed
  bool StepText();
  bool StepOpened();
  bool StepElement();
  bool StepObject();
  bool StepName();
  bool StepClosing();
  bool StepBetween();
  bool TakeOfObject(char c);  // false: no object of a call
  bool BeginValue(char c);
  bool EndString();
  bool ClosesAnother(char c) const;  // bracket than the one that was opened last
  bool TakeRaw(char c);              // false: c is not of the value any more
  bool EndObject();

  void BeginObject();
  void GiveText(std::string_view text);
  void GiveCall(const std::string& name);
  void GiveArguments(std::string_view text);
  std::string_view Rest() const { return std::string_view(buffer_).substr(at_); }
  void Consume(size_t n_bytes);
  void SkipSpace();
  void Open(size_t n_bytes);  // of the marker, and of the white space before it
  void Spoil();               // what was read since OPEN, or since the object began, is no call

  const CallFormat format_;
  const bool one_call_;
  std::vector<CallEvent>* events_ = nullptr;  // of the Push that runs
  State state_ = State::kText;
  bool at_start_ = true;  // of the answer: nothing but white space so far
  std::string buffer_;
  size_t at_ = 0;          // of the buffer: what is before has been taken
  size_t n_searched_ = 0;  // kText: of the rest, bytes in which no marker begins
  std::string read_;       // since OPEN, or since the object began, while its name was not given
  bool in_list_ = false;
  int n_seen_ = 0;        // calls, those that are dropped included
  bool is_call_ = false;  // what is being read: its name was given
  bool in_call_ = false;  // and its arguments have not ended

  Part part_ = Part::kOpen;
  std::string token_, key_, early_;  // early_: arguments that came before the name
  bool has_arguments_ = false, is_arguments_ = false;
  bool in_string_ = false, escaped_ = false;
  std::string open_;  // brackets of the value that have not been closed
};

}  // namespace updraft::tools
