// Adapters beside small models, edited ones, and models with an adapter merged into their weights.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "common/model/adapter.h"
#include "deploy/synth/adapter.h"
#include "tests/common/model/test_models.h"

namespace updraft::testing {

// Writes the model at `base` with the adapter added to its weights, all f32. A tied head becomes one of its own.
inline absl::Status MergeAdapter(const std::string& base_path, const std::string& adapter_path,
                                 const std::string& out) {
  const gguf::File base = gguf::File::Open(base_path).value();
  const Adapter adapter = Adapter::Open(adapter_path, base, ModelConfig::FromGguf(base).value()).value();
  auto writer = gguf::Writer::Create(out);
  if (!writer.ok()) return writer.status();
  writer->CopyMetadata(base);
  std::vector<std::pair<std::string, const gguf::TensorInfo*>> tensors;
  for (const gguf::TensorInfo& tensor : base.tensors()) tensors.emplace_back(tensor.name, &tensor);
  if (base.FindTensor("output.weight") == nullptr) {
    tensors.emplace_back("output.weight", base.FindTensor("token_embd.weight"));
  }
  for (const auto& [name, tensor] : tensors) {
    writer->AddTensor(name, kernels::DType::kF32, std::span(tensor->dims).first(tensor->n_dims));
  }
  for (const auto& [name, tensor] : tensors) {
    std::vector<float> w(tensor->elements());
    kernels::DequantizeRow(tensor->type, tensor->data.data(), w.data(), tensor->elements());
    const auto pair = adapter.Pair(name).value();
    const int64_t n_in = tensor->dims[0], n_out = tensor->dims[1];
    for (int64_t i = 0; pair && i < n_in * n_out; ++i) {
      const int64_t row = i / n_in, column = i % n_in, rank = pair->rank;
      double sum = w[i];
      for (int64_t k = 0; k < rank; ++k) {
        sum += name == "token_embd.weight" ? double{pair->a[row * rank + k]} * pair->b[column * rank + k]
                                           : double{pair->b[row * rank + k]} * pair->a[k * n_in + column];
      }
      w[i] = static_cast<float>(sum);
    }
    const absl::Status status = writer->AppendTensorData(name, std::as_bytes(std::span(w)));
    if (!status.ok()) return status;
  }
  return writer->Finish();
}

}  // namespace updraft::testing
