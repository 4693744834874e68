// Two small vocabularies, made in memory, for tests and fuzzing that need no model file.
#ifndef UPDRAFT_TESTS_COMMON_TEXT_SMALL_VOCAB_H_
#define UPDRAFT_TESTS_COMMON_TEXT_SMALL_VOCAB_H_

#include <cstdint>
#include <cstdio>
#include <optional>
#include <string>
#include <utility>

#include "common/text/byte_bpe.h"
#include "common/text/tokenizer.h"

namespace updraft::text {

// Byte-level BPE: the 256 bytes (id = byte), some merges of English and Chinese, ChatML's markers, a user-defined word.
inline TokenizerParts SmallByteLevelParts(const std::string& pre = "qwen2") {
  TokenizerParts parts;
  parts.model = TokenizerModel::kByteLevelBpe;
  parts.pre = pre;
  for (int byte = 0; byte < 256; ++byte) {
    parts.tokens.push_back(PrintableOfBytes(std::string(1, static_cast<char>(byte))));
  }
  const std::pair<std::string, std::string> merges[] = {
      {"h", "e"},       {"l", "l"}, {"he", "ll"}, {"hell", "o"}, {" ", "w"},   {"o", "r"},           {" w", "or"},
      {" wor", "l"},    {"a", "a"}, {"aa", "aa"}, {"t", "h"},    {"th", "e"},  {" ", "the"},         {"i", "m"},
      {"\xE6", "\x88"}, {"1", "2"}, {" ", " "},   {"  ", "  "},  {"\n", "\n"}, {"\xE6\x88", "\x91"}, {"<", "|"},
  };
  for (const auto& [left, right] : merges) {
    parts.tokens.push_back(PrintableOfBytes(left + right));
    parts.merges.push_back(PrintableOfBytes(left) + " " + PrintableOfBytes(right));
  }
  parts.types.assign(parts.tokens.size(), TokenType::kNormal);
  const auto add = [&](const std::string& text, TokenType type) {
    parts.tokens.push_back(text);
    parts.types.push_back(type);
    return static_cast<int32_t>(parts.tokens.size() - 1);
  };
  parts.pad_id = add("<|endoftext|>", TokenType::kControl);
  add("<|im_start|>", TokenType::kControl);
  parts.eos_id = add("<|im_end|>", TokenType::kControl);
  add("<think>", TokenType::kUserDefined);
  add("</think>", TokenType::kUserDefined);
  return parts;
}

// SentencePiece style: <unk>, <s>, </s>, the 256 byte tokens (id = byte + 3), letters and some words.
inline TokenizerParts SmallSentencePieceParts() {
  TokenizerParts parts;
  parts.model = TokenizerModel::kSentencePieceBpe;
  const auto add = [&](const std::string& text, TokenType type, float score) {
    parts.tokens.push_back(text);
    parts.types.push_back(type);
    parts.scores.push_back(score);
    return static_cast<int32_t>(parts.tokens.size() - 1);
  };
  parts.unk_id = add("<unk>", TokenType::kUnknown, 0);
  parts.bos_id = add("<s>", TokenType::kControl, 0);
  parts.eos_id = add("</s>", TokenType::kControl, 0);
  for (int byte = 0; byte < 256; ++byte) {
    char name[8];
    std::snprintf(name, sizeof(name), "<0x%02X>", byte);
    add(name, TokenType::kByte, 0);
  }
  float score = 0;
  for (const char* piece :
       {"\u2581t", "he", "in", "\u2581a", "on", "\u2581the", "ll", "hell", "hello", "\u2581hello", "aa", "aaaa",
        "\u2581\u2581", "\u2581\u2581\u2581\u2581", "</", "</s", "<s", "\u6211\u60F3"}) {
    add(piece, TokenType::kNormal, --score);
  }
  for (const char* piece :
       {"\u2581", "a", "e", "h", "i", "l", "n", "o", "s", "t", "<", ">", "/", "\n", "\u6211", "\u60F3"}) {
    add(piece, TokenType::kNormal, --score);
  }
  parts.add_bos = true;
  parts.add_space_prefix = true;
  return parts;
}

}  // namespace updraft::text

#endif  // UPDRAFT_TESTS_COMMON_TEXT_SMALL_VOCAB_H_
