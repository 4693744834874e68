#include "common/model/adapter.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_format.h"
#include "common/files/sha256.h"
#include "common/model/tensor_shape.h"
#include "kernels/formats/codec.h"

namespace updraft {
namespace {

constexpr std::string_view kEmbedding = "token_embd.weight";
constexpr std::string_view kOutput = "output.weight";
constexpr std::string_view kBlock = "blk.";
constexpr std::string_view kA = ".lora_a";
constexpr std::string_view kB = ".lora_b";

// What stands in a message; files may hold anything.
std::string Quoted(std::string_view text) { return absl::StrFormat("'%s'", std::string(text.substr(0, 64))); }

// Whether a product or, of the embedding, a look-up reads the matrix.
bool IsAdaptable(std::string_view name) {
  if (name == kEmbedding || name == kOutput) return true;
  if (!name.starts_with(kBlock)) return false;
  name.remove_prefix(std::min(name.find('.', kBlock.size()), name.size()));
  for (const std::string_view matrix : {".attn_q.weight", ".attn_k.weight", ".attn_v.weight", ".attn_output.weight",
                                        ".ffn_gate.weight", ".ffn_up.weight", ".ffn_down.weight"}) {
    if (name == matrix) return true;
  }
  return false;
}

// Of a file that is one: parts have no hash that the whole would have.
absl::StatusOr<std::string> HashOf(const gguf::File& file) {
  if (file.parts().size() == 1) return Sha256Hex(file.parts().front().bytes);
  return absl::UnimplementedError(absl::StrFormat("'%s' comes in %d parts, which have no hash of the whole",
                                                  file.path(), static_cast<int>(file.parts().size())));
}

}  // namespace

bool IsAdapter(const gguf::File& file) {
  const auto type = file.GetString("general.type");
  return type.ok() && *type == "adapter";
}

absl::StatusOr<Adapter> Adapter::Open(const std::string& path, const gguf::File& base, const ModelConfig& config) {
  absl::StatusOr<gguf::File> file = gguf::File::Open(path);
  if (!file.ok()) return file.status();
  return FromFile(*std::move(file), base, config);
}

absl::StatusOr<Adapter> Adapter::FromFile(gguf::File file, const gguf::File& base, const ModelConfig& config) {
  if (file.parts().size() > 1) {
    return absl::InvalidArgumentError(
        absl::StrFormat("adapter '%s': expected one file, found one of %d parts; join them "
                        "(llama-gguf-split --merge)",
                        file.path(), static_cast<int>(file.parts().size())));
  }
  Adapter adapter(std::move(file));
  if (absl::Status status = adapter.ReadMetadata(config); !status.ok()) return status;
  if (absl::Status status = adapter.CollectPairs(); !status.ok()) return status;
  for (const auto& [name, pair] : adapter.pairs_) {
    if (absl::Status status = adapter.CheckPair(name, pair, base, config); !status.ok()) return status;
    adapter.max_rank_ = std::max(adapter.max_rank_, pair.b->dims[0]);
  }
  if (absl::Status status = adapter.CheckBase(base); !status.ok()) return status;
  absl::StatusOr<std::string> hash = HashOf(adapter.file_);
  if (hash.ok()) adapter.sha256_ = *std::move(hash);
  // A build without a hash has no fingerprints either.
  if (!hash.ok() && !absl::IsUnimplemented(hash.status())) return hash.status();
  return adapter;
}

absl::Status Adapter::ReadMetadata(const ModelConfig& config) {
  if (!IsAdapter(file_)) {
    const auto type = file_.GetStringOr("general.type", "model");
    return absl::InvalidArgumentError(absl::StrFormat(
        "adapter '%s': key 'general.type': expected 'adapter', found %s; a whole model is given as --model, and an "
        "adapter is made for it by `updraft train` or llama.cpp's convert_lora_to_gguf.py",
        file_.path(), type.ok() ? Quoted(*type) : "another type than a string"));
  }
  const auto kind = file_.GetString("adapter.type");
  if (!kind.ok()) return kind.status();
  if (*kind != "lora") {
    return absl::UnimplementedError(
        absl::StrFormat("adapter '%s': key 'adapter.type': expected 'lora', found %s", file_.path(), Quoted(*kind)));
  }
  const auto architecture = file_.GetString("general.architecture");
  if (!architecture.ok()) return architecture.status();
  if (*architecture != ArchitectureName(config.architecture)) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "adapter '%s': key 'general.architecture': expected '%s' as of the base, found %s; give the model that the "
        "adapter was trained on as --model",
        file_.path(), ArchitectureName(config.architecture), Quoted(*architecture)));
  }
  if (file_.Has("adapter.alora.invocation_tokens")) {
    return absl::UnimplementedError(
        absl::StrFormat("adapter '%s': key 'adapter.alora.invocation_tokens': adapters that begin to work at certain "
                        "tokens are not supported; expected one that holds for the whole text",
                        file_.path()));
  }
  const auto alpha = file_.GetF32Or("adapter.lora.alpha", 0.0f);
  if (!alpha.ok()) return alpha.status();
  if (!std::isfinite(*alpha)) {
    return absl::InvalidArgumentError(
        absl::StrFormat("adapter '%s': key 'adapter.lora.alpha': expected a number, found %g", file_.path(), *alpha));
  }
  alpha_ = *alpha;
  return absl::OkStatus();
}

