// Packed weights on disk: the same weights whether they are packed or read, and whatever the file holds.
#include "common/model/packed_file.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <set>
#include <thread>

#include "tests/common/model/test_models.h"
#include "tests/files.h"

namespace updraft {
namespace {

namespace fs = std::filesystem;
using kernels::DType;
using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using testing::ReadAll;
using testing::WriteAll;
using Outcome = PackedCacheUse::Outcome;

class PackedFileTest : public ::testing::Test {
 protected:
  void SetUp() override {
    static int counter = 0;
    folder_ = ::testing::TempDir() + "updraft_packed_" + std::to_string(getpid()) + "_" + std::to_string(counter++);
    cache_ = folder_ + "/cache";
    fs::create_directories(folder_);
    model_path_ = folder_ + "/a model.gguf";
    Synth(model_path_, DType::kQ8_0);
    expected_ = LogitsOf(*Load(""));
  }
  void TearDown() override { fs::remove_all(folder_); }

  static void Synth(const std::string& path, DType type, uint64_t seed = 1) {
    const absl::Status status =
        Synthesize(testing::Shape("tiny-llama"), type, path, {.seed = seed, .n_threads = 1, .head_type = type});
    ASSERT_TRUE(status.ok()) << status;
  }

  std::unique_ptr<Model> Load(const std::string& cache, int n_threads = 1) const {
    auto model = Model::Load(model_path_, {.n_threads = n_threads, .packed_cache = cache});
    EXPECT_TRUE(model.ok()) << model.status();
    return *std::move(model);
  }

  static std::vector<float> LogitsOf(const Model& model) {
    return testing::LogitsOf(model, testing::HiddenOf(model, testing::RandomTokens(9, model.config().n_vocab, 5)));
  }

  // Loads; the weights must be those of the model file whatever happens.
  PackedCacheUse Use(int n_threads = 1) const {
    const auto model = Load(cache_, n_threads);
    EXPECT_EQ(LogitsOf(*model), expected_);
    return model->packed_cache();
  }

  // Damages the file that is there: it must be found out, said and repaired.
  void ExpectRepaired(const std::string& bytes, const std::string& says) const {
    const std::string path = Use().path;
    const std::string good = ReadAll(path);
    ASSERT_NE(bytes, good);
    WriteAll(path, bytes);
    const PackedCacheUse use = Use();
    EXPECT_EQ(use.outcome, Outcome::kWritten);
    EXPECT_THAT(use.warnings, ElementsAre(::testing::AllOf(HasSubstr(path), HasSubstr(says), HasSubstr("replaced"))));
    EXPECT_EQ(ReadAll(path), good);
    EXPECT_EQ(Use().outcome, Outcome::kRead);
  }

  std::string Good() const { return ReadAll(Use().path); }

  std::vector<std::string> Cached() const {
    std::vector<std::string> names;
    for (const auto& entry : fs::directory_iterator(cache_)) names.push_back(entry.path().filename().string());
    return names;
  }

