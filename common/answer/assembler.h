// Tokens of one answer, as they are chosen -> what its reader gets: text in whole characters, cut before a stop string,
// within its limits. The edge's own run, the cloud's loop and the calibrator use this one, so that what was calibrated
// is what is served.
//
// It decides when an answer ends: at an end-of-generation token, a stop string, or a limit. Whoever chooses the tokens
// stops choosing when it says so; tokens that overran are not pushed.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "common/decode/evidence.h"
#include "common/decode/stop.h"

namespace updraft {

// Why an answer is over.
enum class AnswerEnd : uint8_t {
  kOpen,    // it is not
  kStop,    // an end-of-generation token or a stop string
  kLength,  // max_tokens, or what the context or the cache holds
};

// Tokens -> text of one answer.
class TextStream {
 public:
  virtual ~TextStream() = default;
  // The text that this token completes; whole UTF-8 characters, often empty.
  virtual std::string Push(int32_t token) = 0;
  // What is left at the end of the answer.
  virtual std::string Flush() = 0;
};

struct AssemblerOptions {
  std::vector<std::string> stops = {};  // the answer ends before the first that appears in its text; need a text stream
  std::vector<int32_t> stop_tokens = {};             // end-of-generation ids: end the answer and are no part of it
  int max_tokens = std::numeric_limits<int>::max();  // answer tokens, resumed ones included
};

// An answer that was begun elsewhere, or earlier.
struct AnswerSoFar {
  std::vector<int32_t> tokens = {};  // accepted answer tokens
  int n_prefix_tokens = 0;           // the first of them, accepted by the tier below, which has their text
  // Bytes of the text after the prefix that the reader has; nullopt: all of it. Text lags behind tokens (half a
  // character, the start of a stop string), so it is counted where tokens alone do not tell.
  std::optional<size_t> given_bytes = {};
};

// What one token brought.
struct AnswerPiece {
  std::optional<int32_t> token;           // a token of the answer; none: an end-of-generation token, or Close
  std::optional<TokenEvidence> evidence;  // of that token, with text_offset, where Push was told it
  // Where that token's text begins in the text that the reader gets of this answer, in bytes. A token that begins where
  // the text has ended when a stop string ended it was cut off with it: its log probability is of no text.
  size_t text_offset = 0;
  std::string text;                  // joined over pieces it is the answer's text, from where the reader has it
  AnswerEnd end = AnswerEnd::kOpen;  // other than kOpen: this was the last piece
};

// One answer; one thread.
class AnswerAssembler {
 public:
  // text: null for tokens only (then stops do nothing).
  AnswerAssembler(std::unique_ptr<TextStream> text, AssemblerOptions options);

  // Takes the answer up after tokens that were accepted already: a character or a stop string that began in them is
  // completed by what follows, and what the reader has is not given again. Before the first Push. The result tells
  // whether they are a whole answer; then Close(it) gives what its reader lacks.
  AnswerEnd Resume(const AnswerSoFar& so_far);

  // The next token. REQUIRES: the answer is open.
  AnswerPiece Push(int32_t token, std::optional<TokenEvidence> evidence = {});
  // Ends an answer that is open for the given reason: the text that was held back.
  AnswerPiece Close(AnswerEnd end);

  AnswerEnd end() const { return end_; }
  int n_tokens() const { return n_tokens_; }  // of the answer, resumed ones included

 private:
  bool IsEndToken(int32_t token) const;
  std::string TextOf(int32_t token);
  void Give(std::string text, AnswerPiece& piece);  // less what the reader has already
  void End(AnswerEnd end, AnswerPiece& piece);

  const std::unique_ptr<TextStream> text_;
  const AssemblerOptions options_;
  StopMatcher stops_;
  AnswerEnd end_ = AnswerEnd::kOpen;
  int n_tokens_ = 0;
  size_t stream_bytes_ = 0;  // that the text stream has given, stop strings not looked for
  size_t prefix_bytes_ = 0;  // of them, in the hands of who has the prefix
  std::string pending_;      // text of resumed tokens, on its way into the first piece
  size_t skip_bytes_ = 0;    // of the text from here on: the reader has it
};

}  // namespace updraft
