#include "common/serving/api_keys.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/sha.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <sstream>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/serving/request_check.h"
#include "common/telemetry/log.h"

namespace updraft {
namespace {

constexpr size_t kMaxFileBytes = 4 << 20;
constexpr absl::Duration kLookInterval = absl::Seconds(1);

absl::Status Unknown(bool is_there) {
  return absl::UnauthenticatedError(is_there ? "this key is nobody's here; ask whoever runs this tier for one"
                                             : "expected a key (Authorization: Bearer KEY), found none");
}

}  // namespace

absl::Status CheckTenant(const char* field, const std::string& tenant) {
  if (absl::Status status = CheckId(field, tenant); !status.ok()) return status;
  if (!tenant.empty() && tenant[0] != '#' && tenant.find('/') == std::string::npos) return absl::OkStatus();
  return absl::InvalidArgumentError(absl::StrFormat(
      "%s: expected a name that does not begin with # and has no / in it, which parts a tenant from those "
      "below it; found '%s'",
      field, tenant.substr(0, 80)));
}

KeyHash HashOfKey(std::string_view key) {
  KeyHash hash;
  SHA256(reinterpret_cast<const unsigned char*>(key.data()), key.size(), hash.data());
  return hash;
}

std::string LineOfKey(const ApiKey& key) {
  return absl::StrCat(key.tenant, " ",
                      absl::BytesToHexString({reinterpret_cast<const char*>(key.hash.data()), key.hash.size()}));
}

absl::StatusOr<std::string> NewKey() {
  std::array<unsigned char, 32> bits{};
  if (RAND_bytes(bits.data(), static_cast<int>(bits.size())) != 1) {
    return absl::InternalError("expected random bits for a key, found that the system gives none");
  }
  return absl::StrCat("sk-", absl::WebSafeBase64Escape({reinterpret_cast<const char*>(bits.data()), bits.size()}));
}

absl::StatusOr<std::vector<ApiKey>> ParseApiKeys(std::string_view text) {
  std::vector<ApiKey> keys;
  std::istringstream in{std::string(text)};
  std::map<KeyHash, int> lines;  // where each hash stands
  int n = 0;
  for (std::string line; std::getline(in, line);) {
    ++n;
    std::istringstream words(line);
    std::string tenant, digits, more;
    words >> tenant >> digits >> more;
    if (tenant.empty() || tenant[0] == '#') continue;
    const auto wrong = [n](const std::string& what) {
      return absl::InvalidArgumentError(absl::StrFormat("line %d: %s", n, what));
    };
    if (absl::Status status = CheckTenant("tenant", tenant); !status.ok()) return wrong(std::string(status.message()));
    const bool is_hash =
        digits.size() == 2 * sizeof(KeyHash) && std::all_of(digits.begin(), digits.end(), absl::ascii_isxdigit);
    if (!is_hash || !more.empty()) {
      return wrong(
          "expected TENANT and the SHA-256 of its key in 64 hexadecimal digits (updraft keys writes such lines), "
          "found something else");
    }
    ApiKey key{std::move(tenant)};
    const std::string bytes = absl::HexStringToBytes(digits);
    std::copy(bytes.begin(), bytes.end(), key.hash.begin());
    const auto [other, is_new] = lines.emplace(key.hash, n);
    if (!is_new)
      return wrong(absl::StrFormat("expected another key than that of line %d, found the same", other->second));
    if (keys.size() == kMaxApiKeys) return wrong(absl::StrFormat("expected at most %d keys, found more", kMaxApiKeys));
    keys.push_back(std::move(key));
  }
  if (keys.empty()) return absl::InvalidArgumentError("expected at least one key, found none: nobody could ask");
  return keys;
}

absl::StatusOr<std::string> ReadSecretFile(const std::string& path) {
  const auto wrong = [&path](const std::string& what) {
    return absl::InvalidArgumentError(absl::StrFormat("'%s': %s", path, what));
  };
  // What is looked at is what is read; a pipe that nobody writes would keep everybody waiting.
  const int fd = open(path.c_str(), O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (fd < 0) return wrong(absl::StrCat("cannot be read: ", std::strerror(errno)));
  const absl::Cleanup close_it = [fd] { close(fd); };
  struct stat found = {};
  if (fstat(fd, &found) != 0 || !S_ISREG(found.st_mode)) return wrong("expected a file, found something else");
  if ((found.st_mode & (S_IROTH | S_IWOTH)) != 0) {
    return wrong(absl::StrFormat("expected a file that not everybody may read or write, found mode %03o; chmod 600 %s",
                                 found.st_mode & 0777, path));
  }
  if (found.st_size > static_cast<off_t>(kMaxFileBytes)) {
    return wrong(absl::StrFormat("expected at most %d bytes, found %d", kMaxFileBytes, found.st_size));
  }
  std::string text(kMaxFileBytes + 1, '\0');
  size_t n_bytes = 0;
  for (ssize_t n = 1; n > 0 && n_bytes < text.size(); n_bytes += static_cast<size_t>(std::max<ssize_t>(n, 0))) {
    n = read(fd, text.data() + n_bytes, text.size() - n_bytes);
    if (n < 0) return wrong(absl::StrCat("cannot be read: ", std::strerror(errno)));
  }
  text.resize(n_bytes);
  return text;
}

ApiKeys::Stamp ApiKeys::StampOf(const std::string& path) {
  struct stat found = {};
  if (stat(path.c_str(), &found) != 0) return {};
  return {.device = static_cast<int64_t>(found.st_dev),
          .inode = static_cast<int64_t>(found.st_ino),
          .bytes = found.st_size,
          .mode = found.st_mode,
          .written_s = found.st_mtim.tv_sec,
          .written_ns = found.st_mtim.tv_nsec,
          .changed_s = found.st_ctim.tv_sec,
          .changed_ns = found.st_ctim.tv_nsec};
}

absl::StatusOr<std::shared_ptr<const ApiKeys>> ApiKeys::Load(const std::string& path) {
  std::shared_ptr<ApiKeys> made(new ApiKeys(path));
  const Stamp stamp = StampOf(path);
  const auto text = ReadSecretFile(path);
  if (!text.ok()) return absl::InvalidArgumentError(absl::StrCat("api_keys: ", std::string(text.status().message())));
  auto keys = ParseApiKeys(*text);
  if (!keys.ok()) {
    return absl::InvalidArgumentError(
        absl::StrFormat("api_keys: '%s': %s", path, std::string(keys.status().message())));
  }
  MutexLock lock(made->mu_);
  made->keys_ = std::make_shared<const std::vector<ApiKey>>(*std::move(keys));
  made->stamp_ = stamp;
  made->looked_ = SteadyNow();
  return made;
}

ApiKeys::Keys ApiKeys::Current() const {
  const SteadyTime now = SteadyNow();
  {
    MutexLock lock(mu_);
    if (now - looked_ < kLookInterval) return keys_;
    looked_ = now;
  }
  // Not under the lock: others go on by what there is.
  const Stamp stamp = StampOf(path_);
  {
    MutexLock lock(mu_);
    if (stamp == stamp_) return keys_;
  }
  const auto text = ReadSecretFile(path_);
  auto keys = text.ok() ? ParseApiKeys(*text) : text.status();
  std::string said;
  MutexLock lock(mu_);
  if (keys.ok()) {
    keys_ = std::make_shared<const std::vector<ApiKey>>(*std::move(keys));
    stamp_ = stamp;  // what cannot be read is tried again
    problem_.clear();
    LogEvent(LogLevel::kInfo, "api-keys", {{"path", path_}, {"keys", keys_->size()}});
  } else if (said = std::string(keys.status().message()); said != problem_) {
    problem_ = said;
    LogEvent(LogLevel::kError, "api-keys", {{"path", path_}, {"problem", said}, {"kept", keys_->size()}});
  }
  return keys_;
}

absl::StatusOr<std::string> ApiKeys::TenantOf(std::string_view key) const {
  const KeyHash hash = HashOfKey(key);
  const Keys keys = Current();
  // All of them, each to its end: how long it takes says nothing of how near a guess came.
  const ApiKey* whose = nullptr;
  for (const ApiKey& known : *keys) {
    if (CRYPTO_memcmp(known.hash.data(), hash.data(), hash.size()) == 0) whose = &known;
  }
  if (whose == nullptr || key.empty()) return Unknown(!key.empty());
  return whose->tenant;
}

absl::StatusOr<std::string> ApiKeys::TenantOfAuthorization(std::string_view authorization) const {
  constexpr std::string_view kScheme = "bearer ";
  const bool is_bearer = authorization.size() > kScheme.size() &&
                         absl::AsciiStrToLower(std::string(authorization.substr(0, kScheme.size()))) == kScheme;
  if (!is_bearer) return TenantOf("");
  std::string key(authorization.substr(kScheme.size()));
  absl::StripAsciiWhitespace(&key);
  return TenantOf(key);
}

absl::StatusOr<std::string> TenantBelow(const std::string& tenant, const std::string& asked) {
  if (asked.empty() || asked == tenant) return tenant;
  std::string below = absl::StrCat(tenant, "/", asked);
  if (absl::Status status = CheckId("tenant", below); !status.ok()) return status;
  return below;
}

}  // namespace updraft
