#include "common/gguf/parser.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <limits>
#include <numeric>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"

namespace updraft::gguf {
namespace {

static_assert(std::endian::native == std::endian::little, "numbers are read from little-endian files in place");

constexpr uint32_t kMagic = 0x46554747;  // "GGUF"
constexpr uint64_t kDefaultAlignment = 32;
constexpr uint64_t kMinAlignment = 8;         // the format: a multiple of 8
constexpr uint64_t kMaxAlignment = 1u << 20;  // beyond a huge page's share nobody gains
constexpr uint64_t kMaxKeyBytes = 65535;      // the format's limit
constexpr uint64_t kMaxTensorNameBytes = 255;
constexpr uint64_t kAnyLength = std::numeric_limits<uint64_t>::max();

// The least bytes that one entry takes: with them a count is checked against the file before anything is allocated.
constexpr uint64_t kMinMetadataBytes = 8 + 1 + 4 + 1;            // key length, key, type, value
constexpr uint64_t kMinTensorInfoBytes = 8 + 1 + 4 + 8 + 4 + 8;  // name length, name, n_dims, one dim, type, offset

// Positions are kept in 32 bits.
constexpr uint64_t kMaxEntries = std::numeric_limits<uint32_t>::max();

std::vector<uint32_t> Positions(size_t n) {
  std::vector<uint32_t> positions(n);
  std::iota(positions.begin(), positions.end(), 0u);
  return positions;
}

std::string SupportedTypes() {
  std::string names;
  for (int i = 0; i < kernels::kNumDTypes; ++i) {
    absl::StrAppend(&names, i == 0 ? "" : ", ", kernels::Info(static_cast<kernels::DType>(i)).name);
  }
  return names;
}

}  // namespace

std::string Quoted(std::string_view name) {
  constexpr size_t kMaxShown = 100;
  const bool cut = name.size() > kMaxShown;
  return absl::StrFormat("'%s%s'", absl::CHexEscape(std::string(name.substr(0, kMaxShown))), cut ? "..." : "");
}

// ---- Errors -------------------------------------------------------------------------------------------------------

absl::Status Parser::MalformedAt(uint64_t offset, std::string_view what) const {
  return absl::InvalidArgumentError(absl::StrFormat("file '%s': at byte %d: %s", path_, offset, std::string(what)));
}

absl::Status Parser::Unsupported(std::string_view what) const {
  return absl::UnimplementedError(absl::StrFormat("file '%s': at byte %d: %s", path_, position_, std::string(what)));
}

absl::Status Parser::Truncated(uint64_t wanted, std::string_view part) const {
  return Malformed(absl::StrFormat("the file is truncated: expected %d more bytes for %s, found %d; fetch it again",
                                   wanted, std::string(part), remaining()));
}

// ---- Primitives ---------------------------------------------------------------------------------------------------

template <typename T>
absl::StatusOr<T> Parser::ReadNumber(std::string_view part) {
  if (remaining() < sizeof(T)) return Truncated(sizeof(T), part);
  T value;
  std::memcpy(&value, cursor(), sizeof(T));
  position_ += sizeof(T);
  return value;
}

absl::StatusOr<std::string_view> Parser::ReadString(std::string_view part, uint64_t max_bytes) {
  absl::StatusOr<uint64_t> length = ReadNumber<uint64_t>(part);
  if (!length.ok()) return length.status();
  if (*length > max_bytes) {
    return MalformedAt(
        position_ - sizeof(uint64_t),
        absl::StrFormat("%s: expected at most %d bytes, found a length of %d", std::string(part), max_bytes, *length));
  }
  if (*length > remaining()) return Truncated(*length, part);
  const std::string_view text(reinterpret_cast<const char*>(cursor()), *length);
  position_ += *length;
  return text;
}

absl::StatusOr<ValueType> Parser::ReadValueType(std::string_view part) {
  absl::StatusOr<uint32_t> number = ReadNumber<uint32_t>(part);
  if (!number.ok()) return number.status();
  if (*number >= kNumValueTypes) {
    return MalformedAt(position_ - sizeof(uint32_t), absl::StrFormat("%s: expected a value type below %d, found %d",
                                                                     std::string(part), kNumValueTypes, *number));
  }
  return static_cast<ValueType>(*number);
}

// ---- Header -------------------------------------------------------------------------------------------------------

Parser::Parser(std::span<const std::byte> bytes, std::string name) : path_(std::move(name)), bytes_(bytes) {
  File::Part& part = file_.parts_.emplace_back();
  part.path = path_;
  part.bytes = bytes;
}

File Parser::TakeFile(MappedFile mapping) {
  file_.parts_.front().mapping = std::move(mapping);
  return std::move(file_);
}

absl::Status Parser::Parse() {
  if (absl::Status s = ParseHeader(); !s.ok()) return s;
  if (absl::Status s = ParseMetadata(); !s.ok()) return s;
  if (absl::Status s = ParseAlignment(); !s.ok()) return s;
  if (absl::Status s = ParseTensorInfos(); !s.ok()) return s;
  return PlaceTensors();
}

absl::Status Parser::ParseHeader() {
  absl::StatusOr<uint32_t> magic = ReadNumber<uint32_t>("the magic number");
  if (!magic.ok()) return magic.status();
  if (*magic != kMagic) {
    const std::string_view found(reinterpret_cast<const char*>(bytes_.data()), sizeof(*magic));
    return MalformedAt(
        0, absl::StrFormat("expected the magic bytes 'GGUF', found %s: this is not a GGUF model file", Quoted(found)));
  }
  absl::StatusOr<uint32_t> version = ReadNumber<uint32_t>("the version");
  if (!version.ok()) return version.status();
  if (absl::Status s = CheckVersion(*version); !s.ok()) return s;
  file_.version_ = *version;

  absl::StatusOr<uint64_t> n_tensors = ReadNumber<uint64_t>("the number of tensors");
  if (!n_tensors.ok()) return n_tensors.status();
  absl::StatusOr<uint64_t> n_metadata = ReadNumber<uint64_t>("the number of metadata entries");
  if (!n_metadata.ok()) return n_metadata.status();
  if (*n_tensors > std::min(kMaxEntries, remaining() / kMinTensorInfoBytes)) {
    return MalformedAt(8, absl::StrFormat("%d tensors cannot be described in the %d bytes that follow; the file is "
                                          "truncated or damaged",
                                          *n_tensors, remaining()));
  }
  if (*n_metadata > std::min(kMaxEntries, remaining() / kMinMetadataBytes)) {
    return MalformedAt(16, absl::StrFormat("%d metadata entries do not fit in the %d bytes that follow; the file is "
                                           "truncated or damaged",
                                           *n_metadata, remaining()));
  }
  n_tensors_ = *n_tensors;
  n_metadata_ = *n_metadata;
  return absl::OkStatus();
}

absl::Status Parser::CheckVersion(uint32_t version) const {
  if (version == 2 || version == 3) return absl::OkStatus();
  if (version == 1) return Unsupported("GGUF version 1 is not supported (expected 2 or 3); convert the model again");
  if (version == 0x02000000 || version == 0x03000000) {
    return Unsupported("the file is big-endian, which is not supported; convert the model to a little-endian file");
  }
  if (version == 0 || (version & 0xffff) == 0) {
    return Malformed(absl::StrFormat("expected GGUF version 2 or 3, found %d; the file is damaged", version));
  }
  return Unsupported(absl::StrFormat("expected GGUF version 2 or 3, found %d; a newer Updraft may read it", version));
}

// ---- Metadata -----------------------------------------------------------------------------------------------------

absl::Status Parser::ParseMetadata() {
  for (uint64_t i = 0; i < n_metadata_; ++i) {
    absl::StatusOr<std::string_view> key = ReadString(absl::StrFormat("the key of metadata entry %d", i), kMaxKeyBytes);
    if (!key.ok()) return key.status();
    if (key->empty()) return Malformed(absl::StrFormat("metadata entry %d has an empty key", i));
    const std::string part = absl::StrFormat("metadata %s", Quoted(*key));
    absl::StatusOr<ValueType> type = ReadValueType(part);
    if (!type.ok()) return type.status();
    absl::StatusOr<Value> value = ReadValue(*type, part);
    if (!value.ok()) return value.status();
    file_.metadata_.push_back({*key, *value});
  }
  const std::optional<std::string_view> twice = file_.IndexMetadata();
  if (twice) return Malformed(absl::StrFormat("metadata %s occurs twice", Quoted(*twice)));
  return absl::OkStatus();
}

template <typename T>
absl::StatusOr<Value> Parser::ReadScalar(std::string_view part) {
  absl::StatusOr<T> number = ReadNumber<T>(part);
  if (!number.ok()) return number.status();
  return Value(*number);
}

absl::StatusOr<Value> Parser::ReadValue(ValueType type, std::string_view part) {
  switch (type) {
    case ValueType::kU8:
      return ReadScalar<uint8_t>(part);
    case ValueType::kI8:
      return ReadScalar<int8_t>(part);
    case ValueType::kU16:
      return ReadScalar<uint16_t>(part);
    case ValueType::kI16:
      return ReadScalar<int16_t>(part);
    case ValueType::kU32:
      return ReadScalar<uint32_t>(part);
    case ValueType::kI32:
      return ReadScalar<int32_t>(part);
    case ValueType::kF32:
      return ReadScalar<float>(part);
    case ValueType::kU64:
      return ReadScalar<uint64_t>(part);
    case ValueType::kI64:
      return ReadScalar<int64_t>(part);
    case ValueType::kF64:
      return ReadScalar<double>(part);
    case ValueType::kArray:
      return ReadArray(part);
    case ValueType::kString: {
      absl::StatusOr<std::string_view> text = ReadString(part, kAnyLength);
      if (!text.ok()) return text.status();
      return Value(*text);
    }
    case ValueType::kBool: {
      const uint64_t offset = position_;
      absl::StatusOr<uint8_t> number = ReadNumber<uint8_t>(part);
      if (!number.ok()) return number.status();
      const ArrayView one{ValueType::kBool, 1, bytes_.subspan(offset, 1)};
      if (absl::Status s = CheckBools(one, offset, part); !s.ok()) return s;
      return Value(*number != 0);
    }
  }
  return Malformed(absl::StrFormat("%s: unknown value type", std::string(part)));
}

absl::StatusOr<Value> Parser::ReadArray(std::string_view part) {
  absl::StatusOr<ValueType> element = ReadValueType(part);
  if (!element.ok()) return element.status();
  if (*element == ValueType::kArray) {
    return Unsupported(absl::StrFormat("%s: arrays of arrays are not supported", std::string(part)));
  }
  absl::StatusOr<uint64_t> count = ReadNumber<uint64_t>(part);
  if (!count.ok()) return count.status();

  const uint64_t start = position_;
  if (*element == ValueType::kString) {
    if (absl::Status s = SkipStrings(*count, part); !s.ok()) return s;
  } else {
    const uint64_t element_bytes = ValueTypeBytes(*element);
    if (*count > remaining() / element_bytes) {
      return Malformed(
          absl::StrFormat("%s: an array of %d elements of %d bytes does not fit in the %d bytes that "
                          "follow; the file is truncated or damaged",
                          std::string(part), *count, element_bytes, remaining()));
    }
    position_ += *count * element_bytes;
  }
  const ArrayView array{*element, *count, bytes_.subspan(start, position_ - start)};
  if (*element == ValueType::kBool) {
    if (absl::Status s = CheckBools(array, start, part); !s.ok()) return s;
  }
  return Value(array);
}

absl::Status Parser::SkipStrings(uint64_t count, std::string_view part) {
  if (count > remaining() / sizeof(uint64_t)) {
    return Malformed(
        absl::StrFormat("%s: an array of %d strings does not fit in the %d bytes that follow; the file is "
                        "truncated or damaged",
                        std::string(part), count, remaining()));
  }
  for (uint64_t i = 0; i < count; ++i) {
    absl::StatusOr<std::string_view> text = ReadString(part, kAnyLength);
    if (!text.ok()) return text.status();
  }
  return absl::OkStatus();
}

// A bool that is neither 0 nor 1 would be undefined behaviour wherever it is used.
absl::Status Parser::CheckBools(const ArrayView& array, uint64_t offset, std::string_view part) const {
  for (uint64_t i = 0; i < array.size; ++i) {
    const auto byte = std::to_integer<unsigned>(array.bytes[i]);
    if (byte > 1) {
      return MalformedAt(offset + i,
                         absl::StrFormat("%s: expected a bool (0 or 1), found %d", std::string(part), byte));
    }
  }
  return absl::OkStatus();
}

absl::Status Parser::ParseAlignment() {
  absl::StatusOr<uint64_t> alignment = file_.GetU64Or("general.alignment", kDefaultAlignment);
  if (!alignment.ok()) return alignment.status();
  if (!std::has_single_bit(*alignment) || *alignment < kMinAlignment || *alignment > kMaxAlignment) {
    return Malformed(absl::StrFormat("metadata 'general.alignment': expected a power of two from %d to %d, found %d",
                                     kMinAlignment, kMaxAlignment, *alignment));
  }
  file_.alignment_ = *alignment;
  return absl::OkStatus();
}

// ---- Tensors ------------------------------------------------------------------------------------------------------

absl::Status Parser::ParseTensorInfos() {
  for (uint64_t i = 0; i < n_tensors_; ++i) {
    if (absl::Status s = ParseTensorInfo(); !s.ok()) return s;
  }
  const std::optional<std::string_view> twice = file_.IndexTensors();
  if (twice) return Malformed(absl::StrFormat("tensor %s occurs twice", Quoted(*twice)));
  return absl::OkStatus();
}

absl::Status Parser::ParseTensorInfo() {
  absl::StatusOr<std::string_view> name =
      ReadString(absl::StrFormat("the name of tensor %d", file_.tensors_.size()), kMaxTensorNameBytes);
  if (!name.ok()) return name.status();
  if (name->empty()) return Malformed(absl::StrFormat("tensor %d has an empty name", file_.tensors_.size()));

  TensorInfo tensor;
  tensor.name = std::string(*name);
  int64_t elements = 0;
  if (absl::Status s = ParseDims(tensor, &elements); !s.ok()) return s;
  Extent extent;
  if (absl::Status s = ParseType(tensor, elements, &extent.bytes); !s.ok()) return s;
  absl::StatusOr<uint64_t> offset = ReadNumber<uint64_t>(absl::StrFormat("tensor %s", Quoted(tensor.name)));
  if (!offset.ok()) return offset.status();
  if (*offset % file_.alignment_ != 0) {
    return MalformedAt(position_ - sizeof(uint64_t),
                       absl::StrFormat("tensor %s: expected a data offset that is a multiple of %d, found %d",
                                       Quoted(tensor.name), file_.alignment_, *offset));
  }
  extent.offset = *offset;
  file_.tensors_.push_back(std::move(tensor));
  extents_.push_back(extent);
  return absl::OkStatus();
}

absl::Status Parser::ParseDims(TensorInfo& tensor, int64_t* elements) {
  const std::string part = absl::StrFormat("tensor %s", Quoted(tensor.name));
  absl::StatusOr<uint32_t> n_dims = ReadNumber<uint32_t>(part);
  if (!n_dims.ok()) return n_dims.status();
  if (*n_dims < 1 || *n_dims > tensor.dims.size()) {
    return MalformedAt(position_ - sizeof(uint32_t),
                       absl::StrFormat("%s: expected 1 to 4 dimensions, found %d", part, *n_dims));
  }
  tensor.n_dims = static_cast<int>(*n_dims);
  // No file holds 2^60 elements; below that, bytes (at most 4 per element) and signed counts cannot overflow.
  constexpr uint64_t kMaxElements = uint64_t{1} << 60;
  uint64_t product = 1;
  for (uint32_t i = 0; i < *n_dims; ++i) {
    absl::StatusOr<uint64_t> dim = ReadNumber<uint64_t>(part);
    if (!dim.ok()) return dim.status();
    if (*dim == 0) {
      return MalformedAt(position_ - sizeof(uint64_t), absl::StrFormat("%s: dimension %d is zero", part, i));
    }
    if (*dim > kMaxElements / product) {
      return MalformedAt(position_ - sizeof(uint64_t),
                         absl::StrFormat("%s: dimension %d of %d makes more than 2^60 elements", part, i, *dim));
    }
    product *= *dim;
    tensor.dims[i] = static_cast<int64_t>(*dim);
  }
  *elements = static_cast<int64_t>(product);
  return absl::OkStatus();
}

absl::Status Parser::ParseType(TensorInfo& tensor, int64_t elements, uint64_t* n_bytes) {
  const std::string part = absl::StrFormat("tensor %s", Quoted(tensor.name));
  absl::StatusOr<uint32_t> id = ReadNumber<uint32_t>(part);
  if (!id.ok()) return id.status();
  const std::optional<kernels::DType> type = kernels::FromGgmlId(*id);
  if (!type.has_value()) {
    position_ -= sizeof(uint32_t);
    const char* type_name = kernels::GgmlTypeName(*id);
    if (type_name == nullptr) return Malformed(absl::StrFormat("%s: unknown tensor type %d", part, *id));
    return Unsupported(
        absl::StrFormat("%s: type %s (id %d) is not supported by this build; use a file quantized to one of %s", part,
                        type_name, *id, SupportedTypes()));
  }
  const kernels::DTypeInfo& info = kernels::Info(*type);
  if (tensor.dims[0] % info.block_elems != 0) {
    return Malformed(absl::StrFormat("%s: type %s needs rows of a multiple of %d elements, found rows of %d", part,
                                     info.name, info.block_elems, tensor.dims[0]));
  }
  tensor.type = *type;
  *n_bytes = kernels::RowBytes(*type, elements);
  return absl::OkStatus();
}

absl::Status Parser::PlaceTensors() {
  const uint64_t alignment = file_.alignment_;
  // A file without tensors (a vocabulary alone) may end before the padding.
  data_offset_ = (position_ + alignment - 1) / alignment * alignment;
  file_.parts_.front().data_offset = data_offset_;
  const uint64_t data_bytes = bytes_.size() > data_offset_ ? bytes_.size() - data_offset_ : 0;
  for (size_t i = 0; i < extents_.size(); ++i) {
    const Extent& extent = extents_[i];
    TensorInfo& tensor = file_.tensors_[i];
    if (extent.offset > data_bytes || extent.bytes > data_bytes - extent.offset) {
      return MalformedAt(data_offset_,
                         absl::StrFormat("tensor %s: expected %d bytes at offset %d of the data, found data of %d "
                                         "bytes; the file is truncated or damaged",
                                         Quoted(tensor.name), extent.bytes, extent.offset, data_bytes));
    }
    tensor.data = bytes_.subspan(data_offset_ + extent.offset, extent.bytes);
  }
  return CheckOverlaps();
}

// Two tensors may share all of their bytes (tied weights). Anything between that and none is damage: no writer makes
// it.
absl::Status Parser::CheckOverlaps() const {
  std::vector<uint32_t> order = Positions(extents_.size());
  const auto extent_of = [this](uint32_t i) { return std::pair(extents_[i].offset, extents_[i].bytes); };
  std::ranges::sort(order, {}, extent_of);
  for (size_t i = 1; i < order.size(); ++i) {
    const Extent& before = extents_[order[i - 1]];
    const Extent& after = extents_[order[i]];
    const bool same = before.offset == after.offset && before.bytes == after.bytes;
    if (!same && before.offset + before.bytes > after.offset) {
      return MalformedAt(data_offset_ + after.offset, absl::StrFormat("tensors %s and %s overlap; the file is damaged",
                                                                      Quoted(file_.tensors_[order[i - 1]].name),
                                                                      Quoted(file_.tensors_[order[i]].name)));
    }
  }
  return absl::OkStatus();
}

}  // namespace updraft::gguf
