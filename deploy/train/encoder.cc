#include "deploy/train/encoder.h"

#include <nlohmann/json.hpp>
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

namespace {

void CountWords(std::string_view text, PieceCounts* counts) {
  for (std::string_view piece : Pieces(text)) ++(*counts)[std::string(piece)];
}

size_t CharacterBytes(char lead) {
  const auto byte = static_cast<uint8_t>(lead);
  return byte < 0xC0 ? 1 : byte < 0xE0 ? 2 : byte < 0xF0 ? 3 : 4;
}

// Where spaces divide words, a name is a word like others. Where they do not, each character counts alone: merges must
// not reach across the border of a name, or inside it, lest it come apart differently in request and answer.
void CountName(std::string_view name, PieceCounts* counts) {
  for (std::string_view piece : Pieces(name)) {
    if (static_cast<uint8_t>(piece.back()) < 0x80) {
      ++(*counts)[std::string(piece)];
      continue;
    }
    for (size_t at = 0; at < piece.size(); at += CharacterBytes(piece[at])) {
      ++(*counts)[std::string(piece.substr(at, CharacterBytes(piece[at])))];
    }
  }
}

// text with every occurrence of the names counted on its own.
void CountAround(std::string_view text, const std::vector<std::string>& names, PieceCounts* counts) {
  size_t at = std::string_view::npos;
  const std::string* found = nullptr;
  for (const std::string& name : names) {
    const size_t here = text.find(name);
    if (here < at) at = here, found = &name;
  }
  if (found == nullptr) return CountWords(text, counts);
  CountWords(text.substr(0, at), counts);
  CountName(*found, counts);
  CountAround(text.substr(at + found->size()), names, counts);
}

// What an answer copies from the request: contacts, places, titles.
void AppendNames(const std::string& answer, std::vector<std::string>* names) {
  const nlohmann::json parsed = nlohmann::json::parse(answer, nullptr, /*allow_exceptions=*/false);
  if (!parsed.is_object() || !parsed.contains("call")) return;
  for (const auto& [key, value] : parsed["call"].items()) {
    if (key != "name" && key != "avoid" && value.is_string()) names->push_back(value.get<std::string>());
  }
}

std::vector<std::string> NamesIn(const cockpit::Example& example) {
  // Digits in Chinese words are turned into digits one by one, so they stay apart, too.
  std::vector<std::string> names = {"零", "一", "二", "两", "三", "四", "五", "六",
                                    "七", "八", "九", "十", "百", "半", "点"};
  for (const cockpit::ChatTurn& turn : example.turns) {
    if (turn.role == "assistant") AppendNames(turn.content, &names);
  }
  AppendNames(example.answer, &names);
  return names;
}

}  // namespace

PieceCounts CountPieces(uint64_t seed, int examples, std::span<const cockpit::Example> written) {
  PieceCounts counts;
  const auto count = [&counts](const cockpit::Example& example) {
    const std::vector<std::string> names = NamesIn(example);
    for (const cockpit::ChatTurn& turn : example.turns) CountAround(turn.content, names, &counts);
    CountAround(example.answer, names, &counts);
  };
  cockpit::Generator generator(seed, cockpit::Split::kTrain);
  for (int i = 0; i < examples; ++i) count(generator.Next());
  for (const cockpit::Example& line : written) count(line);
  return counts;
}

}  // namespace updraft::train