  std::string folder_, cache_, model_path_;
  std::vector<float> expected_;
};

TEST_F(PackedFileTest, WrittenOnceAndReadAfterwards) {
  const PackedCacheUse first = Use();
  EXPECT_EQ(first.outcome, Outcome::kWritten);
  EXPECT_THAT(first.warnings, IsEmpty());
  EXPECT_THAT(first.path, ::testing::MatchesRegex(".*/cache/a_model-[0-9a-f]{16}-[0-9]+\\.packed"));
  for (const int n_threads : {1, 3}) {
    const PackedCacheUse later = Use(n_threads);
    EXPECT_EQ(later.outcome, Outcome::kRead);
    EXPECT_EQ(later.path, first.path);
    EXPECT_THAT(later.warnings, IsEmpty());
  }
  EXPECT_EQ(Cached().size(), 1u);
}

TEST_F(PackedFileTest, WithoutAFolderNothingIsWritten) {
  const auto model = Load("");
  EXPECT_EQ(model->packed_cache().outcome, Outcome::kOff);
  EXPECT_FALSE(fs::exists(cache_));
}

TEST_F(PackedFileTest, WeightsThatAreReadInPlaceNeedNoFile) {
  Synth(model_path_, DType::kF32);
  const auto model = Load(cache_);
  EXPECT_EQ(model->packed_cache().outcome, Outcome::kOff);
  EXPECT_FALSE(fs::exists(cache_));
}

TEST_F(PackedFileTest, AFileThatSaysItIsAnotherIsReplaced) {
  struct Case {
    size_t at;
    const char* says;
  };
  for (const Case& c : {Case{0, "expected the letters UPDRPACK"}, Case{8, "format version: expected 1, found"},
                        Case{12, "layout of the weights: expected"}, Case{16, "bytes of the model's file: expected"},
                        Case{24, "modification time of the model's file"}, Case{32, "SHA-256 of the model: expected"},
                        Case{63, "SHA-256 of the model: expected"}, Case{64, "number of tensors: expected 15, found"},
                        Case{71, "number of tensors: expected 15, found"}, Case{75, "tensor 'blk.0.attn_q.weight'"},
                        Case{80, "tensor 'blk.0.attn_q.weight'"}}) {
    SCOPED_TRACE(c.at);
    std::string bytes = Good();
    bytes[c.at] = static_cast<char>(~bytes[c.at]);
    ExpectRepaired(bytes, c.says);
  }
}

// Bytes all over the head and the weights, but for the padding, which nobody reads.
TEST_F(PackedFileTest, EveryDamagedByteIsFound) {
  const std::string good = Good();
  const std::string path = Use().path;
  const size_t head = 72 + 15 * (4 + 4 + 32) + 16 * 16;  // at least: names come on top
  for (size_t at = 0; at < good.size(); at += at < head ? 3 : 4093) {
    std::string bytes = good;
    bytes[at] = static_cast<char>(bytes[at] ^ 0x10);
    WriteAll(path, bytes);
    const PackedCacheUse use = Use();
    if (use.outcome == Outcome::kRead) {
      // A change of padding: zeros stand there, between the head or a matrix and the next multiple of 4,096.
      EXPECT_EQ(good[at], 0) << at;
      EXPECT_GT(at, head);
    } else {
      EXPECT_EQ(use.outcome, Outcome::kWritten) << at;
      EXPECT_EQ(use.warnings.size(), 1u) << at;
    }
  }
}

TEST_F(PackedFileTest, DamageNamesTheTensor) {
  std::string bytes = Good();
  bytes.back() = static_cast<char>(~bytes.back());
  ExpectRepaired(bytes, "tensor 'output.weight': expected checksum");
  bytes = Good();
  bytes[4096] = static_cast<char>(~bytes[4096]);
  ExpectRepaired(bytes, "tensor 'blk.0.attn_q.weight': expected checksum");
  bytes = Good();
  std::memset(bytes.data() + bytes.size() / 2, 0, bytes.size() / 2);  // as a torn write leaves it
  ExpectRepaired(bytes, "expected checksum");
}

TEST_F(PackedFileTest, ALengthThatIsWrongIsFound) {
  const std::string good = Good();
  ExpectRepaired("", "expected the letters");
  ExpectRepaired(good.substr(0, 10), "layout of the weights");
  ExpectRepaired(good.substr(0, 64), "number of tensors");
  for (const size_t bytes : {size_t{800}, size_t{4096}, good.size() / 2, good.size() - 1}) {
    ExpectRepaired(good.substr(0, bytes), bytes == 800 ? "tensor '" : "bytes, found " + std::to_string(bytes));
  }
  ExpectRepaired(good + '\0', "bytes, found " + std::to_string(good.size() + 1));
}

TEST_F(PackedFileTest, TheFileOfAnotherModelIsNotUsed) {
  const std::string path = Use().path;
  const std::string first_model = model_path_;
  const std::vector<float> first_logits = expected_;
  model_path_ = folder_ + "/other.gguf";
  Synth(model_path_, DType::kQ8_0, 2);
  fs::last_write_time(model_path_, fs::last_write_time(first_model));
  expected_ = LogitsOf(*Load(""));
  ASSERT_NE(expected_, first_logits);
  const std::string others = Good();
  EXPECT_NE(Use().path, path);
  model_path_ = first_model;
  expected_ = first_logits;
  ExpectRepaired(others, "SHA-256 of the model");
}

TEST_F(PackedFileTest, AModelThatWasTouchedOrReplacedIsPackedAgain) {
  const std::string path = Use().path;
  fs::last_write_time(model_path_, fs::last_write_time(model_path_) + std::chrono::nanoseconds(1000));
  PackedCacheUse use = Use();
  EXPECT_EQ(use.outcome, Outcome::kWritten);
  EXPECT_NE(use.path, path);
  EXPECT_THAT(use.warnings, IsEmpty());
  Synth(model_path_, DType::kQ8_0, 7);
  expected_ = LogitsOf(*Load(""));
  use = Use();
  EXPECT_EQ(use.outcome, Outcome::kWritten);
  EXPECT_NE(use.path, path);
}

// Of each matrix one block alone, at either end or in the middle, so that the whole matrix need not change for it.
TEST_F(PackedFileTest, AChangedMatrixIsNoticedThoughTheTimeIsKept) {
  SynthShape shape = testing::Shape("tiny-llama");
  shape.d_ff = 2048;  // matrices larger than their samples
  ASSERT_TRUE(
      Synthesize(shape, DType::kQ8_0, model_path_, {.seed = 1, .n_threads = 1, .head_type = DType::kQ8_0}).ok());
  const std::string original = ReadAll(model_path_);
  const auto time = fs::last_write_time(model_path_);
  expected_ = LogitsOf(*Load(""));
  EXPECT_EQ(Use().outcome, Outcome::kWritten);
  const std::vector<float> before = expected_;
  const gguf::File file = gguf::File::Open(model_path_).value();
  for (const char* name : {"blk.0.attn_q.weight", "blk.0.ffn_up.weight", "blk.1.ffn_down.weight"}) {
    const std::span<const std::byte> data = file.FindTensor(name)->data;
    const auto begin = static_cast<size_t>(data.data() - file.parts()[0].bytes.data());
    for (const size_t at : {size_t{2}, data.size() / 2, data.size() - 30}) {
      SCOPED_TRACE(name + (" " + std::to_string(at)));
      std::string bytes = original;
      for (size_t i = 0; i < 28; ++i) bytes[begin + at + i] = static_cast<char>(~bytes[begin + at + i]);
      fs::remove(model_path_);  // `file` and `data` keep showing the original
      WriteAll(model_path_, bytes);
      fs::last_write_time(model_path_, time);
      expected_ = LogitsOf(*Load(""));
      EXPECT_NE(expected_, before);
      EXPECT_EQ(Use().outcome, Outcome::kWritten);
      EXPECT_EQ(Use().outcome, Outcome::kRead);
    }
  }
}

TEST_F(PackedFileTest, CopiesOfAModelTakeTurnsWithoutRewriting) {
  const std::string first = Use().path;
  const std::string original = model_path_;
  fs::create_directory(folder_ + "/copy");
  model_path_ = folder_ + "/copy/a model.gguf";
  fs::copy_file(original, model_path_);
  fs::last_write_time(model_path_, fs::last_write_time(original) + std::chrono::seconds(1));
  EXPECT_EQ(Use().outcome, Outcome::kWritten);
  EXPECT_NE(Use().path, first);
  for (const std::string& path : {original, model_path_}) {
    model_path_ = path;
    const PackedCacheUse use = Use();
    EXPECT_EQ(use.outcome, Outcome::kRead);
    EXPECT_THAT(use.warnings, IsEmpty());
  }
  EXPECT_EQ(Cached().size(), 2u);
}

TEST_F(PackedFileTest, LayoutsHaveFilesOfTheirOwn) {
  const gguf::File file = gguf::File::Open(model_path_).value();
  std::set<std::string> paths;
  for (const uint32_t layout : {1u, 2u, 3u}) {
    auto plan = PackedFilePlan::Create(cache_, file, layout, {{"x", DType::kQ8_0, 32, 32, 1088}});
    ASSERT_TRUE(plan.ok()) << plan.status();
    paths.insert((*plan)->path());
  }
  EXPECT_EQ(paths.size(), 3u);
}

TEST_F(PackedFileTest, AFolderThatCannotBeWrittenIsAWarning) {
  WriteAll(cache_, "a file in place of the folder");
  PackedCacheUse use = Use();
  EXPECT_EQ(use.outcome, Outcome::kFailed);
  ASSERT_FALSE(use.warnings.empty());
  EXPECT_THAT(use.warnings.back(), HasSubstr(cache_));
  fs::remove(cache_);

  fs::create_directory(cache_, folder_);
  fs::permissions(cache_, fs::perms::owner_read | fs::perms::owner_exec | fs::perms::group_read |
                              fs::perms::group_exec | fs::perms::others_read | fs::perms::others_exec);
  const uid_t user = geteuid();
  const bool is_root = user == 0;  // permissions mean nothing to root
  ASSERT_EQ(is_root ? seteuid(65534) : 0, 0);
  use = Use();
  ASSERT_EQ(is_root ? seteuid(user) : 0, 0);
  EXPECT_EQ(use.outcome, Outcome::kFailed);
  EXPECT_THAT(use.warnings, ElementsAre(::testing::AllOf(HasSubstr("Permission denied"), HasSubstr("packed"))));
  EXPECT_THAT(Cached(), IsEmpty());
}

TEST_F(PackedFileTest, WhatIsNoFileIsLeftAlone) {
  const std::string path = Use().path;
  fs::remove(path);
  const std::function<void()> makers[] = {[&] { fs::create_directory(path); },
                                          [&] { ASSERT_EQ(mkfifo(path.c_str(), 0600), 0); }};
  for (const auto& make : makers) {
    make();
    const PackedCacheUse use = Use();
    EXPECT_EQ(use.outcome, Outcome::kFailed);
    EXPECT_THAT(use.warnings, ElementsAre(HasSubstr("regular file"), HasSubstr("regular file")));
    EXPECT_TRUE(fs::exists(path));
    fs::remove(path);
  }
}

TEST_F(PackedFileTest, LinksAreNeitherReadNorFollowed) {
  const std::string path = Use().path;
  const std::string elsewhere = folder_ + "/elsewhere";
  for (const std::string& content : {ReadAll(path), std::string("of somebody else")}) {
    WriteAll(elsewhere, content);
    fs::permissions(elsewhere, fs::perms::owner_all);
    fs::remove(path);
    fs::create_symlink(elsewhere, path);
    const PackedCacheUse use = Use();
    EXPECT_EQ(use.outcome, Outcome::kFailed);
    EXPECT_THAT(use.warnings, ElementsAre(HasSubstr("found a link"), HasSubstr("found a link; remove it")));
    EXPECT_TRUE(fs::is_symlink(path));
    EXPECT_EQ(ReadAll(elsewhere), content);
    EXPECT_EQ(fs::status(elsewhere).permissions(), fs::perms::owner_all);
  }
}

TEST_F(PackedFileTest, APrivateModelHasAPrivateFile) {
  const mode_t mask = umask(022);
  for (const mode_t mode : {0600u, 0640u, 0644u, 0444u}) {
    ASSERT_EQ(chmod(model_path_.c_str(), mode), 0);
    fs::remove_all(cache_);
    struct stat facts;
    ASSERT_EQ(stat(Use().path.c_str(), &facts), 0);
    EXPECT_EQ(facts.st_mode & 0777, mode);
    EXPECT_EQ(Use().outcome, Outcome::kRead);
  }
  umask(mask);
}

TEST_F(PackedFileTest, WhatAKilledLoadLeftIsRemoved) {
  const std::string path = Use().path;
  fs::remove(path);
  WriteAll(path + ".tmp.1.0", "half a file");
  EXPECT_EQ(Use().outcome, Outcome::kWritten);
  EXPECT_THAT(Cached(), ElementsAre(fs::path(path).filename().string()));
}

TEST_F(PackedFileTest, AFullDiskIsAWarningAndLeavesNothing) {
  rlimit before;
  ASSERT_EQ(getrlimit(RLIMIT_FSIZE, &before), 0);
  const rlimit small{4096, before.rlim_max};
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &small), 0);
  const PackedCacheUse use = Use();
  ASSERT_EQ(setrlimit(RLIMIT_FSIZE, &before), 0);
  EXPECT_EQ(use.outcome, Outcome::kFailed);
  EXPECT_THAT(use.warnings, ElementsAre(::testing::AllOf(HasSubstr("may only write 4096"), HasSubstr("ulimit -f"))));
  EXPECT_THAT(Cached(), IsEmpty());
  EXPECT_EQ(Use().outcome, Outcome::kWritten);
}

