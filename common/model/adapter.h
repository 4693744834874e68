// A low-rank adapter (LoRA, Hu et al. 2021) beside a base model: a GGUF file in the layout of llama.cpp's
// convert_lora_to_gguf.py and src/llama-adapter.cpp.
//
//   general.type "adapter"; adapter.type "lora"; general.architecture: the base's
//   adapter.lora.alpha  f32; a product adds (alpha / rank) B (A x); B (A x) where it is absent or 0
//   <matrix of the base>.lora_a, .lora_b
//                       A [rank, n_in] and B [n_out, rank], in ggml's order of dimensions [n_in, rank] and [rank,
//                       n_out]
//   token_embd.weight.lora_a, .lora_b
//                       A [n_vocab, rank] is looked up by token, B [d_model, rank]; the head is left alone even where
//                       the base has the embedding for one. output.weight adapts that.
//
// What is ours, and llama.cpp ignores:
//   updraft.adapter.base_sha256  the base's SHA-256 in hexadecimal; any other base is refused. Absent: none is.
//   tokenizer.chat_template      in place of the base's
//   updraft.confidence.*         in place of the base's, which was fitted to other answers
//   updraft.exit.thresholds      in place of the base's
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/gguf/reader.h"
#include "common/model/config.h"

namespace updraft {

// True of files that state general.type "adapter".
bool IsAdapter(const gguf::File& file);

// What is added beside one matrix, y += b (a x), with the factor alpha / rank inside b.
struct LowRankPair {
  int64_t rank = 0;
  std::vector<float> a;  // [rank, n_in]
  std::vector<float> b;  // [n_out, rank]
};

// Immutable once open, so any number of threads may read it.
class Adapter {
 public:
  // Checks that the file is an adapter for this base: general.type, adapter.type, architecture, base_sha256, and that
  // each tensor is half of a pair whose shapes fit each other and a matrix of the base. A tensor without such a place
  // is refused, as leaving it out would change the answers. InvalidArgument and Unimplemented, or FailedPrecondition
  // for another base, say which tensor or key, what was expected and what was found; errors of gguf::File::Open.
  static absl::StatusOr<Adapter> Open(const std::string& path, const gguf::File& base, const ModelConfig& config);
  // The same for an open file.
  static absl::StatusOr<Adapter> FromFile(gguf::File file, const gguf::File& base, const ModelConfig& config);

  const gguf::File& file() const { return file_; }
  const std::string& sha256() const { return sha256_; }  // of the whole file, hexadecimal; empty without OpenSSL
  int n_pairs() const { return static_cast<int>(pairs_.size()); }
  int64_t max_rank() const { return max_rank_; }

  // Beside the base's matrix `name`, such as "blk.0.attn_q.weight"; of token_embd.weight `a` is [n_vocab, rank]. Empty
  // where it has none. InvalidArgument for numbers that are not finite.
  absl::StatusOr<std::optional<LowRankPair>> Pair(std::string_view name) const;

  // "lora of rank 16 beside 210 matrices", for logs.
  std::string Describe() const;

 private:
  struct Tensors {
    const gguf::TensorInfo* a = nullptr;
    const gguf::TensorInfo* b = nullptr;
  };

  explicit Adapter(gguf::File file) : file_(std::move(file)) {}
  absl::Status ReadMetadata(const ModelConfig& config);
  absl::Status CheckBase(const gguf::File& base) const;
  absl::Status CollectPairs();
  absl::Status CheckPair(const std::string& name, const Tensors& pair, const gguf::File& base,
                         const ModelConfig& config) const;
  absl::StatusOr<std::vector<float>> Floats(const gguf::TensorInfo& tensor) const;

  gguf::File file_;
  std::string sha256_;
  float alpha_ = 0.0f;
  std::map<std::string, Tensors, std::less<>> pairs_;  // by the base's matrix
  int64_t max_rank_ = 0;
};

}  // namespace updraft
