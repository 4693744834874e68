#include "deploy/train/encoder.h"

#include <utility>

#include "common/text/pretokenize.h"
#include "deploy/train/cockpit/generator.h"

namespace updraft::train {
namespace {

constexpr size_t kCachedPieces = 200000;

std::vector<std::string_view> Pieces(std::string_view text) {
  std::vector<std::string_view> pieces;
  text::PreTokenize(text::PreTokenizer::kQwen2, text, &pieces);
  return pieces;
}

}  // namespace

const char* const kChatTemplate =
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + "
    "'\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

absl::StatusOr<Encoder> Encoder::Create(BpeVocabulary vocabulary) {
  std::vector<text::BpeMerge> merges;
  for (size_t i = 0; i < vocabulary.merges.size(); ++i) {
    merges.push_back({vocabulary.merges[i].first, vocabulary.merges[i].second, static_cast<int32_t>(256 + i)});
  }
  absl::StatusOr<text::BpeMerger> merger = text::BpeMerger::Create(merges);
  if (!merger.ok()) return merger.status();
  Encoder encoder;
  encoder.vocabulary_ = std::move(vocabulary);
  encoder.merger_ = *std::move(merger);
  return encoder;
}

void Encoder::AppendText(std::string_view text, std::vector<int32_t>* tokens) {
  for (std::string_view piece : Pieces(text)) {
    auto it = cache_.find(std::string(piece));
    if (it == cache_.end()) {
      std::vector<int32_t> symbols;
      for (char c : piece) symbols.push_back(static_cast<uint8_t>(c));
      merger_.Apply(&symbols);
      if (cache_.size() >= kCachedPieces) cache_.clear();
      it = cache_.emplace(std::string(piece), std::move(symbols)).first;
    }
    tokens->insert(tokens->end(), it->second.begin(), it->second.end());
  }
}

Sequence Encoder::EncodeExample(const cockpit::Example& example) {
  Sequence sequence;
  sequence.family = example.family;
  std::vector<int32_t>& tokens = sequence.tokens;
  for (const cockpit::ChatTurn& turn : example.turns) {
    tokens.push_back(vocabulary_.im_start);
    AppendText(turn.role + "\n" + turn.content, &tokens);
    tokens.push_back(vocabulary_.im_end);
    AppendText("\n", &tokens);
  }
  tokens.push_back(vocabulary_.im_start);
  AppendText("assistant\n", &tokens);
  sequence.answer_begin = sequence.length();
  AppendText(example.answer, &tokens);
  // Everything before the reply counts; a token that straddles the border counts too.
  const size_t border = example.answer.rfind(",\"say\":");
  size_t bytes = 0;
  sequence.settings_end = sequence.answer_begin;
  while (sequence.settings_end < sequence.length() && bytes < border) {
    // Printable form and bytes differ in length only for what is not ASCII: count the latter.
    const std::string& printable = vocabulary_.tokens[tokens[sequence.settings_end++]];
    for (char c : printable) bytes += (static_cast<uint8_t>(c) & 0xC0) != 0x80;
  }
  tokens.push_back(vocabulary_.im_end);
  return sequence;
}

PieceCounts CountPieces(uint64_t seed, int examples) {
  PieceCounts counts;
  cockpit::Generator generator(seed, cockpit::Split::kTrain);
  for (int i = 0; i < examples; ++i) {
    const cockpit::Example example = generator.Next();
    for (const cockpit::ChatTurn& turn : example.turns) {
      for (std::string_view piece : Pieces(turn.content)) ++counts[std::string(piece)];
    }
    for (std::string_view piece : Pieces(example.answer)) ++counts[std::string(piece)];
  }
  return counts;
}

}  // namespace updraft::train
