#include "common/model/packed_file.h"

#include <fcntl.h>
#include <openssl/core_names.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <new>
#include <string_view>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/files/atomic_file.h"

namespace updraft {
namespace {

constexpr char kMagic[] = "UPDRPACK";
constexpr uint32_t kFormatVersion = 1;
constexpr size_t kFormatAt = 8, kLayoutAt = 12, kSizeAt = 16, kTimeAt = 24, kHashAt = 32, kCountAt = 64, kTableAt = 72;
constexpr size_t kHashBytes = 32;
constexpr size_t kNameHashBytes = 8;
constexpr size_t kChecksumBytes = 16;
constexpr size_t kPage = 4096;
constexpr size_t kMaxStem = 100;  // of a name, which file systems allow 255 bytes

// Three of each tensor of the source. All of it would have to be read from storage, which takes longer than the packed
// file itself.
constexpr size_t kSampleBytes = 4096;

// Poly1305 under a fixed key: the fastest checksum that OpenSSL has, about memory's own speed. Empty when it refuses.
std::string Checksum(std::span<const uint8_t> bytes) {
  static EVP_MAC* const poly1305 = EVP_MAC_fetch(nullptr, "POLY1305", nullptr);
  if (poly1305 == nullptr) return "";
  EVP_MAC_CTX* context = EVP_MAC_CTX_new(poly1305);
  const absl::Cleanup free_context = [context] { EVP_MAC_CTX_free(context); };
  constexpr std::string_view kKey = "updraft: packed weights checksum";
  static_assert(kKey.size() == 32);
  std::string sum(kChecksumBytes, '\0');
  size_t n = 0;
  const bool ok =
      context != nullptr &&
      EVP_MAC_init(context, reinterpret_cast<const unsigned char*>(kKey.data()), kKey.size(), nullptr) == 1 &&
      EVP_MAC_update(context, bytes.data(), bytes.size()) == 1 &&
      EVP_MAC_final(context, reinterpret_cast<unsigned char*>(sum.data()), &n, sum.size()) == 1;
  return ok && n == kChecksumBytes ? sum : "";
}

std::string Checksum(const std::string& bytes) {
  return Checksum({reinterpret_cast<const uint8_t*>(bytes.data()), bytes.size()});
}

// Of a matrix: the checksum of its pieces' checksums, so that threads can work on pieces.
class PieceSums {
 public:
  explicit PieceSums(size_t bytes)
      : sums_((bytes + kernels::kPackedPiece - 1) / kernels::kPackedPiece * kChecksumBytes, '\0') {}
  // offset: a multiple of kPackedPiece. Different pieces from different threads.
  bool Add(size_t offset, std::span<const uint8_t> piece) {
    const std::string sum = Checksum(piece);
    if (sum.empty()) return false;
    std::memcpy(sums_.data() + offset / kernels::kPackedPiece * kChecksumBytes, sum.data(), kChecksumBytes);
    return true;
  }
  std::string Total() const { return Checksum(sums_); }

