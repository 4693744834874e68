#include "deploy/train/gguf_model.h"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <unordered_map>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "common/gguf/reader.h"
#include "common/gguf/writer.h"
#include "deploy/train/encoder.h"
#include "kernels/formats/codec.h"

namespace updraft::train {
namespace {

constexpr int32_t kNormalToken = 1, kControlToken = 3;  // tokenizer.ggml.token_type

kernels::DType FileType(WeightType type) {
  switch (type) {
    case WeightType::kF32:
      return kernels::DType::kF32;
    case WeightType::kF16:
      return kernels::DType::kF16;
    case WeightType::kQ8_0:
      return kernels::DType::kQ8_0;
    case WeightType::kQ4_0:
      return kernels::DType::kQ4_0;
  }
  return kernels::DType::kF32;
}

// general.file_type, as ggml numbers what most tensors are.
uint32_t FileTypeNumber(WeightType type) {
  switch (type) {
    case WeightType::kF32:
      return 0;
    case WeightType::kF16:
      return 1;
    case WeightType::kQ4_0:
      return 2;
    case WeightType::kQ8_0:
      return 7;
  }
  return 0;
}

WeightType TypeOf(const std::string& name, const torch::Tensor& tensor, const Recipe& recipe) {
  if (tensor.dim() == 1) return WeightType::kF32;
  return name == "token_embd.weight" ? recipe.file_embedding : recipe.file_matrices;
}

void SetTokenizer(const BpeVocabulary& vocabulary, gguf::Writer* writer) {
  std::vector<int32_t> types;
  for (size_t i = 0; i < vocabulary.tokens.size(); ++i) {
    types.push_back(vocabulary.IsControl(static_cast<int32_t>(i)) ? kControlToken : kNormalToken);
  }
  std::vector<std::string> merges;
  for (const auto& [left, right] : vocabulary.merges) {
    merges.push_back(absl::StrCat(vocabulary.tokens[left], " ", vocabulary.tokens[right]));
  }
  writer->SetString("tokenizer.ggml.model", "gpt2");
  writer->SetString("tokenizer.ggml.pre", "qwen2");
  writer->SetStrings("tokenizer.ggml.tokens", std::span<const std::string>(vocabulary.tokens));
  writer->SetI32s("tokenizer.ggml.token_type", types);
  writer->SetStrings("tokenizer.ggml.merges", std::span<const std::string>(merges));
  writer->SetU32("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(vocabulary.end_of_text));
  writer->SetU32("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(vocabulary.im_end));
  writer->SetU32("tokenizer.ggml.padding_token_id", static_cast<uint32_t>(vocabulary.end_of_text));
  writer->SetBool("tokenizer.ggml.add_bos_token", false);
  writer->SetString("tokenizer.chat_template", kChatTemplate);
}

void SetShape(const Recipe& recipe, int32_t vocabulary, gguf::Writer* writer) {
  const ModelShape& shape = recipe.model;
  writer->SetString("general.architecture", "llama");
  writer->SetString("general.name", recipe.name);
  writer->SetU32("general.file_type", FileTypeNumber(recipe.file_matrices));
  writer->SetU32("general.quantization_version", 2);
  writer->SetU32("llama.block_count", static_cast<uint32_t>(shape.layers));
  writer->SetU32("llama.context_length", static_cast<uint32_t>(shape.context));
  writer->SetU32("llama.embedding_length", static_cast<uint32_t>(shape.width));
  writer->SetU32("llama.feed_forward_length", static_cast<uint32_t>(shape.feed_forward));
  writer->SetU32("llama.attention.head_count", static_cast<uint32_t>(shape.heads));
  writer->SetU32("llama.attention.head_count_kv", static_cast<uint32_t>(shape.kv_heads));
  writer->SetF32("llama.attention.layer_norm_rms_epsilon", static_cast<float>(shape.norm_epsilon));
  writer->SetU32("llama.rope.dimension_count", static_cast<uint32_t>(shape.head()));
  writer->SetF32("llama.rope.freq_base", static_cast<float>(shape.rope_base));
  writer->SetU32("llama.vocab_size", static_cast<uint32_t>(vocabulary));
  if (shape.exits.empty()) return;
  std::vector<uint32_t> layers(shape.exits.begin(), shape.exits.end());
  std::vector<float> thresholds(recipe.exit_thresholds.begin(), recipe.exit_thresholds.end());
  writer->SetU32s("updraft.exit.layers", layers);
  writer->SetF32s("updraft.exit.thresholds", thresholds);
}

absl::StatusOr<BpeVocabulary> ReadVocabulary(const gguf::File& file) {
  const absl::StatusOr<std::vector<std::string_view>> tokens = file.GetStrings("tokenizer.ggml.tokens");
  if (!tokens.ok()) return tokens.status();
  const absl::StatusOr<std::vector<std::string_view>> merges = file.GetStrings("tokenizer.ggml.merges");
  if (!merges.ok()) return merges.status();
  std::unordered_map<std::string_view, int32_t> ids;
  for (size_t i = 0; i < tokens->size(); ++i) ids.emplace((*tokens)[i], static_cast<int32_t>(i));
  std::vector<std::pair<int32_t, int32_t>> pairs;
  for (std::string_view merge : *merges) {
    const size_t space = merge.find(' ');
    const auto left = ids.find(merge.substr(0, space));
    const auto right = space == std::string_view::npos ? ids.end() : ids.find(merge.substr(space + 1));
    if (left == ids.end() || right == ids.end()) {
      return absl::InvalidArgumentError(
          absl::StrCat(file.path(), ": merge '", std::string(merge), "' is not of two tokens of the vocabulary"));
    }
    pairs.emplace_back(left->second, right->second);
  }
  absl::StatusOr<BpeVocabulary> vocabulary = VocabularyFromMerges(std::move(pairs));
  if (!vocabulary.ok()) return vocabulary.status();
  if (!std::equal(tokens->begin(), tokens->end(), vocabulary->tokens.begin(), vocabulary->tokens.end())) {
    return absl::InvalidArgumentError(
        absl::StrCat(file.path(), ": the tokenizer is not one of this trainer's; start from a model that it made"));
  }
  return vocabulary;
}

// The `count` indices of the largest scores, in their own order.
torch::Tensor Strongest(const torch::Tensor& scores, int64_t count) {
  return std::get<0>(std::get<1>(scores.topk(count)).sort());
}

}  // namespace

absl::Status AppendTensor(const std::string& name, const torch::Tensor& tensor, kernels::DType type,
                          gguf::Writer* writer) {
  const torch::Tensor host = tensor.detach().to(torch::kCPU).contiguous();
  const int64_t columns = host.size(-1), rows = host.numel() / columns;
  std::vector<std::byte> row(kernels::RowBytes(type, columns));
  for (int64_t r = 0; r < rows; ++r) {
    kernels::QuantizeRow(type, host.data_ptr<float>() + r * columns, row.data(), columns);
    if (absl::Status status = writer->AppendTensorData(name, row); !status.ok()) return status;
  }
  return absl::OkStatus();
}

absl::Status WriteModel(const std::string& path, const Recipe& recipe, const TrainingRecord& record,
                        const BpeVocabulary& vocabulary, Transformer* model) {
  absl::StatusOr<gguf::Writer> writer = gguf::Writer::Create(path);
  if (!writer.ok()) return writer.status();
  SetShape(recipe, model->vocabulary(), &*writer);
  SetTokenizer(vocabulary, &*writer);
  writer->SetString("updraft.acts", "cockpit");
  writer->SetString("updraft.training.recipe", record.recipe_fingerprint);
  writer->SetU64("updraft.training.seed", record.seed);
  writer->SetU64("updraft.training.tokens", static_cast<uint64_t>(record.tokens));
  writer->SetU32("updraft.training.data_version", static_cast<uint32_t>(record.data_version));
  for (const auto& [name, tensor] : model->parameters()) {
    std::vector<int64_t> dims = tensor.sizes().vec();
    std::reverse(dims.begin(), dims.end());  // ggml counts from the innermost
    writer->AddTensor(name, FileType(TypeOf(name, tensor, recipe)), dims);
  }
  for (const auto& [name, tensor] : model->parameters()) {
    const absl::Status status = AppendTensor(name, tensor, FileType(TypeOf(name, tensor, recipe)), &*writer);
    if (!status.ok()) return status;
  }
  return writer->Finish();
}

absl::StatusOr<ModelShape> ReadShape(const gguf::File& file) {
  const absl::StatusOr<std::string_view> architecture = file.GetString("general.architecture");
  if (!architecture.ok()) return architecture.status();
  if (*architecture != "llama") {
    return absl::UnimplementedError(
        absl::StrCat(file.path(), ": expected architecture llama, found '", std::string(*architecture), "'"));
  }
  ModelShape shape;
  for (auto [key, target] : {std::pair{"llama.block_count", &shape.layers},
                             {"llama.embedding_length", &shape.width},
                             {"llama.attention.head_count", &shape.heads},
                             {"llama.attention.head_count_kv", &shape.kv_heads},
                             {"llama.feed_forward_length", &shape.feed_forward},
                             {"llama.context_length", &shape.context}}) {
    const absl::StatusOr<uint32_t> value = file.GetU32(key);
    if (!value.ok()) return value.status();
    if (*value == 0 || *value > (1u << 20)) {
      return absl::InvalidArgumentError(
          absl::StrCat(file.path(), ": ", key, ": expected 1 to 1048576, found ", *value));
    }
    *target = static_cast<int>(*value);
  }
  const absl::StatusOr<float> base = file.GetF32("llama.rope.freq_base");
  if (!base.ok()) return base.status();
  shape.rope_base = *base;
  const absl::StatusOr<float> epsilon = file.GetF32("llama.attention.layer_norm_rms_epsilon");
  if (!epsilon.ok()) return epsilon.status();
  shape.norm_epsilon = *epsilon;
  if (shape.width % shape.heads != 0 || shape.heads % shape.kv_heads != 0 || shape.head() % 2 != 0) {
    return absl::InvalidArgumentError(absl::StrCat(file.path(), ": the head counts do not divide the width"));
  }
  if (file.Has("updraft.exit.layers")) {
    const absl::StatusOr<std::vector<uint32_t>> exits = file.GetU32s("updraft.exit.layers");
    if (!exits.ok()) return exits.status();
    for (uint32_t exit : *exits) {
      if (exit == 0 || exit >= static_cast<uint32_t>(shape.layers)) {
        return absl::InvalidArgumentError(
            absl::StrCat(file.path(), ": updraft.exit.layers: ", exit, " is not before the last layer"));
      }
      shape.exits.push_back(static_cast<int>(exit));
    }
  }
  return shape;
}

absl::StatusOr<torch::Tensor> ReadTensor(const gguf::File& file, const std::string& name,
                                         const std::vector<int64_t>& sizes) {
  const gguf::TensorInfo* info = file.FindTensor(name);
  if (info == nullptr) return absl::InvalidArgumentError(absl::StrCat(file.path(), ": tensor '", name, "' is missing"));
  const torch::Tensor host = torch::empty(sizes);
  const int64_t columns = host.size(-1), rows = host.numel() / columns;
  if (info->dims[0] != columns || info->rows() != rows) {
    return absl::InvalidArgumentError(absl::StrCat(file.path(), ": tensor '", name, "': expected ", rows, " rows of ",
                                                   columns, ", found ", info->rows(), " of ", info->dims[0]));
  }
  const size_t row_bytes = kernels::RowBytes(info->type, columns);
  for (int64_t r = 0; r < rows; ++r) {
    kernels::DequantizeRow(info->type, info->data.data() + static_cast<size_t>(r) * row_bytes,
                           host.data_ptr<float>() + r * columns, columns);
  }
  return host;
}

absl::Status ReadTensors(const gguf::File& file, Transformer* model) {
  torch::NoGradGuard no_gradient;
  for (auto& [name, tensor] : model->parameters()) {
    const absl::StatusOr<torch::Tensor> host = ReadTensor(file, name, tensor.sizes().vec());
    if (!host.ok()) return host.status();
    tensor.copy_(*host);
  }
  return absl::OkStatus();
}

absl::StatusOr<LoadedModel> ReadModel(const std::string& path, torch::Device device) {
  const absl::StatusOr<gguf::File> file = gguf::File::Open(path);
  if (!file.ok()) return file.status();
  absl::StatusOr<BpeVocabulary> vocabulary = ReadVocabulary(*file);
  if (!vocabulary.ok()) return vocabulary.status();
  const absl::StatusOr<ModelShape> shape = ReadShape(*file);
  if (!shape.ok()) return shape.status();
  LoadedModel loaded;
  loaded.model =
      std::make_unique<Transformer>(*shape, static_cast<int32_t>(vocabulary->tokens.size()), /*seed=*/0, device);
  loaded.vocabulary = *std::move(vocabulary);
  if (absl::Status status = ReadTensors(*file, loaded.model.get()); !status.ok()) return status;
  if (absl::Status status = file->CheckIntact(); !status.ok()) return status;
  return loaded;
}

LoadedModel WithVocabulary(const LoadedModel& from, const BpeVocabulary& larger) {
  torch::NoGradGuard no_gradient;
  LoadedModel grown;
  grown.vocabulary = larger;
  grown.model = std::make_unique<Transformer>(from.model->shape(), static_cast<int32_t>(larger.tokens.size()),
                                              /*seed=*/0, from.model->device());
  for (auto& [name, tensor] : grown.model->parameters()) {
    if (name != "token_embd.weight") tensor.copy_(from.model->Get(name));
  }
  const torch::Tensor& old_rows = from.model->Get("token_embd.weight");
  torch::Tensor& rows = grown.model->Get("token_embd.weight");
  const auto bytes = static_cast<int64_t>(larger.tokens.size() - larger.merges.size()) - 3;
  const auto kept = bytes + static_cast<int64_t>(from.vocabulary.merges.size());
  rows.slice(0, 0, kept).copy_(old_rows.slice(0, 0, kept));
  for (int64_t id = kept; id < bytes + static_cast<int64_t>(larger.merges.size()); ++id) {
    const auto& [left, right] = larger.merges[static_cast<size_t>(id - bytes)];
    rows[id].copy_((rows[left] + rows[right]) / 2);
  }
  rows[larger.end_of_text].copy_(old_rows[from.vocabulary.end_of_text]);
  rows[larger.im_start].copy_(old_rows[from.vocabulary.im_start]);
  rows[larger.im_end].copy_(old_rows[from.vocabulary.im_end]);
  return grown;
}

absl::Status InitializeFrom(const LoadedModel& from, Transformer* model) {
  const ModelShape &large = from.model->shape(), &small = model->shape();
  if (from.model->vocabulary() != model->vocabulary() || large.layers < small.layers || large.width < small.width ||
      large.feed_forward < small.feed_forward || large.head() != small.head() ||
      large.heads / large.kv_heads != small.heads / small.kv_heads || large.kv_heads < small.kv_heads) {
    return absl::InvalidArgumentError(
        "init_from: expected a model that is at least as deep and wide, with the same head size, heads per key head "
        "and "
        "tokenizer");
  }
  torch::NoGradGuard no_gradient;
  Transformer& source = *from.model;
  // The residual coordinates that carry most, by what the embedding puts there.
  const torch::Tensor width = Strongest(source.Get("token_embd.weight").square().sum(0), small.width);
  const auto copy = [&](const std::string& name, const torch::Tensor& value) { model->Get(name).copy_(value); };
  copy("token_embd.weight", source.Get("token_embd.weight").index_select(1, width));
  copy("output_norm.weight", source.Get("output_norm.weight").index_select(0, width));
  const int64_t queries = small.heads * small.head(), keys = small.kv_heads * small.head();
  for (int layer = 0; layer < small.layers; ++layer) {
    // Evenly spaced, the first and the last among them.
    const int origin =
        small.layers == 1
            ? 0
            : static_cast<int>(std::lround(static_cast<double>(layer) * (large.layers - 1) / (small.layers - 1)));
    const std::string to = absl::StrCat("blk.", layer, "."), at = absl::StrCat("blk.", origin, ".");
    const auto get = [&](const char* name) { return source.Get(at + name); };
    for (const char* name : {"attn_norm.weight", "ffn_norm.weight"}) copy(to + name, get(name).index_select(0, width));
    copy(to + "attn_q.weight", get("attn_q.weight").slice(0, 0, queries).index_select(1, width));
    for (const char* name : {"attn_k.weight", "attn_v.weight"}) {
      copy(to + name, get(name).slice(0, 0, keys).index_select(1, width));
    }
    copy(to + "attn_output.weight", get("attn_output.weight").slice(1, 0, queries).index_select(0, width));
    // The inner units that can move the output most.
    const torch::Tensor inner =
        Strongest(get("ffn_up.weight").square().sum(1) * get("ffn_down.weight").square().sum(0), small.feed_forward);
    for (const char* name : {"ffn_gate.weight", "ffn_up.weight"}) {
      copy(to + name, get(name).index_select(0, inner).index_select(1, width));
    }
    copy(to + "ffn_down.weight", get("ffn_down.weight").index_select(1, inner).index_select(0, width));
  }
  for (int exit : small.exits) {
    const std::string name = absl::StrCat("updraft.exit.", exit, ".norm.weight");
    const bool same =
        std::find(large.exits.begin(), large.exits.end(), exit) != large.exits.end() && large.layers == small.layers;
    copy(name, source.Get(same ? name : "output_norm.weight").index_select(0, width));
  }
  return absl::OkStatus();
}

}  // namespace updraft::train
