#include "deploy/train/checkpoint.h"

#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <vector>

#include "absl/strings/str_cat.h"

namespace updraft::train {
namespace {

using nlohmann::json;

void WriteTensor(const torch::Tensor& tensor, std::ofstream* out) {
  const torch::Tensor host = tensor.detach().to(torch::kCPU).contiguous();
  out->write(static_cast<const char*>(host.data_ptr()), static_cast<std::streamsize>(host.numel() * sizeof(float)));
}

bool ReadTensor(std::ifstream* in, torch::Tensor* tensor) {
  torch::NoGradGuard no_gradient;
  const torch::Tensor host = torch::empty(tensor->sizes());
  in->read(static_cast<char*>(host.data_ptr()), static_cast<std::streamsize>(host.numel() * sizeof(float)));
  tensor->copy_(host);
  return in->good();
}

constexpr const char* kFormat = "updraft-checkpoint-2";

absl::StatusOr<json> ReadHeader(const std::string& path, const std::string& format, std::ifstream* in) {
  if (!*in) return absl::NotFoundError(absl::StrCat(path, ": there is no checkpoint to resume; leave out --resume"));
  std::string line;
  std::getline(*in, line);
  json header = json::parse(line, nullptr, /*allow_exceptions=*/false);
  if (!header.is_object() || header.value("format", "") != format) {
    return absl::InvalidArgumentError(
        absl::StrCat(path, ": is not a checkpoint of this trainer; remove it or name another"));
  }
  return header;
}

json TensorList(const NamedTensors& parameters) {
  json list = json::array();
  for (const auto& [name, tensor] : parameters) list.push_back({name, tensor.sizes().vec()});
  return list;
}

}  // namespace

absl::Status WriteCheckpoint(const std::string& path, json header, const NamedTensors& parameters,
                             const Optimizer& optimizer) {
  header["updates"] = optimizer.updates;
  header["tensors"] = TensorList(parameters);
  const std::string fresh = path + ".new";
  std::ofstream out(fresh, std::ios::binary | std::ios::trunc);
  out << header.dump() << '\n';
  for (const auto& [name, tensor] : parameters) WriteTensor(tensor, &out);
  for (const torch::Tensor& tensor : optimizer.first) WriteTensor(tensor, &out);
  for (const torch::Tensor& tensor : optimizer.second) WriteTensor(tensor, &out);
  out.close();
  std::error_code error;
  if (out) std::filesystem::rename(fresh, path, error);
  if (!out || error)
    return absl::UnavailableError(absl::StrCat(path, ": cannot be written; check the folder and the space"));
  return absl::OkStatus();
}

absl::StatusOr<json> ReadCheckpointHeader(const std::string& path, const std::string& format) {
  std::ifstream in(path, std::ios::binary);
  return ReadHeader(path, format, &in);
}

absl::Status ReadCheckpointTensors(const std::string& path, const std::string& format, NamedTensors* parameters,
                                   Optimizer* optimizer) {
  std::ifstream in(path, std::ios::binary);
  absl::StatusOr<json> header = ReadHeader(path, format, &in);
  if (!header.ok()) return header.status();
  if (header->value("tensors", json::array()) != TensorList(*parameters)) {
    return absl::FailedPreconditionError(absl::StrCat(
        path, ": the checkpoint's model is not the recipe's; resume with the recipe that it was made with"));
  }
  optimizer->updates = header->value("updates", int64_t{0});
  bool complete = true;
  for (auto& [name, tensor] : *parameters) complete = complete && ReadTensor(&in, &tensor);
  for (torch::Tensor& tensor : optimizer->first) complete = complete && ReadTensor(&in, &tensor);
  for (torch::Tensor& tensor : optimizer->second) complete = complete && ReadTensor(&in, &tensor);
  if (!complete)
    return absl::DataLossError(absl::StrCat(path, ": ends before its tensors do; remove it and start anew"));
  return absl::OkStatus();
}

absl::Status SaveCheckpoint(const std::string& path, const Progress& progress, const BpeVocabulary& vocabulary,
                            Transformer* model, Optimizer* optimizer) {
  const json header = {{"format", kFormat},
                       {"step", progress.step},
                       {"step_tokens", progress.step_tokens},
                       {"total_tokens", progress.total_tokens},
                       {"seconds", progress.seconds},
                       {"generator_state", progress.place.generator_state},
                       {"generator_count", progress.place.generator_count},
                       {"batches_taken", progress.place.batches_taken},
                       {"merges", vocabulary.merges}};
  return WriteCheckpoint(path, header, model->parameters(), *optimizer);
}

absl::StatusOr<Checkpoint> LoadCheckpoint(const std::string& path) {
  const absl::StatusOr<json> header = ReadCheckpointHeader(path, kFormat);
  if (!header.ok()) return header.status();
  Checkpoint checkpoint;
  Progress& progress = checkpoint.progress;
  progress.step = header->value("step", size_t{0});
  progress.step_tokens = header->value("step_tokens", int64_t{0});
  progress.total_tokens = header->value("total_tokens", int64_t{0});
  progress.seconds = header->value("seconds", 0.0);
  progress.place.generator_state = header->value("generator_state", uint64_t{0});
  progress.place.generator_count = header->value("generator_count", int64_t{0});
  progress.place.batches_taken = header->value("batches_taken", int64_t{0});
  std::vector<std::pair<int32_t, int32_t>> merges;
  for (const json& merge : header->value("merges", json::array())) merges.emplace_back(merge[0], merge[1]);
  absl::StatusOr<BpeVocabulary> vocabulary = VocabularyFromMerges(std::move(merges));
  if (!vocabulary.ok()) return vocabulary.status();
  checkpoint.vocabulary = *std::move(vocabulary);
  return checkpoint;
}

absl::Status LoadCheckpointTensors(const std::string& path, Transformer* model, Optimizer* optimizer) {
  return ReadCheckpointTensors(path, kFormat, &model->parameters(), optimizer);
}

}  // namespace updraft::train