 private:
  std::string sums_;
};

std::string ChecksumInPieces(std::span<const uint8_t> bytes) {
  PieceSums sums(bytes.size());
  for (size_t at = 0; at < bytes.size(); at += kernels::kPackedPiece) {
    if (!sums.Add(at, bytes.subspan(at, std::min(kernels::kPackedPiece, bytes.size() - at)))) return "";
  }
  return sums.Total();
}

template <typename T>
void Put(T value, std::string& out) {
  for (size_t i = 0; i < sizeof(T); ++i)
    out.push_back(static_cast<char>(static_cast<uint64_t>(value) >> (8 * i) & 0xff));
}

// bytes holds at least at + sizeof(T).
template <typename T>
T Get(const std::string& bytes, size_t at) {
  uint64_t value = 0;
  for (size_t i = 0; i < sizeof(T); ++i) value |= uint64_t{static_cast<unsigned char>(bytes[at + i])} << (8 * i);
  return static_cast<T>(value);
}

// SHA-256 of what was added; empty when OpenSSL refuses.
class Sha256 {
 public:
  Sha256() : context_(EVP_MD_CTX_new()) {
    ok_ = context_ != nullptr && EVP_DigestInit_ex(context_, EVP_sha256(), nullptr) == 1;
  }
  ~Sha256() { EVP_MD_CTX_free(context_); }
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void Add(std::span<const std::byte> bytes) {
    ok_ = ok_ && EVP_DigestUpdate(context_, bytes.data(), bytes.size()) == 1;
  }
  void Add(const std::string& bytes) { Add(std::as_bytes(std::span(bytes))); }
  std::string Finish() {
    std::string hash(kHashBytes, '\0');
    unsigned int n = 0;
    ok_ = ok_ && EVP_DigestFinal_ex(context_, reinterpret_cast<unsigned char*>(hash.data()), &n) == 1;
    return ok_ && n == kHashBytes ? hash : "";
  }

 private:
  EVP_MD_CTX* const context_;
  bool ok_ = false;
};

// Of the size, of everything before the tensors' data, and of samples of every tensor: its beginning, middle and end;
// all of a small one. So a tensor in another's place is noticed, whichever it is.
std::string SourceHash(const gguf::File& file) {
  Sha256 hash;
  std::string size;
  Put(file.file_bytes(), size);
  hash.Add(size);
  for (const gguf::File::Part& part : file.parts()) {
    hash.Add(part.bytes.first(std::min<size_t>(part.data_offset, part.bytes.size())));
  }
  for (const gguf::TensorInfo& tensor : file.tensors()) {
    const std::span<const std::byte> data = tensor.data;
    if (data.size() <= 3 * kSampleBytes) {
      hash.Add(data);
      continue;
    }
    hash.Add(data.first(kSampleBytes));
    hash.Add(data.subspan((data.size() - kSampleBytes) / 2, kSampleBytes));
    hash.Add(data.last(kSampleBytes));
  }
  return hash.Finish();
}

// The model's file name as a part of another one: no slashes, no surprises for shells.
std::string SafeStem(const std::string& path) {
  std::string stem = std::filesystem::path(path).stem().string().substr(0, kMaxStem);
  for (char& c : stem) {
    if (!absl::ascii_isalnum(static_cast<unsigned char>(c)) && c != '-' && c != '_' && c != '.') c = '_';
  }
  return stem.empty() || stem[0] == '.' ? "model" + stem : stem;
}

// Files that differ in any of these have different names, so that none is written over another in turns: copies of a
// model with times of their own, and programs with different layouts.
std::string FileName(const gguf::File& file, uint32_t layout, const std::string& source_hash) {
  std::string facts;
  Put(kFormatVersion, facts);
  Put(file.modified_ns(), facts);
  Sha256 hash;
  hash.Add(source_hash);
  hash.Add(facts);
  return absl::StrFormat("%s-%s-%d.packed", SafeStem(file.path()),
                         absl::BytesToHexString(hash.Finish().substr(0, kNameHashBytes)), layout);
}

enum class ReadResult { kOk, kEnd, kError };  // kError: errno says which

ReadResult ReadAt(int fd, uint64_t offset, std::span<uint8_t> to) {
  while (!to.empty()) {
    const ssize_t n = pread(fd, to.data(), to.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n < 0) return ReadResult::kError;
    if (n == 0) return ReadResult::kEnd;
    offset += static_cast<uint64_t>(n);
    to = to.subspan(static_cast<size_t>(n));
  }
  return ReadResult::kOk;
}

// Pieces of one matrix in the file, with their checksums on the way.
class FileSource : public kernels::PackedSource {
 public:
  FileSource(int fd, uint64_t offset, size_t bytes) : fd_(fd), offset_(offset), sums_(bytes) {}

