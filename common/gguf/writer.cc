#include "common/gguf/writer.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <type_traits>
#include <unordered_set>
#include <utility>

#include "absl/strings/str_format.h"
#include "common/files/atomic_file.h"
#include "common/gguf/parser.h"

namespace updraft::gguf {
namespace {

constexpr char kAlignmentKey[] = "general.alignment";
constexpr uint64_t kDefaultAlignment = 32;
constexpr size_t kMaxTensorNameBytes = 63;

template <typename T>
void PutNumber(std::string& out, T value) {
  static_assert(std::is_arithmetic_v<T> || std::is_enum_v<T>);
  out.append(reinterpret_cast<const char*>(&value), sizeof(value));
}

void PutString(std::string& out, std::string_view text) {
  PutNumber(out, static_cast<uint64_t>(text.size()));
  out.append(text);
}

std::string Encoded(const Value& value) {
  std::string out;
  std::visit(
      [&out](const auto& v) {
        using V = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<V, std::string_view>) {
          PutString(out, v);
        } else if constexpr (std::is_same_v<V, ArrayView>) {
          PutNumber(out, v.element);
          PutNumber(out, v.size);
          out.append(reinterpret_cast<const char*>(v.bytes.data()), v.bytes.size());
        } else if constexpr (std::is_same_v<V, bool>) {
          PutNumber(out, static_cast<uint8_t>(v ? 1 : 0));
        } else {
          PutNumber(out, v);
        }
      },
      value);
  return out;
}

template <typename T>
Value ArrayOf(ValueType element, std::span<const T> values) {
  return ArrayView{element, values.size(), std::as_bytes(values)};
}

template <typename String>
std::string PackedStrings(std::span<const String> values) {
  std::string packed;
  for (const String& value : values) PutString(packed, value);
  return packed;
}

}  // namespace

struct Writer::State {
  struct Entry {
    std::string key;
    ValueType type;
    std::string encoded;
  };
  struct Tensor {
    std::string name;
    kernels::DType type;
    std::vector<int64_t> dims;
    uint64_t offset = 0;  // from the start of the data
    uint64_t bytes = 0;
  };

  State(std::string path_in, AtomicFile file_in, uint64_t alignment_in)
      : path(std::move(path_in)), file(std::move(file_in)), alignment(alignment_in) {}

  void Fail(const absl::Status& error) {
    if (status.ok()) status = error;
  }
  bool MayDeclare(const char* what, std::string_view name);
  void SetEntry(std::string_view key, const Value& value);
  void Declare(std::string_view name, kernels::DType type, std::span<const int64_t> dims);
  absl::Status WriteHeader();
  absl::Status Pad(uint64_t position);
  absl::Status EndTensor();
  absl::Status Append(std::string_view name, std::span<const std::byte> bytes);
  absl::Status Finish();

  std::string path;
  AtomicFile file;
  uint64_t alignment;
  absl::Status status;
  std::vector<Entry> metadata;
  std::vector<Tensor> tensors;
  std::unordered_set<std::string> names;
  uint64_t data_bytes = 0;  // declared so far, padding included
  bool header_written = false;
  bool finished = false;
  size_t current = 0;          // the tensor that data goes to
  uint64_t current_bytes = 0;  // of it written so far
};

bool Writer::State::MayDeclare(const char* what, std::string_view name) {
  if (header_written) {
    Fail(absl::FailedPreconditionError(absl::StrFormat(
        "file '%s': %s %s was added after the first tensor data; declare everything first", path, what, Quoted(name))));
  }
  return status.ok();
}

void Writer::State::SetEntry(std::string_view key, const Value& value) {
  if (!MayDeclare("metadata", key)) return;
  if (key.empty() || key.size() > 65535) {
    return Fail(absl::InvalidArgumentError(absl::StrFormat(
        "file '%s': metadata key %s: expected 1 to 65535 bytes, found %d", path, Quoted(key), key.size())));
  }
  if (key == kAlignmentKey) {
    return Fail(absl::InvalidArgumentError(
        absl::StrFormat("file '%s': metadata '%s' is set by WriterOptions::alignment", path, kAlignmentKey)));
  }
  Entry entry{std::string(key), TypeOf(value), Encoded(value)};
  const auto old = std::ranges::find(metadata, key, &Entry::key);
  if (old != metadata.end()) {
    *old = std::move(entry);
  } else {
    metadata.push_back(std::move(entry));
  }
}

