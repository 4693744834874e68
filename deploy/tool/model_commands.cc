// generate, tokenize, inspect, synth: one process, no daemon.
#include <cstdio>
#include <iostream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "common/answer/detokenized_text.h"
#include "common/decode/generator.h"
#include "common/files/file_error.h"
#include "common/files/read_file.h"
#include "common/gguf/inspect.h"
#include "common/gguf/reader.h"
#include "common/model/model.h"
#include "common/text/chat_template.h"
#include "common/text/tokenizer.h"
#include "common/tools/call_format.h"
#include "deploy/synth/adapter.h"
#include "deploy/synth/synth.h"
#include "deploy/tool/commands.h"

namespace updraft::tool {
namespace {

using nlohmann::json;

struct GenerateFlags {
  std::string model, prompt, chat_template, exit = "off";
  bool chat = false, as_json = false, ignore_eos = false, parse_special = false;
  int max_tokens = 128;
  LoadOptions load;
  kernels::KvType kv_type = kernels::KvType::kF16;
  SamplingOptions sampling;
};

absl::StatusOr<ExitMode> ParseExitMode(const std::string& name) {
  if (name == "off") return ExitMode::kOff;
  if (name == "lossless") return ExitMode::kLossless;
  if (name == "lossy") return ExitMode::kLossy;
  return absl::InvalidArgumentError(absl::StrCat("--exit: expected off, lossless or lossy, found '", name, "'"));
}

// The prompt's tokens, and those that end an answer to it.
struct EncodedPrompt {
  std::vector<int32_t> tokens, stop_tokens;
  std::vector<std::string> stops;
  bool is_chat = false;
};

absl::StatusOr<EncodedPrompt> EncodePrompt(const GenerateFlags& flags, const Model& model,
                                           const text::Tokenizer& tokenizer) {
  EncodedPrompt prompt;
  absl::StatusOr<std::vector<int32_t>> tokens;
  if (flags.chat || !flags.chat_template.empty()) {
    const auto chat = text::ChatTemplate::Choose(model.FileWith("tokenizer.chat_template"), flags.chat_template);
    if (!chat.ok()) return AsFileError(chat.status());
    const std::vector<text::ChatMessage> messages = {{"user", flags.prompt}};
    tokens = chat->RenderTokens(tokenizer, {.messages = messages});
    prompt.stop_tokens = chat->StopTokenIds(tokenizer);
    prompt.stops = chat->StopStrings(tokenizer);
    prompt.is_chat = true;
  } else {
    tokens = tokenizer.Encode(flags.prompt, {.add_special = true, .parse_special = flags.parse_special});
    prompt.stop_tokens = tokenizer.EndOfGenerationIds();
  }
  if (!tokens.ok()) return tokens.status();
  prompt.tokens = *std::move(tokens);
  if (prompt.tokens.empty()) return absl::InvalidArgumentError("--prompt: is empty; expected text to continue");
  return prompt;
}

struct Written {
  std::string text;
  json tokens = json::array();
  int n_chosen = 0;  // the end of generation included
};

// The answer as a daemon would give it. echo: its text goes to stdout as it comes.
absl::StatusOr<Written> Write(Generator& generator, AnswerAssembler& assembler, bool echo) {
  Written written;
  const auto take = [&](const AnswerPiece& piece) {
    if (piece.token) written.tokens.push_back(*piece.token);
    written.text += piece.text;
    if (echo) std::cout << piece.text << std::flush;
  };
  while (assembler.end() == AnswerEnd::kOpen) {
    auto next = generator.Next();
    if (absl::IsOutOfRange(next.status())) {  // the context is full: a normal end
      take(assembler.Close(AnswerEnd::kLength));
      break;
    }
    if (!next.ok()) return next.status();
    ++written.n_chosen;
    take(assembler.Push(next->token));
  }
  return written;
}

absl::Status Generate(const GenerateFlags& flags) {
  auto exit_mode = ParseExitMode(flags.exit);
  if (!exit_mode.ok()) return exit_mode.status();
  if (absl::Status status = flags.sampling.Validate(); !status.ok()) return status;
  auto model = LoadModel(flags.model, flags.load);
  if (!model.ok()) return model.status();
  auto tokenizer = LoadTokenizer((*model)->file());
  if (!tokenizer.ok()) return tokenizer.status();
  auto prompt = EncodePrompt(flags, **model, **tokenizer);
  if (!prompt.ok()) return prompt.status();
  const ModelConfig& config = (*model)->config();
  KvPoolOptions pool_options;
  const int n_positions =
      std::min<int>(config.context_length, static_cast<int>(prompt->tokens.size()) + flags.max_tokens + 1);
  pool_options.n_blocks = n_positions / pool_options.block_tokens + 2;
  pool_options.type = flags.kv_type;
  auto pool = KvPool::Create((*model)->ops(), config, pool_options);
  if (!pool.ok()) return pool.status();

  GeneratorOptions options;
  options.sampling = flags.sampling;
  options.exit_mode = *exit_mode;
  Generator generator(model->get(), pool->get(), options);
  if (absl::Status status = generator.Prefill(prompt->tokens); !status.ok()) return status;
  AssemblerOptions limits{.max_tokens = flags.max_tokens};
  limits.stops = prompt->stops;
  if (!flags.ignore_eos) limits.stop_tokens = prompt->stop_tokens;
  AnswerAssembler assembler(std::make_unique<DetokenizedText>(*tokenizer, /*at_text_start=*/prompt->is_chat),
                            std::move(limits));
  auto written = Write(generator, assembler, /*echo=*/!flags.as_json);
  if (!written.ok()) return written.status();
  if (!flags.as_json) {
    std::cout << "\n";
    return absl::OkStatus();
  }
  std::cout << json{{"text", written->text},
                    {"tokens", written->tokens},
                    {"prompt_tokens", prompt->tokens.size()},
                    {"mean_exit_layer", static_cast<double>(generator.layers_run()) / std::max(1, written->n_chosen)}}
                   .dump(-1, ' ', false, json::error_handler_t::replace)
            << "\n";
  return absl::OkStatus();
}

void AddGenerate(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<GenerateFlags>();
  CLI::App* command = app.add_subcommand("generate", "Generate with one model in this process");
  command->add_option("--model", flags->model, "GGUF file")->required();
  command->add_option("--prompt", flags->prompt, "Prompt text")->required();
  command->add_flag("--chat", flags->chat, "Render the prompt as a user message with the chat template");
  AddChatTemplateOption(command, &flags->chat_template);
  command->add_flag("--parse-special", flags->parse_special,
                    "Read special tokens such as <|im_start|> in the prompt; not with --chat");
  command->add_option("--max-tokens", flags->max_tokens, "Tokens to generate")->check(CLI::Range(1, 1 << 20));
  command->add_option("--temperature", flags->sampling.temperature, "0: greedy");
  command->add_option("--top-k", flags->sampling.top_k, "0: all");
  command->add_option("--top-p", flags->sampling.top_p, "Nucleus, in (0, 1]");
  command->add_option("--seed", flags->sampling.seed, "Sampling seed");
  command->add_option("--exit", flags->exit, "Early exits: off, lossless or lossy");
  AddKvTypeOption(command, &flags->kv_type);
  AddLoadOptions(command, &flags->load);
  command->add_flag("--ignore-eos", flags->ignore_eos, "Go on after an end-of-generation token");
  command->add_flag("--json", flags->as_json, "One JSON object on stdout");
  command->callback([flags, exit_code] {
    if (absl::Status status = Generate(*flags); !status.ok()) *exit_code = Fail(status);
  });
}

struct TokenizeFlags {
  std::string model, text, file, decode;
  bool special = false, parse_special = false, as_json = false;
  CLI::Option* text_option = nullptr;
  CLI::Option* decode_option = nullptr;
};

absl::Status Decode(const TokenizeFlags& flags, const text::Tokenizer& tokenizer) {
  std::vector<int32_t> ids;
  for (absl::string_view part : absl::StrSplit(flags.decode, ',')) {
    int32_t id = 0;
    if (!absl::SimpleAtoi(part, &id) || id < 0 || id >= tokenizer.vocab_size()) {
      return absl::InvalidArgumentError(absl::StrCat("--decode: expected ids in [0, ", tokenizer.vocab_size(),
                                                     ") separated by commas, found '", part, "'"));
    }
    ids.push_back(id);
  }
  const std::string text = tokenizer.Decode(ids, /*render_special=*/flags.special);
  if (flags.as_json) {
    std::cout << json{{"text", text}}.dump(-1, ' ', false, json::error_handler_t::replace) << "\n";
  } else {
    std::cout << text << "\n";
  }
  return absl::OkStatus();
}

absl::Status Tokenize(const TokenizeFlags& flags) {
  auto file = gguf::File::Open(flags.model);
  if (!file.ok()) return file.status();
  auto tokenizer = LoadTokenizer(*file);
  if (!tokenizer.ok()) return tokenizer.status();
  if (flags.decode_option->count() > 0) return Decode(flags, **tokenizer);
  std::string text = flags.text;
  if (!flags.file.empty()) {
    auto bytes = ReadFile(flags.file);
    if (!bytes.ok()) return WithFlag("--file", bytes.status());
    text = *std::move(bytes);
  } else if (flags.text_option->count() == 0) {
    return absl::InvalidArgumentError("tokenize: give one of --text, --file or --decode");
  }
  auto ids = (*tokenizer)->Encode(text, {.add_special = flags.special, .parse_special = flags.parse_special});
  if (!ids.ok()) return ids.status();
  if (flags.as_json) {
    std::cout << json{{"ids", *ids}}.dump() << "\n";
  } else {
    for (size_t i = 0; i < ids->size(); ++i) std::cout << (i ? "," : "") << (*ids)[i];
    std::cout << "\n";
  }
  return absl::OkStatus();
}

void AddTokenize(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<TokenizeFlags>();
  CLI::App* command = app.add_subcommand("tokenize", "Text to token ids, or back with --decode");
  command->add_option("--model", flags->model, "GGUF file with a tokenizer")->required();
  flags->text_option = command->add_option("--text", flags->text, "Text to encode");
  CLI::Option* file_option = command->add_option("--file", flags->file, "File to encode")->excludes(flags->text_option);
  flags->decode_option = command->add_option("--decode", flags->decode, "Ids to decode: 1,2,3")
                             ->excludes(flags->text_option)
                             ->excludes(file_option);
  command->add_flag("--special", flags->special, "Add BOS/EOS as the file says; when decoding, show special tokens");
  command->add_flag("--parse-special", flags->parse_special, "Read special tokens such as <|im_start|> in the text");
  command->add_flag("--json", flags->as_json, "One JSON object on stdout");
  command->callback([flags, exit_code] {
    if (absl::Status status = Tokenize(*flags); !status.ok()) *exit_code = Fail(status);
  });
}

// What whoever serves the file would be told, or why nobody can.
std::vector<std::string> WarningsOf(const gguf::File& file) {
  std::vector<std::string> warnings;
  if (!IsAdapter(file)) {
    const auto config = ModelConfig::FromGguf(file);
    if (!config.ok()) warnings.push_back(absl::StrCat("cannot be run: ", std::string(config.status().message())));
  }
  if (!file.Has("tokenizer.ggml.model")) return warnings;
  const auto tokenizer = text::Tokenizer::FromGguf(file);
  const auto more = tokenizer.ok() ? (*tokenizer)->warnings() : std::vector{std::string(tokenizer.status().message())};
  warnings.insert(warnings.end(), more.begin(), more.end());
  return warnings;
}

// What `inspect` says of the chat template: which one was chosen and why, and what it was found to do.
json DescribeChat(const gguf::File& file, const std::string& choice) {
  const auto chat = text::ChatTemplate::Choose(file, choice);
  if (!chat.ok()) return {{"problem", std::string(chat.status().message())}};
  json described{{"name", chat->name()},
                 {"why", chat->why()},
                 {"bytes", chat->source().size()},
                 {"tools", chat->renders_tools()},
                 {"can_skip_thought", chat->can_skip_thought()}};
  const auto calls = tools::CallFormatOf(*chat);
  if (chat->renders_tools()) described["calls"] = calls ? json(calls->name) : json(nullptr);
  const auto tokenizer = text::Tokenizer::FromGguf(file);
  if (tokenizer.ok()) described["stops"] = chat->StopStrings(**tokenizer);
  return described;
}

std::string ToolsLine(const json& chat) {
  if (!chat["tools"]) return "no";
  if (chat["calls"].is_null()) return "yes, calls in a form that is not known here";
  return absl::StrCat("yes, calls as of ", chat["calls"].get<std::string>());
}

std::string ChatLine(const json& chat) {
  if (chat.contains("problem")) return "chat template: none. " + chat["problem"].get<std::string>();
  std::string line =
      absl::StrCat("chat template: ", chat["name"].get<std::string>(), " (", chat["why"].get<std::string>(), "), ",
                   chat["bytes"].get<size_t>(), " bytes; tools: ", ToolsLine(chat),
                   "; thoughts can be switched off: ", chat["can_skip_thought"] ? "yes" : "no");
  if (chat.contains("stops")) line += "; answers end at " + chat["stops"].dump();
  return line;
}

void AddInspect(CLI::App& app, int* exit_code) {
  struct Flags {
    std::string model, chat_template;
    bool as_json = false;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* command = app.add_subcommand("inspect", "Facts, tensors, types and bits per weight of a model file");
  command->add_option("model", flags->model, "GGUF file")->required();
  AddChatTemplateOption(command, &flags->chat_template);
  command->add_flag("--json", flags->as_json, "One JSON object on stdout");
  command->callback([flags, exit_code] {
    auto file = gguf::File::Open(flags->model);
    if (!file.ok()) {
      *exit_code = Fail(file.status());
      return;
    }
    auto inspection = gguf::Inspect(*file);
    if (!inspection.ok()) {
      *exit_code = Fail(AsFileError(inspection.status()));
      return;
    }
    inspection->warnings = WarningsOf(*file);
    const json chat = DescribeChat(*file, flags->chat_template);
    if (flags->as_json) {
      auto whole = nlohmann::ordered_json::parse(gguf::ToJson(*inspection));
      whole["chat_template"] = chat;
      std::cout << whole.dump(-1, ' ', false, nlohmann::ordered_json::error_handler_t::replace) << "\n";
    } else {
      std::cout << gguf::ToText(*inspection) << "\n" << ChatLine(chat) << "\n";
    }
  });
}

void AddSynth(CLI::App& app, int* exit_code) {
  struct Flags {
    std::string shape, adapter_for, type = "q4_0", ffn_type, gate_type, out;
    int rank = 16;
    double ffn_active = 0.0;
    int ffn_group = 64;
    SynthOptions options;
  };
  auto flags = std::make_shared<Flags>();
  CLI::App* command =
      app.add_subcommand("synth", "Write a model file of a real shape with random weights, for speed work");
  CLI::Option* shape = command->add_option("--shape", flags->shape, "tinyllama-1.1b, qwen2.5-0.5b, ...");
  CLI::Option* adapter_for = command->add_option("--adapter-for", flags->adapter_for,
                                                 "Instead of a model, a random LoRA beside this one, in f16");
  command->add_option("--rank", flags->rank, "Of the LoRA")->check(CLI::Range(1, 4096))->needs(adapter_for);
  adapter_for->excludes(shape);
  command->add_option("--type", flags->type, "Tensor type: q4_0, q8_0, f16, ...");
  command->add_option("--ffn-type", flags->ffn_type, "Type of the feed-forward matrices; default: --type");
  command->add_option("--gate-type", flags->gate_type, "Type of the gate among them; default: --ffn-type");
  command->add_option("--ffn-active", flags->ffn_active,
                      "Contextual sparsity: share of neuron groups that a token needs, 0.01 to 0.4; 0: all");
  command->add_option("--ffn-group", flags->ffn_group, "Neurons of a group, with --ffn-active");
  command->add_flag("--mixed", flags->options.mixed, "Six bits for attn_v and ffn_down in half of the layers");
  command->add_option("--seed", flags->options.seed, "Of the weights");
  command->add_option("--out", flags->out, "GGUF file to write")->required();
  command->callback([flags, exit_code] {
    if (flags->shape.empty() == flags->adapter_for.empty()) {
      *exit_code = Fail(absl::InvalidArgumentError("synth: give one of --shape and --adapter-for"));
      return;
    }
    if (!flags->adapter_for.empty()) {
      const absl::Status status = SynthesizeAdapter(flags->adapter_for, flags->out, {.rank = flags->rank});
      if (!status.ok()) *exit_code = Fail(status);
      return;
    }
    const auto parse = [exit_code](const char* flag, const std::string& name) {
      const auto type = kernels::ParseDType(name);
      if (!type) {
        *exit_code = Fail(absl::InvalidArgumentError(
            absl::StrCat(flag, ": expected a tensor type such as q4_0, q8_0 or f16, found '", name, "'")));
      }
      return type;
    };
    const auto type = parse("--type", flags->type);
    if (!type) return;
    if (!flags->ffn_type.empty()) {
      flags->options.ffn_type = parse("--ffn-type", flags->ffn_type);
      if (!flags->options.ffn_type) return;
    }
    if (!flags->gate_type.empty()) {
      flags->options.gate_type = parse("--gate-type", flags->gate_type);
      if (!flags->options.gate_type) return;
    }
    auto shape = FindShape(flags->shape);
    if (!shape.ok()) {
      *exit_code = Fail(WithFlag("--shape:", absl::InvalidArgumentError(shape.status().message())));
      return;
    }
    shape->ffn_active = flags->ffn_active;
    shape->ffn_group = flags->ffn_group;
    if (absl::Status status = Synthesize(*shape, *type, flags->out, flags->options); !status.ok())
      *exit_code = Fail(status);
  });
}

}  // namespace

void AddModelCommands(CLI::App& app, int* exit_code) {
  AddGenerate(app, exit_code);
  AddTokenize(app, exit_code);
  AddInspect(app, exit_code);
  AddSynth(app, exit_code);
}

}  // namespace updraft::tool
