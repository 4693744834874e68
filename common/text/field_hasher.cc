#include "common/text/field_hasher.h"

#include <openssl/evp.h>

#include <array>
#include <cstddef>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"

namespace updraft::text {
struct FieldHasher::State {
  EVP_MD_CTX* context = EVP_MD_CTX_new();
  bool ok = context != nullptr && EVP_DigestInit_ex(context, EVP_sha256(), nullptr) == 1;
  ~State() { EVP_MD_CTX_free(context); }
};

FieldHasher::FieldHasher() : state_(std::make_unique<State>()) {}
FieldHasher::~FieldHasher() = default;

void FieldHasher::Add(std::string_view field) {
  Add(static_cast<int64_t>(field.size()));
  state_->ok = state_->ok && EVP_DigestUpdate(state_->context, field.data(), field.size()) == 1;
}

void FieldHasher::Add(int64_t number) {
  std::array<unsigned char, 8> bytes;  // little-endian, on any machine
  for (size_t i = 0; i < bytes.size(); ++i) {
    bytes[i] = static_cast<unsigned char>(static_cast<uint64_t>(number) >> (8 * i));
  }
  state_->ok = state_->ok && EVP_DigestUpdate(state_->context, bytes.data(), bytes.size()) == 1;
}

absl::StatusOr<std::string> FieldHasher::Finish() {
  std::array<unsigned char, EVP_MAX_MD_SIZE> digest;
  unsigned int bytes = 0;
  if (!state_->ok || EVP_DigestFinal_ex(state_->context, digest.data(), &bytes) != 1) {
    return absl::InternalError("OpenSSL could not compute SHA-256; check its configuration");
  }
  return absl::BytesToHexString({reinterpret_cast<const char*>(digest.data()), bytes});
}

}  // namespace updraft::text