void Writer::State::Declare(std::string_view name, kernels::DType type, std::span<const int64_t> dims) {
  if (!MayDeclare("tensor", name)) return;
  const auto refuse = [&](const std::string& what) {
    Fail(absl::InvalidArgumentError(absl::StrFormat("file '%s': tensor %s: %s", path, Quoted(name), what)));
  };
  if (name.empty() || name.size() > kMaxTensorNameBytes) {
    return refuse(absl::StrFormat("expected a name of 1 to %d bytes, found %d", kMaxTensorNameBytes, name.size()));
  }
  if (dims.empty() || dims.size() > 4) {
    return refuse(absl::StrFormat("expected 1 to 4 dimensions, found %d", dims.size()));
  }
  constexpr int64_t kMaxElements = int64_t{1} << 60;
  int64_t elements = 1;
  for (const int64_t dim : dims) {
    if (dim < 1 || dim > kMaxElements / elements) {
      return refuse(absl::StrFormat("expected dimensions of at least 1 and at most 2^60 elements, found %d", dim));
    }
    elements *= dim;
  }
  const kernels::DTypeInfo& info = kernels::Info(type);
  if (dims[0] % info.block_elems != 0) {
    return refuse(absl::StrFormat("type %s needs rows of a multiple of %d elements, found rows of %d", info.name,
                                  info.block_elems, dims[0]));
  }
  if (!names.insert(std::string(name)).second) return refuse("declared twice");
  Tensor tensor{std::string(name), type, {dims.begin(), dims.end()}, data_bytes, kernels::RowBytes(type, elements)};
  data_bytes += (tensor.bytes + alignment - 1) / alignment * alignment;
  tensors.push_back(std::move(tensor));
}

// Zeros from the position up to the next multiple of the alignment.
absl::Status Writer::State::Pad(uint64_t position) {
  const std::string zeros((alignment - position % alignment) % alignment, '\0');
  return file.Append(std::as_bytes(std::span(zeros)));
}

absl::Status Writer::State::WriteHeader() {
  std::string out = "GGUF";
  PutNumber(out, uint32_t{3});
  PutNumber(out, static_cast<uint64_t>(tensors.size()));
  const bool own_alignment = alignment != kDefaultAlignment;
  PutNumber(out, static_cast<uint64_t>(metadata.size() + (own_alignment ? 1 : 0)));
  for (const Entry& entry : metadata) {
    PutString(out, entry.key);
    PutNumber(out, entry.type);
    out.append(entry.encoded);
  }
  if (own_alignment) {
    PutString(out, kAlignmentKey);
    PutNumber(out, ValueType::kU32);
    PutNumber(out, static_cast<uint32_t>(alignment));
  }
  for (const Tensor& tensor : tensors) {
    PutString(out, tensor.name);
    PutNumber(out, static_cast<uint32_t>(tensor.dims.size()));
    for (const int64_t dim : tensor.dims) PutNumber(out, static_cast<uint64_t>(dim));
    PutNumber(out, kernels::Info(tensor.type).ggml_id);
    PutNumber(out, tensor.offset);
  }
  header_written = true;
  if (absl::Status s = file.Append(std::as_bytes(std::span(out))); !s.ok()) return s;
  return tensors.empty() ? absl::OkStatus() : Pad(out.size());
}

absl::Status Writer::State::EndTensor() {
  absl::Status padded = Pad(tensors[current].bytes);  // tensors start aligned
  ++current;
  current_bytes = 0;
  return padded;
}

absl::Status Writer::State::Append(std::string_view name, std::span<const std::byte> bytes) {
  if (!header_written) {
    if (absl::Status s = WriteHeader(); !s.ok()) return s;
  }
  if (current >= tensors.size() || tensors[current].name != name) {
    return absl::FailedPreconditionError(absl::StrFormat(
        "file '%s': data for tensor %s came out of turn; expected %s", path, Quoted(name),
        current < tensors.size() ? absl::StrFormat("%d more bytes of %s", tensors[current].bytes - current_bytes,
                                                   Quoted(tensors[current].name))
                                 : std::string("no more")));
  }
  const uint64_t wanted = tensors[current].bytes - current_bytes;
  if (bytes.size() > wanted) {
    return absl::InvalidArgumentError(
        absl::StrFormat("file '%s': tensor %s: expected %d more bytes of its %d, found %d", path, Quoted(name), wanted,
                        tensors[current].bytes, bytes.size()));
  }
  if (absl::Status s = file.Append(bytes); !s.ok()) return s;
  current_bytes += bytes.size();
  return current_bytes == tensors[current].bytes ? EndTensor() : absl::OkStatus();
}

