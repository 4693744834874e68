#include "common/serving/api_keys.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <fstream>
#include <set>
#include <string>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace updraft {
namespace {

using ::testing::HasSubstr;

// Of FIPS 180-2's example "abc".
constexpr char kHashOfAbc[] = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

class KeyFile {
 public:
  explicit KeyFile(const std::string& text, mode_t mode = 0600)
      : path_(absl::StrCat(::testing::TempDir(), "updraft_keys_", getpid())) {
    Write(text, mode);
  }
  ~KeyFile() { std::remove(path_.c_str()); }
  // As another file under the same name, as editors do.
  void Write(const std::string& text, mode_t mode = 0600) {
    std::remove(path_.c_str());
    std::ofstream(path_) << text;
    chmod(path_.c_str(), mode);
  }
  const std::string& path() const { return path_; }

 private:
  const std::string path_;
};

TEST(ApiKeysTest, LinesAreTenantsAndHashes) {
  EXPECT_EQ(LineOfKey({"ann", HashOfKey("abc")}), absl::StrCat("ann ", kHashOfAbc));
  const std::string of_b = LineOfKey({"", HashOfKey("b")}).substr(1);
  const auto keys = ParseApiKeys(absl::StrCat("# who may ask\n\nann ", kHashOfAbc, "\r\n  bob\t", of_b, "\n"));
  ASSERT_TRUE(keys.ok()) << keys.status();
  ASSERT_EQ(keys->size(), 2u);
  EXPECT_EQ((*keys)[0].tenant, "ann");
  EXPECT_EQ((*keys)[1].tenant, "bob");
  EXPECT_EQ((*keys)[1].hash, HashOfKey("b"));
}

TEST(ApiKeysTest, WhatIsWrongIsSaidWithItsLine) {
  const auto error = [](const std::string& text) { return std::string(ParseApiKeys(text).status().message()); };
  EXPECT_THAT(error(""), HasSubstr("at least one key"));
  EXPECT_THAT(error("# none\n"), HasSubstr("at least one key"));
  EXPECT_THAT(error("\nann\n"), HasSubstr("line 2: expected TENANT and the SHA-256"));
  EXPECT_THAT(error(absl::StrCat("ann ", kHashOfAbc, "\nbob ", kHashOfAbc)), HasSubstr("line 2: expected another key"));
  EXPECT_THAT(error("ann sk-not-hashed"), HasSubstr("line 1: expected"));
  EXPECT_THAT(error(absl::StrCat("ann ", kHashOfAbc, " more")), HasSubstr("line 1: expected"));
  EXPECT_THAT(error(absl::StrCat("ann ", std::string(64, 'g'))), HasSubstr("line 1: expected"));
  EXPECT_THAT(error(absl::StrCat("a\x01n ", kHashOfAbc)), HasSubstr("line 1: tenant: "));
  EXPECT_THAT(error(absl::StrCat("ann/bob ", kHashOfAbc)), HasSubstr("has no / in it"));
  EXPECT_THAT(error(absl::StrCat(std::string(200, 'a'), " ", kHashOfAbc)), HasSubstr("line 1: tenant: "));
}

TEST(ApiKeysTest, AKeyNamesItsTenant) {
  const KeyFile file(absl::StrCat("ann ", kHashOfAbc, "\n"));
  const auto keys = ApiKeys::Load(file.path());
  ASSERT_TRUE(keys.ok()) << keys.status();
  EXPECT_EQ(*(*keys)->TenantOf("abc"), "ann");
  EXPECT_EQ(*(*keys)->TenantOfAuthorization("Bearer abc"), "ann");
  EXPECT_EQ(*(*keys)->TenantOfAuthorization("bearer  abc "), "ann");
  for (const char* wrong : {"", "ab", "abcd", "Bearer abc", kHashOfAbc}) {
    EXPECT_EQ((*keys)->TenantOf(wrong).status().code(), absl::StatusCode::kUnauthenticated) << wrong;
  }
  for (const char* wrong : {"", "abc", "Basic abc", "Bearer", "Bearer ", "Bearer abd"}) {
    EXPECT_EQ((*keys)->TenantOfAuthorization(wrong).status().code(), absl::StatusCode::kUnauthenticated) << wrong;
  }
}

TEST(ApiKeysTest, AFileThatAnybodyMayReadIsRefused) {
  const KeyFile file(absl::StrCat("ann ", kHashOfAbc, "\n"), 0644);
  const auto keys = ApiKeys::Load(file.path());
  EXPECT_EQ(keys.status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_THAT(std::string(keys.status().message()), HasSubstr("found mode 644; chmod 600"));
  const KeyFile open_to_all(absl::StrCat("ann ", kHashOfAbc, "\n"), 0622);
  EXPECT_THAT(std::string(ApiKeys::Load(open_to_all.path()).status().message()), HasSubstr("found mode 622"));
  EXPECT_THAT(std::string(ApiKeys::Load("/dev/zero").status().message()), HasSubstr("expected a file"));
  EXPECT_THAT(std::string(ApiKeys::Load("/no/such/file").status().message()), HasSubstr("api_keys: "));
}

// Within a second or so; whoever could ask still can when the new one says nothing sensible.
TEST(ApiKeysTest, AChangedFileIsReadAnew) {
  KeyFile file(absl::StrCat("ann ", kHashOfAbc, "\n"));
  const auto keys = ApiKeys::Load(file.path());
  ASSERT_TRUE(keys.ok()) << keys.status();
  const auto eventually = [&](const char* key, bool known) {
    for (int i = 0; i < 500 && (*keys)->TenantOf(key).ok() != known; ++i) absl::SleepFor(absl::Milliseconds(10));
    return (*keys)->TenantOf(key).ok() == known;
  };
  file.Write(absl::StrCat(LineOfKey({"bob", HashOfKey("new")}), "\n"));
  EXPECT_TRUE(eventually("new", true));
  EXPECT_FALSE((*keys)->TenantOf("abc").ok()) << "a key that was taken out";
  file.Write("nonsense\n");
  absl::SleepFor(absl::Milliseconds(1100));
  EXPECT_TRUE((*keys)->TenantOf("new").ok());
  // One that could not be read, and then can: its bytes and their time are as before.
  file.Write(absl::StrCat(LineOfKey({"dan", HashOfKey("fourth")}), "\n"), 0644);
  absl::SleepFor(absl::Milliseconds(1100));
  EXPECT_FALSE((*keys)->TenantOf("fourth").ok());
  chmod(file.path().c_str(), 0600);
  EXPECT_TRUE(eventually("fourth", true));
  EXPECT_FALSE((*keys)->TenantOf("new").ok());
  // One that has gone.
  std::remove(file.path().c_str());
  absl::SleepFor(absl::Milliseconds(1100));
  EXPECT_TRUE((*keys)->TenantOf("fourth").ok());
  file.Write(absl::StrCat(LineOfKey({"cid", HashOfKey("third")}), "\n"));
  EXPECT_TRUE(eventually("third", true));
}

TEST(ApiKeysTest, NewKeysAreApart) {
  std::set<std::string> keys;
  for (int i = 0; i < 1000; ++i) {
    const std::string key = *NewKey();
    EXPECT_GE(key.size(), 46u);
    EXPECT_TRUE(keys.insert(key).second);
  }
}

// A caller cannot become another tenant, only one below its own.
TEST(ApiKeysTest, TenantsAreBelowTheirKeys) {
  EXPECT_EQ(*TenantBelow("ann", ""), "ann");
  EXPECT_EQ(*TenantBelow("ann", "ann"), "ann");
  EXPECT_EQ(*TenantBelow("ann", "bob"), "ann/bob");
  EXPECT_FALSE(TenantBelow("ann", std::string(128, 'b')).ok());
}

}  // namespace
}  // namespace updraft
