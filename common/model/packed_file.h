// Packed weights on disk: what kernels::Ops::Pack makes of a model's matrices, kept so that the next load reads it.
//
// The file, little-endian:
//   0    8 bytes   "UPDRPACK"
//   8    u32       version of this format
//   12   u32       kernels::Ops::PackedLayout
//   16   u64       bytes of the model's file
//   24   i64       its modification time, nanoseconds since 1970
//   32   32 bytes  SHA-256 of its size, its header and samples of each tensor (SourceHash)
//   64   u64       n, the number of matrices
//   72   n times   u32 bytes of the name, the name, u32 GGUF type, i64 n_out, i64 n_in, u64 packed bytes, u64 offset
//        n times   16 bytes  checksum of the packed bytes
//        16 bytes  checksum of everything before
//   then the packed bytes of each matrix, at multiples of 4,096 from the start of the file
//
// Everything before the checksums follows from the model, so that a reader knows what must stand there and allocates
// nothing that a file could ask for. What it does not follow from is every byte of the model: a change inside a tensor
// that leaves the first, middle and last 4,096 bytes of it and the file's size and modification time as they were goes
// unnoticed, and the weights are those from before the change.
//
// Checksums find torn and decayed files; they are no protection from somebody who
// writes a file on purpose: who may write the file decides what the weights are.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "common/files/file_access.h"
#include "common/gguf/reader.h"
#include "kernels/ops.h"

namespace updraft {

// One matrix as a packed file lists it.
struct PackedEntry {
  std::string name;
  kernels::DType type = kernels::DType::kF32;
  int64_t n_out = 0, n_in = 0;
  size_t bytes = 0;  // kernels::Ops::PackedSize; > 0
};

class PackedFilePlan;

// An open packed file whose head is what it should be. Move-only; one thread.
class PackedFile {
 public:
  PackedFile(PackedFile&& other) noexcept;
  PackedFile& operator=(PackedFile&&) = delete;
  ~PackedFile();

  // The matrix of entry `i`, read on all threads of `ops` into memory of its own. DataLoss: the file is cut short,
  // cannot be read, or holds other bytes than were written.
  absl::StatusOr<std::unique_ptr<kernels::PackedMatrix>> Read(size_t i, kernels::Ops& ops) const;

 private:
  friend class PackedFilePlan;
  PackedFile(int fd, const PackedFilePlan* plan) : fd_(fd), plan_(plan) {}

  int fd_;
  const PackedFilePlan* plan_;
  std::vector<std::string> checksums_;  // 16 bytes each
};

// What the packed file of one model is called and must hold. Immutable; outlives its PackedFile.
class PackedFilePlan {
 public:
  // `file` is mapped from a path. Unimplemented in a build without OpenSSL, Internal when it refuses.
  static absl::StatusOr<std::unique_ptr<PackedFilePlan>> Create(const std::string& folder, const gguf::File& file,
                                                                uint32_t layout, std::vector<PackedEntry> entries);

  // FOLDER/<stem of the model's file>-<16 digits>-<layout>.packed. The digits follow from the hash and the time above,
  // so that copies of a model and programs with different layouts, which take turns, each find their own file. The one
  // of a model that was touched since is left behind.
  const std::string& path() const { return path_; }
  uint64_t file_bytes() const { return file_bytes_; }

  // NotFound: there is none. FailedPrecondition: one of another model, format or layout. DataLoss: a damaged one. Other
  // codes as the system says.
  absl::StatusOr<PackedFile> Open() const;

  // Makes the folder and replaces the file, in one step for whoever reads; the new one is for those who may read the
  // model's file. contents[i]: entries[i].bytes bytes. ResourceExhausted when there is no room, which is looked for
  // before anything is written; InvalidArgument where something else than a regular file, such as a link, has the name;
  // other codes as the system says. What was there before then stays, but as AtomicFile::Commit says.
  absl::Status Write(std::span<const std::span<const uint8_t>> contents) const;

 private:
  friend class PackedFile;
  PackedFilePlan() = default;
  void MakeHead(const gguf::File& file, uint32_t layout, const std::string& source_hash);
  absl::Status CheckHead(const std::string& found) const;
  absl::Status Damaged(const std::string& what) const;
  absl::Status CheckRoom() const;

  std::string path_, folder_;
  FileAccess access_;  // of the model's file
  std::vector<PackedEntry> entries_;
  std::string head_;                   // up to the checksums
  std::vector<size_t> entry_at_;       // where an entry begins in head_
  std::vector<uint64_t> contents_at_;  // where its packed bytes begin in the file
  uint64_t file_bytes_ = 0;
};

}  // namespace updraft
