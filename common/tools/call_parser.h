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
// White space before and between calls is dropped.
class CallParser {
 public:
  // one_call: further ones are dropped.
  explicit CallParser(CallFormat format, bool one_call = false);

  void Push(std::string_view text, std::vector<CallEvent>& events);
  // The answer is over: what was held back.
  void Finish(std::vector<CallEvent>& events);

  int n_calls() const { return n_calls_; }  // that were given

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
  bool TakeRaw(char c);  // false: c is not of the value any more
  bool EndObject();

  void BeginObject();
  void GiveText(std::string_view text);
  void GiveCall(const std::string& name);
  void GiveArguments(std::string_view text);
  void Consume(size_t n_bytes);
  void SkipSpace();
  void Spoil();  // what was read since OPEN is no call

  const CallFormat format_;
  const bool one_call_;
  std::vector<CallEvent>* events_ = nullptr;  // of the Push that runs
  State state_ = State::kText;
  bool at_start_ = true;  // of the answer: nothing but white space so far
  std::string buffer_;    // not looked at yet, or not decided
  std::string read_;      // since OPEN, while none of its calls was given
  bool in_list_ = false;
  int n_calls_ = 0, n_seen_ = 0;
  bool given_since_open_ = false;

  Part part_ = Part::kOpen;
  std::string token_, key_, early_;  // early_: arguments that came before the name
  bool named_ = false, has_arguments_ = false, is_arguments_ = false;
  bool in_string_ = false, escaped_ = false;
  int depth_ = 0;
};

}  // namespace updraft::tools
