// Any tokens and stop strings as an answer: its text is UTF-8, holds no stop string, is the same however often the
// answer is taken up again on the way, and what a reader was given only grows.
#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <vector>

#include "common/answer/assembler.h"
#include "common/answer/detokenized_text.h"
#include "common/text/utf8.h"
#include "tests/common/text/small_vocab.h"
#include "tests/fuzz/seeds.h"

namespace {

using namespace updraft;  // a program of its own

void Require(bool holds) {
  if (!holds) std::abort();
}

struct Input {
  std::shared_ptr<const text::Tokenizer> tokenizer;
  AssemblerOptions options;
  bool at_text_start = false;
  std::vector<int32_t> tokens;
};

struct Result {
  std::string text;
  std::vector<int32_t> tokens;
  AnswerEnd end = AnswerEnd::kOpen;
};

std::unique_ptr<AnswerAssembler> Assembler(const Input& input) {
  return std::make_unique<AnswerAssembler>(std::make_unique<DetokenizedText>(input.tokenizer, input.at_text_start),
                                           input.options);
}

// taken_up: after so many tokens the answer goes on in a new assembler; the reader keeps what it has.
Result Assemble(const Input& input, size_t taken_up) {
  Result result;
  std::unique_ptr<AnswerAssembler> assembler = Assembler(input);
  const auto take = [&](const AnswerPiece& piece) {
    result.text += piece.text;
    if (piece.token) result.tokens.push_back(*piece.token);
    result.end = piece.end;
  };
  for (size_t i = 0; i < input.tokens.size() && result.end == AnswerEnd::kOpen; ++i) {
    if (i == taken_up) {
      assembler = Assembler(input);
      const AnswerEnd end = assembler->Resume({.tokens = result.tokens, .given_bytes = result.text.size()});
      if (end != AnswerEnd::kOpen) {
        take(assembler->Close(end));
        break;
      }
    }
    take(assembler->Push(input.tokens[i]));
  }
  if (result.end == AnswerEnd::kOpen) take(assembler->Close(AnswerEnd::kLength));
  Require(result.end != AnswerEnd::kOpen);
  return result;
}

Input Read(const uint8_t* data, size_t size) {
  static const auto tokenizers = std::vector{*text::Tokenizer::FromParts(text::SmallByteLevelParts()),
                                             *text::Tokenizer::FromParts(text::SmallSentencePieceParts())};
  Input input;
  input.tokenizer = tokenizers[data[0] & 1];
  input.at_text_start = (data[0] & 2) != 0;
  input.options.max_tokens = 1 + data[1];
  input.options.stop_tokens = input.tokenizer->EndOfGenerationIds();
  size_t at = 2;
  for (int n = data[0] >> 6; n > 0 && at < size; --n) {
    const size_t length = std::min<size_t>(1 + data[at] % 8, size - at - 1);
    input.options.stops.emplace_back(reinterpret_cast<const char*>(data) + at + 1, length);
    at += 1 + length;
  }
  for (; at + 1 < size; at += 2) {
    input.tokens.push_back((data[at] | data[at + 1] << 8) % (input.tokenizer->vocab_size() + 2) - 1);
  }
  return input;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size < 3 || size > 600) return 0;
  const Input input = Read(data, size);
  const Result whole = Assemble(input, input.tokens.size());
  Require(text::FirstIllFormed(whole.text) == std::string::npos ||
          !input.options.stops.empty());  // a stop string may end within a character, and the text before it with it
  for (const std::string& stop : input.options.stops) {
    Require(stop.empty() || whole.text.find(stop) == std::string::npos);
  }
  Require(whole.tokens.size() <= static_cast<size_t>(input.options.max_tokens));
  for (size_t cut = 0; cut < input.tokens.size(); cut += 1 + cut / 4) {
    const Result again = Assemble(input, cut);
    Require(again.text == whole.text && again.tokens == whole.tokens && again.end == whole.end);
  }
  return 0;
}

extern "C" void UpdraftFuzzSeeds(UpdraftFuzzAddSeed add, void* context) {
  for (const std::string& seed : {std::string("\x40\x20\x01lo\x68\0\x65\0\x6c\0\x6c\0\x6f\0", 15),
                                  std::string("\x82\x08\x02\xE6\x88\x91\0a\xE6\0\x88\0\x91\0\xE6\0\x88\0", 18),
                                  std::string("\x01\x05\x10\0\x20\0\x04\x01\x05\x01\x02\0\x06\x01", 14),
                                  std::string("\xC3\x30\x01"
                                              "ab\x01"
                                              "ba\x02"
                                              "aaa\x61\0\x62\0\x61\0\x61\0\x62\0",
                                              21)}) {
    add(context, reinterpret_cast<const uint8_t*>(seed.data()), seed.size());
  }
}
