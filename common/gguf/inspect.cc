#include "common/gguf/inspect.h"

#include <algorithm>
#include <cmath>
#include <map>
#include <string_view>
#include <type_traits>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/gguf/parser.h"

namespace updraft::gguf {
namespace {

// ---- Collecting ---------------------------------------------------------------------------------------------------

template <typename T>
Scalar ToScalar(T v) {
  if constexpr (std::is_same_v<T, bool>)
    return v;
  else if constexpr (std::is_same_v<T, std::string_view>)
    return std::string(v);
  else if constexpr (std::is_floating_point_v<T>)
    return static_cast<double>(v);
  else if constexpr (std::is_signed_v<T>)
    return static_cast<int64_t>(v);
  else
    return static_cast<uint64_t>(v);
}

Scalar ElementScalar(const ArrayView& array, uint64_t i) {
  switch (array.element) {
    case ValueType::kU8:
      return ToScalar(ElementAt<uint8_t>(array, i));
    case ValueType::kI8:
      return ToScalar(ElementAt<int8_t>(array, i));
    case ValueType::kU16:
      return ToScalar(ElementAt<uint16_t>(array, i));
    case ValueType::kI16:
      return ToScalar(ElementAt<int16_t>(array, i));
    case ValueType::kU32:
      return ToScalar(ElementAt<uint32_t>(array, i));
    case ValueType::kI32:
      return ToScalar(ElementAt<int32_t>(array, i));
    case ValueType::kF32:
      return ToScalar(ElementAt<float>(array, i));
    case ValueType::kBool:
      return ToScalar(ElementAt<bool>(array, i));
    case ValueType::kU64:
      return ToScalar(ElementAt<uint64_t>(array, i));
    case ValueType::kI64:
      return ToScalar(ElementAt<int64_t>(array, i));
    case ValueType::kF64:
      return ToScalar(ElementAt<double>(array, i));
    case ValueType::kString:
    case ValueType::kArray:
      break;
  }
  return std::string();
}

void SummarizeArray(const ArrayView& array, MetadataSummary& summary) {
  summary.element = array.element;
  summary.size = array.size;
  const uint64_t n = std::min<uint64_t>(array.size, MetadataSummary::kMaxElements);
  if (array.element == ValueType::kString) {
    StringCursor strings(array);
    for (uint64_t i = 0; i < n; ++i) summary.first.push_back(ToScalar(strings.Next()));
  } else {
    for (uint64_t i = 0; i < n; ++i) summary.first.push_back(ElementScalar(array, i));
  }
}

MetadataSummary Summarize(const MetadataEntry& entry) {
  MetadataSummary summary{std::string(entry.key), TypeOf(entry.value), TypeOf(entry.value), 1, {}};
  std::visit(
      [&summary](const auto& v) {
        if constexpr (std::is_same_v<std::decay_t<decltype(v)>, ArrayView>) {
          SummarizeArray(v, summary);
        } else {
          summary.first.push_back(ToScalar(v));
        }
      },
      entry.value);
  return summary;
}

// ---- Text ---------------------------------------------------------------------------------------------------------

// The text of a scalar, where strings and floating-point numbers are written as said.
template <typename String, typename Float>
std::string ScalarText(const Scalar& scalar, String string, Float number) {
  return std::visit(
      [&](const auto& v) -> std::string {
        using V = std::decay_t<decltype(v)>;
        if constexpr (std::is_same_v<V, bool>)
          return v ? "true" : "false";
        else if constexpr (std::is_same_v<V, std::string>)
          return string(v);
        else if constexpr (std::is_same_v<V, double>)
          return number(v);
        else
          return absl::StrCat(v);
      },
      scalar);
}

std::string ShowScalar(const Scalar& scalar) {
  return ScalarText(scalar, Quoted, [](double v) { return absl::StrFormat("%g", v); });
}

std::string ShowMetadata(const MetadataSummary& entry) {
  if (entry.type != ValueType::kArray) return ShowScalar(entry.first.front());
  std::string text = absl::StrFormat("%d x %s [", entry.size, ValueTypeName(entry.element));
  for (size_t i = 0; i < entry.first.size(); ++i)
    absl::StrAppend(&text, i == 0 ? "" : ", ", ShowScalar(entry.first[i]));
  return absl::StrCat(text, entry.size > entry.first.size() ? ", ...]" : "]");
}

// 1.10 B, 260.0 K, 512
std::string ShowCount(uint64_t n) {
  const double v = static_cast<double>(n);
  if (n >= 1000000000) return absl::StrFormat("%.2f B", v / 1e9);
  if (n >= 1000000) return absl::StrFormat("%.2f M", v / 1e6);
  if (n >= 1000) return absl::StrFormat("%.1f K", v / 1e3);
  return absl::StrCat(n);
}

std::string ShowBytes(uint64_t n) {
  const double v = static_cast<double>(n);
  if (n >= 1000000000) return absl::StrFormat("%.2f GB", v / 1e9);
  if (n >= 1000000) return absl::StrFormat("%.2f MB", v / 1e6);
  if (n >= 1000) return absl::StrFormat("%.1f kB", v / 1e3);
  return absl::StrFormat("%d bytes", n);
}

std::string ShowDims(const std::vector<int64_t>& dims) {
  std::string text = "[";
  for (size_t i = 0; i < dims.size(); ++i) absl::StrAppend(&text, i == 0 ? "" : ", ", dims[i]);
  return text + "]";
}

// ---- JSON ---------------------------------------------------------------------------------------------------------

// Bytes of the well-formed UTF-8 character at the start of text (RFC 3629: no overlong forms, no surrogates, at most
// U+10FFFF); 0 when there is none.
size_t Utf8CharBytes(std::string_view text) {
  const auto byte = [text](size_t i) { return i < text.size() ? static_cast<unsigned char>(text[i]) : 0u; };
  const auto follows = [&byte](size_t i, unsigned low = 0x80, unsigned high = 0xbf) {
    return byte(i) >= low && byte(i) <= high;
  };
  const unsigned lead = byte(0);
  if (lead < 0x80) return text.empty() ? 0 : 1;
  if (lead >= 0xc2 && lead <= 0xdf) return follows(1) ? 2 : 0;
  if (lead >= 0xe0 && lead <= 0xef) {
    return follows(1, lead == 0xe0 ? 0xa0 : 0x80, lead == 0xed ? 0x9f : 0xbf) && follows(2) ? 3 : 0;
  }
  if (lead >= 0xf0 && lead <= 0xf4) {
    return follows(1, lead == 0xf0 ? 0x90 : 0x80, lead == 0xf4 ? 0x8f : 0xbf) && follows(2) && follows(3) ? 4 : 0;
  }
  return 0;
}

std::string JsonString(std::string_view text) {
  std::string out = "\"";
  while (!text.empty()) {
    const size_t n = Utf8CharBytes(text);
    const char c = text[0];
    if (n == 0) {
      out += "\xef\xbf\xbd";
    } else if (c == '"' || c == '\\') {
      out += {'\\', c};
    } else if (n == 1 && (static_cast<unsigned char>(c) < 0x20 || c == 0x7f)) {
      absl::StrAppendFormat(&out, "\\u%04x", static_cast<unsigned>(c));
    } else {
      out += text.substr(0, n);
    }
    text.remove_prefix(std::max<size_t>(n, 1));
  }
  return out + "\"";
}

std::string JsonScalar(const Scalar& scalar) {
  return ScalarText(scalar, JsonString,
                    [](double v) { return std::isfinite(v) ? absl::StrFormat("%.9g", v) : std::string("null"); });
}

// "[a,b,c]"
template <typename Items, typename Show>
std::string JsonArray(const Items& items, Show show) {
  std::string out = "[";
  for (const auto& item : items) absl::StrAppend(&out, out.size() == 1 ? "" : ",", show(item));
  return out + "]";
}

std::string JsonMetadata(const MetadataSummary& entry) {
  if (entry.type != ValueType::kArray) return JsonScalar(entry.first.front());
  std::string elements = JsonArray(entry.first, JsonScalar);
  if (entry.size == entry.first.size()) return elements;
  return absl::StrFormat("{\"array\":\"%s\",\"size\":%d,\"first\":%s}", ValueTypeName(entry.element), entry.size,
                         elements);
}

}  // namespace

absl::StatusOr<Inspection> Inspect(const File& file) {
  Inspection inspection;
  inspection.path = file.path();
  inspection.n_parts = file.parts().size();
  inspection.version = file.version();
  inspection.file_bytes = file.file_bytes();
  inspection.alignment = file.alignment();
  absl::StatusOr<std::string_view> architecture = file.GetStringOr("general.architecture", "");
  if (!architecture.ok()) return architecture.status();
  inspection.architecture = std::string(*architecture);
  absl::StatusOr<std::string_view> name = file.GetStringOr("general.name", "");
  if (!name.ok()) return name.status();
  inspection.name = std::string(*name);

  for (const MetadataEntry& entry : file.metadata()) inspection.metadata.push_back(Summarize(entry));

  std::map<kernels::DType, TypeShare> shares;
  for (const TensorInfo& tensor : file.tensors()) {
    const auto elements = static_cast<uint64_t>(tensor.elements());
    inspection.tensors.push_back(
        {tensor.name, tensor.type, {tensor.dims.begin(), tensor.dims.begin() + tensor.n_dims}, tensor.data.size()});
    inspection.n_weights += elements;
    inspection.tensor_bytes += tensor.data.size();
    TypeShare& share = shares[tensor.type];
    share.type = tensor.type;
    ++share.n_tensors;
    share.n_weights += elements;
    share.bytes += tensor.data.size();
  }
  for (const auto& [type, share] : shares) inspection.types.push_back(share);
  std::ranges::stable_sort(inspection.types, std::ranges::greater(), &TypeShare::bytes);
  if (inspection.n_weights > 0) {
    inspection.bits_per_weight =
        8.0 * static_cast<double>(inspection.tensor_bytes) / static_cast<double>(inspection.n_weights);
  }
  return inspection;
}

std::string ToText(const Inspection& inspection) {
  std::string out;
  absl::StrAppendFormat(&out, "file          %s (%sGGUF version %d, %s)\n", inspection.path,
                        inspection.n_parts > 1 ? absl::StrFormat("%d parts, ", inspection.n_parts) : "",
                        inspection.version, ShowBytes(inspection.file_bytes));
  absl::StrAppendFormat(&out, "model         %s, architecture %s\n",
                        inspection.name.empty() ? "(no name)" : Quoted(inspection.name),
                        inspection.architecture.empty() ? "(none)" : Quoted(inspection.architecture));
  absl::StrAppendFormat(&out, "parameters    %s in %d tensors, %s, %.3f bits per weight\n",
                        ShowCount(inspection.n_weights), inspection.tensors.size(), ShowBytes(inspection.tensor_bytes),
                        inspection.bits_per_weight);
  for (const TypeShare& share : inspection.types) {
    absl::StrAppendFormat(&out, "  %-6s %5d tensors  %10s parameters  %10s\n", kernels::Info(share.type).name,
                          share.n_tensors, ShowCount(share.n_weights), ShowBytes(share.bytes));
  }
  for (const std::string& warning : inspection.warnings) {
    absl::StrAppend(&out, "warning       ", absl::CHexEscape(warning), "\n");
  }
  absl::StrAppendFormat(&out, "\nmetadata (%d)\n", inspection.metadata.size());
  for (const MetadataSummary& entry : inspection.metadata) {
    const std::string key = Quoted(entry.key);
    absl::StrAppendFormat(&out, "  %-42s %-6s %s\n", key.substr(1, key.size() - 2), ValueTypeName(entry.type),
                          ShowMetadata(entry));
  }
  absl::StrAppendFormat(&out, "\ntensors (%d)\n", inspection.tensors.size());
  for (const TensorSummary& tensor : inspection.tensors) {
    const std::string name = Quoted(tensor.name);
    absl::StrAppendFormat(&out, "  %-42s %-6s %-22s %10s\n", name.substr(1, name.size() - 2),
                          kernels::Info(tensor.type).name, ShowDims(tensor.dims), ShowBytes(tensor.bytes));
  }
  return out;
}

std::string ToJson(const Inspection& inspection) {
  std::string out;
  absl::StrAppendFormat(&out, "{\"path\":%s,\"parts\":%d,\"version\":%d,\"file_bytes\":%d,\"alignment\":%d",
                        JsonString(inspection.path), inspection.n_parts, inspection.version, inspection.file_bytes,
                        inspection.alignment);
  absl::StrAppendFormat(&out, ",\"architecture\":%s,\"name\":%s", JsonString(inspection.architecture),
                        JsonString(inspection.name));
  absl::StrAppendFormat(&out, ",\"parameters\":%d,\"tensor_bytes\":%d,\"bits_per_weight\":%.6g", inspection.n_weights,
                        inspection.tensor_bytes, inspection.bits_per_weight);
  absl::StrAppend(&out, ",\"warnings\":", JsonArray(inspection.warnings, JsonString));
  absl::StrAppend(&out, ",\"types\":", JsonArray(inspection.types, [](const TypeShare& share) {
    return absl::StrFormat("{\"type\":\"%s\",\"tensors\":%d,\"parameters\":%d,\"bytes\":%d}",
                           kernels::Info(share.type).name, share.n_tensors, share.n_weights, share.bytes);
  }));
  out += ",\"metadata\":{";
  for (size_t i = 0; i < inspection.metadata.size(); ++i) {
    const MetadataSummary& entry = inspection.metadata[i];
    absl::StrAppend(&out, i == 0 ? "" : ",", JsonString(entry.key), ":", JsonMetadata(entry));
  }
  absl::StrAppend(&out, "},\"tensors\":", JsonArray(inspection.tensors, [](const TensorSummary& tensor) {
    return absl::StrFormat("{\"name\":%s,\"type\":\"%s\",\"dims\":%s,\"bytes\":%d}", JsonString(tensor.name),
                           kernels::Info(tensor.type).name,
                           JsonArray(tensor.dims, [](int64_t dim) { return absl::StrCat(dim); }), tensor.bytes);
  }));
  return out + "}";
}

}  // namespace updraft::gguf
