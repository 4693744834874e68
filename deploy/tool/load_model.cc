// Loading a model in front of a person.
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <filesystem>

#include "absl/strings/str_join.h"
#include "common/files/file_error.h"
#include "common/text/named_templates.h"
#include "deploy/tool/commands.h"

namespace updraft::tool {
namespace {

// One line on a terminal, rewritten in place and gone in the end. Loading that is over in a moment shows nothing.
class ProgressLine {
 public:
  explicit ProgressLine(const std::string& path) : name_(std::filesystem::path(path).filename().string()) {}
  ~ProgressLine() {
    if (shown_) std::fputs("\r\033[K", stderr);
  }

  void Show(uint64_t done, uint64_t total) {
    if (!is_terminal_ || std::chrono::steady_clock::now() - start_ < kMoment) return;
    shown_ = true;
    std::fprintf(stderr, "\rloading %s: %.0f of %.0f MB\033[K", name_.c_str(), static_cast<double>(done) / 1e6,
                 static_cast<double>(total) / 1e6);
    std::fflush(stderr);
  }

 private:
  static constexpr std::chrono::milliseconds kMoment{500};

  const std::string name_;
  const bool is_terminal_ = isatty(STDERR_FILENO) != 0;
  const std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
  bool shown_ = false;
};

void Warn(const std::vector<std::string>& warnings) {
  for (const std::string& warning : warnings) std::fprintf(stderr, "updraft: warning: %s\n", warning.c_str());
}

}  // namespace

void ShowProgress(const std::string& what, int done, int total) {
  if (isatty(STDERR_FILENO) == 0) return;
  std::fprintf(stderr, "\r%s %d / %d%s", what.c_str(), done, total, done == total ? "\n" : "");
}

void AddAdapterOption(CLI::App* command, std::string* path) {
  command->add_option("--adapter", *path, "LoRA GGUF in llama.cpp's layout, applied beside the model's weights");
}

void AddLoadOptions(CLI::App* command, LoadOptions* options) {
  command->add_option("--threads", options->n_threads, "0: what the process may use")->check(CLI::Range(0, 1024));
  command->add_flag("--pin", options->pin_threads, "Each thread stays on one CPU, neighbours on one NUMA node");
  command->add_option("--packed-cache", options->packed_cache,
                      "Folder where packed weights are kept, so that the next load reads them; default: none");
  AddAdapterOption(command, &options->adapter);
}

void AddChatTemplateOption(CLI::App* command, std::string* choice) {
  command->add_option("--chat-template", *choice,
                      "How a conversation becomes a prompt: a built-in name (" +
                          absl::StrJoin(text::NamedTemplates(), ", ") +
                          ") or a file with a Jinja template; default: the model file's own");
}

absl::StatusOr<std::unique_ptr<Model>> LoadModel(const std::string& path, LoadOptions options) {
  absl::StatusOr<std::unique_ptr<Model>> model;
  {
    ProgressLine line(path);
    options.on_progress = [&line](uint64_t done, uint64_t total) { line.Show(done, total); };
    model = Model::Load(path, options);
  }
  if (!model.ok()) return model;
  Warn((*model)->packed_cache().warnings);
  return model;
}

absl::StatusOr<std::shared_ptr<const text::Tokenizer>> LoadTokenizer(const gguf::File& file) {
  auto tokenizer = text::Tokenizer::FromGguf(file);
  if (!tokenizer.ok()) return AsFileError(tokenizer.status());
  Warn((*tokenizer)->warnings());
  return tokenizer;
}

}  // namespace updraft::tool
