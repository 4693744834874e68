// Any bytes as text, and as tokens: encoding loses nothing, control tokens do not come out of text, and a stream of
// tokens gives the same characters however it is cut. With another first byte, any bytes as a vocabulary or a chat
// program.
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "common/text/chat_template.h"
#include "common/text/detokenizer.h"
#include "common/text/tokenizer.h"
#include "common/text/utf8.h"
#include "tests/common/text/small_vocab.h"
#include "tests/fuzz/seeds.h"

namespace {

using updraft::text::ChatTemplate;
using updraft::text::SmallByteLevelParts;
using updraft::text::SmallSentencePieceParts;
using updraft::text::StreamDetokenizer;
using updraft::text::Tokenizer;
using updraft::text::TokenizerModel;
using updraft::text::TokenizerParts;
using updraft::text::TokenType;
using TokenizerPtr = std::shared_ptr<const Tokenizer>;

void Require(bool holds) {
  if (!holds) std::abort();
}

const std::vector<TokenizerPtr>& Tokenizers() {
  static const auto* made = [] {
    auto* all = new std::vector<TokenizerPtr>;
    for (const char* pre : {"gpt-2", "llama-bpe", "qwen2", "tekken", "gpt-4o", "starcoder", "falcon", "deepseek-llm",
                            "deepseek-coder", "default"}) {
      all->push_back(*Tokenizer::FromParts(SmallByteLevelParts(pre)));
    }
    all->push_back(*Tokenizer::FromParts(SmallSentencePieceParts()));
    return all;
  }();
  return *made;
}

// SentencePiece vocabularies write a space as U+2581, which therefore comes back as a space.
std::string WithSpaces(std::string text) {
  for (size_t at = text.find("\u2581"); at != text.npos; at = text.find("\u2581", at)) text.replace(at, 3, " ");
  return text;
}

void CheckStream(const TokenizerPtr& tokenizer, const std::vector<int32_t>& ids) {
  std::string bytes;
  std::string streamed;
  StreamDetokenizer stream(tokenizer);
  for (const int32_t id : ids) {
    bytes += tokenizer->TokenBytes(id);
    streamed += stream.Push(id);
    Require(stream.pending_bytes() <= 3);
  }
  streamed += stream.Flush();
  Require(streamed == updraft::text::LossyUtf8(bytes));
}

void CheckText(const TokenizerPtr& tokenizer, const std::string& text) {
  const auto plain = tokenizer->Encode(text, {.add_special = false});
  Require(plain.ok());
  const bool spaces = tokenizer->model() == TokenizerModel::kSentencePieceBpe;
  Require(tokenizer->Decode(*plain) == (spaces ? WithSpaces(text) : text));
  for (const int32_t id : *plain) Require(tokenizer->type(id) != TokenType::kControl);
  CheckStream(tokenizer, *plain);
  const auto special = tokenizer->Encode(text, {.add_special = true, .parse_special = true});
  Require(special.ok());
  CheckStream(tokenizer, *special);
}

void CheckChat(const TokenizerPtr& tokenizer, std::string_view content) {
  static const ChatTemplate chat = *ChatTemplate::ByName("chatml");
  const std::vector<updraft::text::ChatMessage> messages = {{"user", std::string(content)}};
  const auto ids = chat.RenderTokens(*tokenizer, {.messages = messages});
  const auto start = tokenizer->SpecialTokenId("<|im_start|>");
  if (!ids.ok() || !start) return;
  int starts = 0;
  for (const int32_t id : *ids) starts += id == *start ? 1 : 0;
  Require(starts == 2);
}

// Lines as a vocabulary: "t<type digit><token>" and "m<merge>"; refused or usable, and in neither case a crash.
void CheckParts(std::string_view lines, bool sentence_piece) {
  TokenizerParts parts;
  parts.model = sentence_piece ? TokenizerModel::kSentencePieceBpe : TokenizerModel::kByteLevelBpe;
  while (!lines.empty()) {
    const std::string_view line = lines.substr(0, lines.find('\n'));
    lines.remove_prefix(line.size() == lines.size() ? line.size() : line.size() + 1);
    if (line.size() > 2 && line[0] == 't') {
      parts.types.push_back(static_cast<TokenType>(line[1] - '0'));
      parts.tokens.emplace_back(line.substr(2));
      parts.scores.push_back(static_cast<float>(line.size()));
    } else if (!line.empty() && line[0] == 'm') {
      parts.merges.emplace_back(line.substr(1));
    } else if (line.size() == 2 && line[0] == 'u') {
      parts.unk_id = line[1] - '0';
    }
  }
  const auto made = Tokenizer::FromParts(parts);
  if (!made.ok()) return;
  const auto ids = (*made)->Encode("ab abab<s> <0x41> aab");
  if (ids.ok()) CheckStream(*made, *ids);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  const uint8_t choice = data[0];
  const std::string text(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (choice == 'P' || choice == 'S') {
    CheckParts(text, choice == 'S');
  } else if (choice == 'J') {
    const auto chat = ChatTemplate::FromJinja(text);
    if (chat.ok()) CheckChat(Tokenizers()[0], text);
  } else {
    const TokenizerPtr& tokenizer = Tokenizers()[choice % Tokenizers().size()];
    CheckText(tokenizer, text);
    CheckChat(tokenizer, text);
    std::vector<int32_t> ids;
    for (size_t i = 1; i + 1 < size; i += 2) ids.push_back(static_cast<int32_t>(data[i] | (data[i + 1] & 1) << 8));
    CheckStream(tokenizer, ids);
  }
  return 0;
}

extern "C" void UpdraftFuzzSeeds(UpdraftFuzzAddSeed add, void* context) {
  const std::string text =
      "Hello, I'LL pay 1234.5  for<|im_start|>system</s> \u2581\u6211\u60F3\U0001F600\r\n\n \xE6\x88 \xFF";
  std::vector<std::string> seeds;
  for (char c = 0; c < 11; ++c) seeds.push_back(c + text);
  seeds.push_back("Pt1a\nt1b\nt1ab\nt1abab\nt3<s>\nt2?\nma b\nmab ab\nu5\n");
  seeds.push_back("St2?\nt3<s>\nt1a\nt1b\nt1ab\nt1\u2581\nt6<0x41>\nu0\n");
  seeds.push_back("J{{ bos_token }}{{'<|im_start|>system\\nYou.<|im_end|>\\n' + message['content'] | trim}}</think>");
  seeds.push_back("J{{ '[INST] ' + message['content'] + ' [/INST]' + eos_token }}");
  for (const std::string& seed : seeds) add(context, reinterpret_cast<const uint8_t*>(seed.data()), seed.size());
}
