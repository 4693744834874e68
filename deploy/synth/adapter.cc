#include "deploy/synth/adapter.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/str_format.h"
#include "common/gguf/writer.h"
#include "common/model/config.h"
#include "deploy/synth/random.h"
#include "kernels/formats/codec.h"

namespace updraft {
namespace {

using kernels::DType;

// One half of a pair, rows of `width` normal numbers.
struct Half {
  std::string name;
  int64_t width = 0;
  int64_t n_rows = 0;
  double deviation = 0.0;
};

double RmsOf(const gguf::TensorInfo& tensor) {
  const size_t row_bytes = kernels::RowBytes(tensor.type, tensor.dims[0]);
  const int64_t n_rows = std::min<int64_t>(tensor.rows(), 64);  // say as much as all
  std::vector<float> row(tensor.dims[0]);
  double squares = 0.0;
  for (int64_t i = 0; i < n_rows; ++i) {
    kernels::DequantizeRow(tensor.type, tensor.data.data() + i * row_bytes, row.data(), tensor.dims[0]);
    for (const float x : row) squares += double{x} * x;
  }
  return std::sqrt(squares / static_cast<double>(n_rows * tensor.dims[0]));
}

// A of deviation 1, so that an element of B A has `rank` times B's variance.
void AddPair(const gguf::TensorInfo& matrix, const std::string& name, const SynthAdapterOptions& options,
             std::vector<Half>& halves) {
  const int64_t rank = options.rank;
  const int64_t n_in = matrix.dims[0], n_out = matrix.dims[1];
  const double b = options.strength * RmsOf(matrix) * std::sqrt(static_cast<double>(rank)) / std::fabs(options.alpha);
  if (name == "token_embd.weight") {
    halves.push_back({name + ".lora_a", rank, n_out, 1.0});
    halves.push_back({name + ".lora_b", rank, n_in, b});
  } else {
    halves.push_back({name + ".lora_a", n_in, rank, 1.0});
    halves.push_back({name + ".lora_b", rank, n_out, b});
  }
}

std::vector<Half> HalvesOf(const gguf::File& base, const SynthAdapterOptions& options) {
  std::vector<Half> halves;
  const gguf::TensorInfo& embedding = *base.FindTensor("token_embd.weight");
  if (options.embedding) AddPair(embedding, embedding.name, options, halves);
  if (options.output) {
    const gguf::TensorInfo* output = base.FindTensor("output.weight");
    AddPair(output != nullptr ? *output : embedding, "output.weight", options, halves);
  }
  for (const gguf::TensorInfo& tensor : base.tensors()) {
    if (tensor.n_dims == 2 && absl::StartsWith(tensor.name, "blk.")) AddPair(tensor, tensor.name, options, halves);
  }
  return halves;
}

absl::Status Append(gguf::Writer& writer, const Half& half, DType type, Random& random) {
  const size_t row_bytes = kernels::RowBytes(type, half.width);
  std::vector<float> values(half.width);
  std::vector<std::byte> bytes(half.n_rows * row_bytes);
  for (int64_t row = 0; row < half.n_rows; ++row) {
    for (float& value : values) value = static_cast<float>(half.deviation * random.Normal());
    kernels::QuantizeRow(type, values.data(), bytes.data() + row * row_bytes, half.width);
  }
  return writer.AppendTensorData(half.name, bytes);
}

}  // namespace

absl::Status SynthesizeAdapter(const std::string& base_path, const std::string& path,
                               const SynthAdapterOptions& options) {
  if (options.rank < 1 || options.rank > 4096 || options.alpha == 0.0) {
    return absl::InvalidArgumentError(
        absl::StrFormat("adapter: expected a rank from 1 to 4096 and an alpha other than 0, found %d and %g",
                        options.rank, options.alpha));
  }
  const auto base = gguf::File::Open(base_path);
  if (!base.ok()) return base.status();
  const auto config = ModelConfig::FromGguf(*base);
  if (!config.ok()) return config.status();
  if (base->FindTensor("token_embd.weight") == nullptr) {
    return absl::InvalidArgumentError(
        absl::StrFormat("model '%s': tensor 'token_embd.weight': expected it, found none", base_path));
  }
  auto writer = gguf::Writer::Create(path);
  if (!writer.ok()) return writer.status();
  writer->SetString("general.type", "adapter");
  writer->SetString("general.architecture", ArchitectureName(config->architecture));
  writer->SetString("general.name", "random adapter");
  writer->SetString("adapter.type", "lora");
  writer->SetF32("adapter.lora.alpha", static_cast<float>(options.alpha));
  const std::vector<Half> halves = HalvesOf(*base, options);
  for (const Half& half : halves) writer->AddTensor(half.name, options.type, {half.width, half.n_rows});
  Random random(options.seed);
  for (const Half& half : halves) {
    if (absl::Status status = Append(*writer, half, options.type, random); !status.ok()) return status;
  }
  return writer->Finish();
}

}  // namespace updraft
