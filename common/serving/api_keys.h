// Who may ask: keys of tenants. At rest they are hashes, so that whoever reads the file cannot ask.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "absl/base/thread_annotations.h"
#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/clock/steady.h"
#include "common/sync/mutex.h"

namespace updraft {

using KeyHash = std::array<uint8_t, 32>;  // SHA-256

struct ApiKey {
  std::string tenant;  // CheckTenant
  KeyHash hash = {};
};

// Of a key's tenant: an id without a slash, since a tenant's own tenants are behind one (TenantBelow).
absl::Status CheckTenant(const char* field, const std::string& tenant);

KeyHash HashOfKey(std::string_view key);
// As it stands in a file: TENANT and the hash in hexadecimal digits, without the end of the line.
std::string LineOfKey(const ApiKey& key);
// 256 random bits behind "sk-". Internal: there are none to be had.
absl::StatusOr<std::string> NewKey();

inline constexpr size_t kMaxApiKeys = 10'000;  // each is looked at for each request

// Lines of LineOfKey; empty ones and those that begin with # say nothing. A tenant may have several keys, a key one
// tenant. InvalidArgument names the line; a file without a key is one, too.
absl::StatusOr<std::vector<ApiKey>> ParseApiKeys(std::string_view text);

// A secret's file: InvalidArgument where anybody may read it, which is not one, or write it, and for what is no file.
absl::StatusOr<std::string> ReadSecretFile(const std::string& path);

// Any number of threads. The file is looked at again at most once a second, and read anew when it has changed; one that
// cannot be read any more, or says nothing sensible, is logged, and those who could ask still can.
class ApiKeys {
 public:
  // InvalidArgument says what is wrong with the file and where.
  static absl::StatusOr<std::shared_ptr<const ApiKeys>> Load(const std::string& path);

  // Whose key this is. Unauthenticated: nobody's, or none. Takes as long whichever it is.
  absl::StatusOr<std::string> TenantOf(std::string_view key) const ABSL_LOCKS_EXCLUDED(mu_);
  // Of "Bearer KEY" (RFC 6750).
  absl::StatusOr<std::string> TenantOfAuthorization(std::string_view authorization) const ABSL_LOCKS_EXCLUDED(mu_);

 private:
  struct Stamp {  // of a file, as far as a change of it shows
    int64_t device = 0, inode = 0, bytes = 0, mode = 0;
    int64_t written_s = 0, written_ns = 0, changed_s = 0, changed_ns = 0;  // its bytes; what else there is to it, too
    bool operator==(const Stamp&) const = default;
  };
  using Keys = std::shared_ptr<const std::vector<ApiKey>>;

  explicit ApiKeys(std::string path) : path_(std::move(path)) {}
  static Stamp StampOf(const std::string& path);
  Keys Current() const ABSL_LOCKS_EXCLUDED(mu_);

  const std::string path_;
  mutable Mutex mu_;
  mutable Keys keys_ ABSL_GUARDED_BY(mu_);
  mutable Stamp stamp_ ABSL_GUARDED_BY(mu_);  // of what was read last
  mutable SteadyTime looked_ ABSL_GUARDED_BY(mu_);
  mutable std::string problem_ ABSL_GUARDED_BY(mu_);  // that was logged last
};

// What a request's own wish for a tenant becomes for whom a key has named: nothing, or one below it. InvalidArgument:
// too long together.
absl::StatusOr<std::string> TenantBelow(const std::string& tenant, const std::string& asked);

}  // namespace updraft