absl::Status Writer::State::Finish() {
  if (finished) return absl::FailedPreconditionError(absl::StrFormat("file '%s': finished twice", path));
  if (!header_written) {
    if (absl::Status s = WriteHeader(); !s.ok()) return s;
  }
  if (current < tensors.size()) {
    return absl::FailedPreconditionError(
        absl::StrFormat("file '%s': %d of %d tensors have no complete data, the first is %s", path,
                        tensors.size() - current, tensors.size(), Quoted(tensors[current].name)));
  }
  finished = true;
  return file.Commit();
}

// ---- The public face ----------------------------------------------------------------------------------------------

absl::StatusOr<Writer> Writer::Create(const std::string& path, const WriterOptions& options) {
  if (!std::has_single_bit(options.alignment) || options.alignment < 8 || options.alignment > (1u << 20)) {
    return absl::InvalidArgumentError(absl::StrFormat(
        "file '%s': expected an alignment that is a power of two from 8 to 2^20, found %d", path, options.alignment));
  }
  absl::StatusOr<AtomicFile> file = AtomicFile::Create(path);
  if (!file.ok()) return file.status();
  return Writer(std::make_unique<State>(path, *std::move(file), options.alignment));
}

Writer::Writer(std::unique_ptr<State> state) : state_(std::move(state)) {}
Writer::Writer(Writer&&) noexcept = default;
Writer& Writer::operator=(Writer&&) noexcept = default;
Writer::~Writer() = default;

const absl::Status& Writer::status() const { return state_->status; }

void Writer::Set(std::string_view key, const Value& value) { state_->SetEntry(key, value); }
void Writer::SetU32(std::string_view key, uint32_t value) { Set(key, value); }
void Writer::SetU64(std::string_view key, uint64_t value) { Set(key, value); }
void Writer::SetI32(std::string_view key, int32_t value) { Set(key, value); }
void Writer::SetF32(std::string_view key, float value) { Set(key, value); }
void Writer::SetBool(std::string_view key, bool value) { Set(key, value); }
void Writer::SetString(std::string_view key, std::string_view value) { Set(key, value); }

void Writer::SetStrings(std::string_view key, std::span<const std::string> values) {
  const std::string packed = PackedStrings(values);
  Set(key, ArrayView{ValueType::kString, values.size(), std::as_bytes(std::span(packed))});
}
void Writer::SetStrings(std::string_view key, std::span<const std::string_view> values) {
  const std::string packed = PackedStrings(values);
  Set(key, ArrayView{ValueType::kString, values.size(), std::as_bytes(std::span(packed))});
}
void Writer::SetI32s(std::string_view key, std::span<const int32_t> values) {
  Set(key, ArrayOf(ValueType::kI32, values));
}
void Writer::SetU32s(std::string_view key, std::span<const uint32_t> values) {
  Set(key, ArrayOf(ValueType::kU32, values));
}
void Writer::SetF32s(std::string_view key, std::span<const float> values) {
  Set(key, ArrayOf(ValueType::kF32, values));
}
void Writer::SetBools(std::string_view key, std::span<const uint8_t> values) {
  std::string bools(values.size(), '\0');
  std::ranges::transform(values, bools.begin(), [](uint8_t v) { return static_cast<char>(v != 0); });
  Set(key, ArrayView{ValueType::kBool, bools.size(), std::as_bytes(std::span(bools))});
}

void Writer::CopyMetadata(const File& from) {
  for (const MetadataEntry& entry : from.metadata()) {
    if (entry.key != kAlignmentKey) Set(entry.key, entry.value);
  }
}

void Writer::AddTensor(std::string_view name, kernels::DType type, std::span<const int64_t> dims) {
  state_->Declare(name, type, dims);
}
void Writer::AddTensor(std::string_view name, kernels::DType type, std::initializer_list<int64_t> dims) {
  state_->Declare(name, type, std::span(dims.begin(), dims.size()));
}

absl::Status Writer::AppendTensorData(std::string_view name, std::span<const std::byte> bytes) {
  if (state_->status.ok()) state_->Fail(state_->Append(name, bytes));
  return state_->status;
}

absl::Status Writer::Finish() {
  if (state_->status.ok()) state_->Fail(state_->Finish());
  return state_->status;
}

}  // namespace updraft::gguf