  bool Read(size_t offset, std::span<uint8_t> to) override {
    const ReadResult result = ReadAt(fd_, offset_ + offset, to);
    if (result == ReadResult::kOk) return AddSum(offset, to);
    error_ = result == ReadResult::kEnd ? -1 : errno;
    return false;
  }

  std::string Checksum() const { return sums_.Total(); }
  std::string Trouble() const {
    const int error = error_;
    return error == 0 ? "OpenSSL refused" : error < 0 ? "the file ended" : std::strerror(error);
  }

 private:
  bool AddSum(size_t offset, std::span<const uint8_t> piece) {
    try {
      return sums_.Add(offset, piece);
    } catch (const std::bad_alloc&) {  // leaving a thread of the pool it would end the process
      error_ = ENOMEM;
      return false;
    }
  }

  const int fd_;
  const uint64_t offset_;
  PieceSums sums_;
  std::atomic<int> error_ = 0;  // errno; -1: the file's end
};

absl::Status NoChecksums() {
  return absl::InternalError("packed weights: OpenSSL refuses SHA-256 or Poly1305; see its configuration");
}

}  // namespace

// ---- PackedFile ---------------------------------------------------------------------------------------------------

PackedFile::PackedFile(PackedFile&& other) noexcept
    : fd_(std::exchange(other.fd_, -1)), plan_(other.plan_), checksums_(std::move(other.checksums_)) {}

PackedFile::~PackedFile() {
  if (fd_ >= 0) close(fd_);
}

absl::StatusOr<std::unique_ptr<kernels::PackedMatrix>> PackedFile::Read(size_t i, kernels::Ops& ops) const {
  const PackedEntry& entry = plan_->entries_[i];
  FileSource source(fd_, plan_->contents_at_[i], entry.bytes);
  auto matrix = ops.FromPacked(entry.type, entry.n_out, entry.n_in, source);
  if (matrix == nullptr) {
    return plan_->Damaged(absl::StrFormat("tensor '%s': expected %d bytes at %d, found that they cannot be read: %s",
                                          entry.name, entry.bytes, plan_->contents_at_[i], source.Trouble()));
  }
  const std::string found = source.Checksum();
  if (found != checksums_[i]) {
    return plan_->Damaged(absl::StrFormat("tensor '%s': expected checksum %s, found %s", entry.name,
                                          absl::BytesToHexString(checksums_[i]), absl::BytesToHexString(found)));
  }
  return matrix;
}

// ---- PackedFilePlan -----------------------------------------------------------------------------------------------

absl::StatusOr<std::unique_ptr<PackedFilePlan>> PackedFilePlan::Create(const std::string& folder,
                                                                       const gguf::File& file, uint32_t layout,
                                                                       std::vector<PackedEntry> entries) {
  const std::string source_hash = SourceHash(file);
  if (source_hash.empty() || Checksum(source_hash).empty()) return NoChecksums();
  std::unique_ptr<PackedFilePlan> plan(new PackedFilePlan);
  plan->folder_ = folder;
  plan->access_ = file.access();
  plan->path_ = (std::filesystem::path(folder) / FileName(file, layout, source_hash)).string();
  plan->entries_ = std::move(entries);
  plan->MakeHead(file, layout, source_hash);
  return plan;
}

void PackedFilePlan::MakeHead(const gguf::File& file, uint32_t layout, const std::string& source_hash) {
  size_t head_bytes = kTableAt;
  for (const PackedEntry& entry : entries_) head_bytes += 4 + entry.name.size() + 4 + 4 * 8;
  uint64_t at = head_bytes + kChecksumBytes * (entries_.size() + 1);
  for (const PackedEntry& entry : entries_) {
    at = (at + kPage - 1) / kPage * kPage;
    contents_at_.push_back(at);
    at += entry.bytes;
  }
  file_bytes_ = at;

  head_ = kMagic;
  Put(kFormatVersion, head_);
  Put(layout, head_);
  Put(file.file_bytes(), head_);
  Put(file.modified_ns(), head_);
  head_ += source_hash;
  Put(uint64_t{entries_.size()}, head_);
  for (size_t i = 0; i < entries_.size(); ++i) {
    const PackedEntry& entry = entries_[i];
    entry_at_.push_back(head_.size());
    Put(static_cast<uint32_t>(entry.name.size()), head_);
    head_ += entry.name;
    Put(kernels::Info(entry.type).ggml_id, head_);
    Put(entry.n_out, head_);
    Put(entry.n_in, head_);
    Put(uint64_t{entry.bytes}, head_);
    Put(contents_at_[i], head_);
  }
}

absl::Status PackedFilePlan::Damaged(const std::string& what) const {
  return absl::DataLossError(absl::StrFormat("packed weights '%s': %s; the file is damaged", path_, what));
}

absl::Status PackedFilePlan::CheckHead(const std::string& found) const {
  if (found.compare(0, kFormatAt, head_, 0, kFormatAt) != 0) {
    return Damaged(absl::StrFormat("expected the letters %s at its start, found '%s'", kMagic,
                                   absl::CHexEscape(found.substr(0, kFormatAt))));
  }
  const auto other = [this](const char* what, auto expected, auto actual) {
    return absl::FailedPreconditionError(
        absl::StrCat("packed weights '", path_, "': ", what, ": expected ", expected, ", found ", actual));
  };
  if (const auto v = Get<uint32_t>(found, kFormatAt); v != kFormatVersion) {
    return other("format version", kFormatVersion, v);
  }
  if (const auto v = Get<uint32_t>(found, kLayoutAt), own = Get<uint32_t>(head_, kLayoutAt); v != own) {
    return other("layout of the weights", own, v);
  }
  if (const auto v = Get<uint64_t>(found, kSizeAt), own = Get<uint64_t>(head_, kSizeAt); v != own) {
    return other("bytes of the model's file", own, v);
  }
  if (const auto v = Get<int64_t>(found, kTimeAt), own = Get<int64_t>(head_, kTimeAt); v != own) {
    return other("modification time of the model's file in ns since 1970", own, v);
  }
  if (found.compare(kHashAt, kHashBytes, head_, kHashAt, kHashBytes) != 0) {
    return other("SHA-256 of the model", absl::BytesToHexString(head_.substr(kHashAt, kHashBytes)),
                 absl::BytesToHexString(found.substr(kHashAt, kHashBytes)));
  }
  if (const auto v = Get<uint64_t>(found, kCountAt); v != entries_.size()) {
    return other("number of tensors", entries_.size(), v);
  }
  for (size_t i = 0; i < entries_.size(); ++i) {
    const size_t end = i + 1 < entries_.size() ? entry_at_[i + 1] : head_.size();
    if (found.compare(entry_at_[i], end - entry_at_[i], head_, entry_at_[i], end - entry_at_[i]) != 0) {
      return Damaged(absl::StrFormat("tensor '%s': expected type %s, %d x %d, %d bytes at %d, found another record",
                                     entries_[i].name, kernels::Info(entries_[i].type).name, entries_[i].n_out,
                                     entries_[i].n_in, entries_[i].bytes, contents_at_[i]));
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<PackedFile> PackedFilePlan::Open() const {
  // O_NONBLOCK: opening a FIFO must not hang; it has no effect on regular files.
  const int fd = open(path_.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOFOLLOW);
  if (fd < 0 && errno == ELOOP) {
    return absl::FailedPreconditionError(
        absl::StrFormat("packed weights '%s': expected a regular file, found a link", path_));
  }
  if (fd < 0) return absl::ErrnoToStatus(errno, absl::StrFormat("packed weights '%s': cannot be opened", path_));
  PackedFile file(fd, this);
  struct stat facts;
  if (fstat(fd, &facts) != 0) return absl::ErrnoToStatus(errno, absl::StrFormat("packed weights '%s'", path_));
  if (!S_ISREG(facts.st_mode)) {
    return absl::FailedPreconditionError(
        absl::StrFormat("packed weights '%s': expected a regular file, found something else", path_));
  }
  // What is missing reads as zeros, so that a file with a shorter head is still told what it is.
  std::string head(head_.size() + kChecksumBytes * (entries_.size() + 1), '\0');
  const size_t there = std::min<uint64_t>(head.size(), static_cast<uint64_t>(facts.st_size));
  if (ReadAt(fd, 0, {reinterpret_cast<uint8_t*>(head.data()), there}) == ReadResult::kError) {
    return Damaged(absl::StrFormat("expected a head of %d bytes, found that it cannot be read: %s", head.size(),
                                   std::strerror(errno)));
  }
  if (absl::Status status = CheckHead(head); !status.ok()) return status;
  if (static_cast<uint64_t>(facts.st_size) != file_bytes_) {
    return Damaged(absl::StrFormat("expected %d bytes, found %d", file_bytes_, facts.st_size));
  }
  const size_t body = head.size() - kChecksumBytes;
  if (head.substr(body) != Checksum(head.substr(0, body))) {
    return Damaged("its list of tensors: expected another checksum than was found");
  }
  for (size_t at = head_.size(); at < body; at += kChecksumBytes) {
    file.checksums_.push_back(head.substr(at, kChecksumBytes));
  }
  return file;
}

// A file of a model's size that is begun for nothing would fill the disk meanwhile; and writing beyond the process's
// own limit does not fail but kills.
absl::Status PackedFilePlan::CheckRoom() const {
  rlimit limit;
  if (getrlimit(RLIMIT_FSIZE, &limit) == 0 && limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < file_bytes_) {
    return absl::ResourceExhaustedError(absl::StrFormat(
        "packed weights '%s': expected to write %d bytes, found that this process may only write %d into a file; raise "
        "the limit (ulimit -f), or do not ask for packed weights",
        path_, file_bytes_, static_cast<uint64_t>(limit.rlim_cur)));
  }
  struct statvfs facts;
  if (statvfs(folder_.c_str(), &facts) == 0) {
    const uint64_t room = uint64_t{facts.f_bavail} * facts.f_frsize;
    if (room < file_bytes_) {
      return absl::ResourceExhaustedError(absl::StrFormat(
          "packed weights '%s': expected room for %d bytes, found %d; free some space or choose a folder "
          "on another disk",
          path_, file_bytes_, room));
    }
  }
  return absl::OkStatus();
}

absl::Status PackedFilePlan::Write(std::span<const std::span<const uint8_t>> contents) const {
  std::error_code error;
  std::filesystem::create_directories(folder_, error);
  if (error) {
    return absl::Status(
        absl::ErrnoToStatusCode(error.value()),
        absl::StrFormat("packed weights: folder '%s' cannot be made: %s; choose another", folder_, error.message()));
  }
  if (absl::Status status = CheckRoom(); !status.ok()) return status;
  std::string head = head_;
  for (const std::span<const uint8_t> bytes : contents) {
    const std::string sum = ChecksumInPieces(bytes);
    if (sum.empty()) return NoChecksums();
    head += sum;
  }
  head += Checksum(head);

  absl::StatusOr<AtomicFile> file = AtomicFile::Create(path_, {.refuse_links = true, .access = access_});
  if (!file.ok()) {
    return absl::Status(file.status().code(), absl::StrCat("packed weights: ", std::string(file.status().message())));
  }
  absl::Status status = file->Append(std::as_bytes(std::span(head)));
  uint64_t at = head.size();
  for (size_t i = 0; i < contents.size() && status.ok(); ++i) {
    const std::string padding(contents_at_[i] - at, '\0');
    status = file->Append(std::as_bytes(std::span(padding)));
    if (status.ok()) status = file->Append(std::as_bytes(contents[i]));
    at = contents_at_[i] + contents[i].size();
  }
  return status.ok() ? file->Commit() : status;
}

}  // namespace updraft