absl::Status Adapter::CheckBase(const gguf::File& base) const {
  const auto stated = file_.GetStringOr("updraft.adapter.base_sha256", "");
  if (!stated.ok()) return stated.status();
  if (stated->empty()) return absl::OkStatus();
  const auto found = HashOf(base);
  if (!found.ok()) {
    return absl::Status(found.status().code(),
                        absl::StrFormat("adapter '%s': key 'updraft.adapter.base_sha256': cannot be held against the "
                                        "base (%s)",
                                        file_.path(), std::string(found.status().message())));
  }
  if (absl::AsciiStrToLower(std::string(*stated)) == *found) return absl::OkStatus();
  return absl::FailedPreconditionError(
      absl::StrFormat("adapter '%s': expected the base that it was trained on, with SHA-256 %s, found '%s' with %s; "
                      "give that base as --model",
                      file_.path(), Quoted(*stated), base.path(), *found));
}

absl::Status Adapter::CollectPairs() {
  for (const gguf::TensorInfo& tensor : file_.tensors()) {
    const std::string_view whole = tensor.name;
    const bool is_a = whole.ends_with(kA);
    if (!is_a && !whole.ends_with(kB)) {
      return absl::UnimplementedError(absl::StrFormat(
          "adapter '%s': tensor '%s' has no use in a lora that this build knows; expected names that end in .lora_a or "
          ".lora_b",
          file_.path(), tensor.name));
    }
    Tensors& pair = pairs_[std::string(whole.substr(0, whole.size() - kA.size()))];
    (is_a ? pair.a : pair.b) = &tensor;
  }
  if (pairs_.empty()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("adapter '%s': expected pairs of tensors, found none", file_.path()));
  }
  return absl::OkStatus();
}

absl::Status Adapter::CheckPair(const std::string& name, const Tensors& pair, const gguf::File& base,
                                const ModelConfig& config) const {
  const auto refuse = [&](std::string_view half, const std::string& expected, const std::string& found) {
    return absl::InvalidArgumentError(absl::StrFormat("adapter '%s': tensor '%s%s': expected %s, found %s",
                                                      file_.path(), name, half, expected, found));
  };
  if (pair.a == nullptr) return refuse(kA, "it beside its other half " + name + std::string(kB), "none");
  if (pair.b == nullptr) return refuse(kB, "it beside its other half " + name + std::string(kA), "none");
  // A head that is the embedding can be adapted all the same: the two go their own ways.
  const bool tied_head = name == kOutput && config.tied_output;
  const gguf::TensorInfo* matrix = base.FindTensor(tied_head ? kEmbedding : std::string_view(name));
  if (matrix == nullptr || !IsAdaptable(name)) {
    return refuse(kA, "a matrix of that name in the base", matrix == nullptr ? "none" : "a tensor of another use");
  }
  const int64_t n_in = matrix->dims[0], n_out = matrix->dims[1];
  const int64_t rank = pair.b->dims[0];
  if (name == kEmbedding) {
    if (!HasShape(*pair.b, rank, n_in)) return refuse(kB, ShapeText(rank, n_in), ShapeText(*pair.b));
    if (!HasShape(*pair.a, rank, n_out)) return refuse(kA, ShapeText(rank, n_out), ShapeText(*pair.a));
    return absl::OkStatus();
  }
  if (!HasShape(*pair.b, rank, n_out)) return refuse(kB, ShapeText(rank, n_out), ShapeText(*pair.b));
  if (!HasShape(*pair.a, n_in, rank)) return refuse(kA, ShapeText(n_in, rank), ShapeText(*pair.a));
  return absl::OkStatus();
}

absl::StatusOr<std::vector<float>> Adapter::Floats(const gguf::TensorInfo& tensor) const {
  std::vector<float> values(tensor.elements());
  const size_t row_bytes = kernels::RowBytes(tensor.type, tensor.dims[0]);
  for (int64_t row = 0; row < tensor.rows(); ++row) {
    float* to = values.data() + row * tensor.dims[0];
    kernels::DequantizeRow(tensor.type, tensor.data.data() + row * row_bytes, to, tensor.dims[0]);
    const float* bad = std::find_if(to, to + tensor.dims[0], [](float x) { return !std::isfinite(x); });
    if (bad != to + tensor.dims[0]) {
      return absl::InvalidArgumentError(
          absl::StrFormat("adapter '%s': tensor '%s': expected finite numbers, found %g in row %d", file_.path(),
                          tensor.name, *bad, row));
    }
  }
  return values;
}

absl::StatusOr<std::optional<LowRankPair>> Adapter::Pair(std::string_view name) const {
  const auto found = pairs_.find(name);
  if (found == pairs_.end()) return std::nullopt;
  LowRankPair pair;
  pair.rank = found->second.b->dims[0];
  auto a = Floats(*found->second.a);
  if (!a.ok()) return a.status();
  auto b = Floats(*found->second.b);
  if (!b.ok()) return b.status();
  pair.a = *std::move(a);
  pair.b = *std::move(b);
  if (alpha_ != 0.0f) {
    const float factor = alpha_ / static_cast<float>(pair.rank);
    for (float& value : pair.b) value *= factor;
  }
  return pair;
}

std::string Adapter::Describe() const {
  return absl::StrFormat("lora of rank %d beside %d matrices", max_rank_, n_pairs());
}

}  // namespace updraft