TEST_F(PackedFileTest, LoadsAtTheSameTimeAllEndWell) {
  std::vector<std::thread> threads;
  for (int i = 0; i < 4; ++i) {
    threads.emplace_back([this] {
      for (int round = 0; round < 3; ++round) EXPECT_THAT(Use().warnings, IsEmpty());
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(Cached().size(), 1u);
  EXPECT_EQ(Use().outcome, Outcome::kRead);
}

TEST_F(PackedFileTest, ProcessesThatLoadAtTheSameTimeAllEndWell) {
  std::vector<pid_t> children;
  for (int i = 0; i < 3; ++i) {
    children.push_back(fork());
    ASSERT_GE(children.back(), 0);
    if (children.back() > 0) continue;
    bool ok = true;
    for (int round = 0; round < 3; ++round) {
      auto model = Model::Load(model_path_, {.n_threads = 1, .packed_cache = cache_});
      ok = ok && model.ok() && (*model)->packed_cache().warnings.empty() && LogitsOf(**model) == expected_;
    }
    _exit(ok ? 0 : 1);
  }
  for (const pid_t child : children) {
    int status = -1;
    ASSERT_EQ(waitpid(child, &status, 0), child);
    EXPECT_EQ(status, 0);
  }
  EXPECT_EQ(Cached().size(), 1u);
  EXPECT_EQ(Use().outcome, Outcome::kRead);
}

TEST_F(PackedFileTest, ProgressEndsOnceAtTheWhole) {
  for (const char* round : {"packed", "read"}) {
    SCOPED_TRACE(round);
    uint64_t last = 0, whole = 0;
    int n_ends = 0;
    LoadOptions options{.n_threads = 1, .packed_cache = cache_};
    options.on_progress = [&](uint64_t done, uint64_t total) {
      EXPECT_LE(last, done);
      EXPECT_LE(done, total);
      EXPECT_EQ(n_ends, 0);
      last = done;
      whole = total;
      n_ends += done == total;
    };
    ASSERT_TRUE(Model::Load(model_path_, options).ok());
    EXPECT_EQ(n_ends, 1);
    EXPECT_EQ(last, whole);
    EXPECT_GT(whole, 0u);
  }
  int n_calls = 0;
  LoadOptions options{.n_threads = 1};
  options.on_progress = [&](uint64_t, uint64_t) { ++n_calls; };
  WriteAll(model_path_, "no model");
  EXPECT_FALSE(Model::Load(model_path_, options).ok());
  EXPECT_EQ(n_calls, 0);
}

}  // namespace
}  // namespace updraft
