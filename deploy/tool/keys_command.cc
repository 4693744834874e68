// keys: makes a key for a tenant and puts its hash into the file that daemons are given as --api-keys.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <iostream>
#include <memory>
#include <string>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "common/serving/api_keys.h"
#include "deploy/tool/commands.h"

namespace updraft::tool {
namespace {

struct KeysFlags {
  std::string tenant, file;
};

absl::Status FileError(const std::string& path, const char* what) {
  return absl::UnavailableError(absl::StrFormat("'%s': %s: %s", path, what, std::strerror(errno)));
}

// One write to the end of the file, so that a daemon that reads it meanwhile sees whole lines. A file that is there has
// to be one of keys: nothing else is written into.
absl::Status AppendLine(const std::string& path, std::string line) {
  if (access(path.c_str(), F_OK) == 0) {
    const auto text = ReadSecretFile(path);
    if (!text.ok()) return text.status();
    if (text->find_first_not_of(" \t\r\n") != std::string::npos) {
      if (auto keys = ParseApiKeys(*text); !keys.ok()) {
        return absl::InvalidArgumentError(
            absl::StrFormat("'%s': expected a file of keys, found %s", path, std::string(keys.status().message())));
      }
    }
    if (!text->empty() && text->back() != '\n') line.insert(0, "\n");
  }
  const int fd = open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC, 0600);
  if (fd < 0) return FileError(path, "cannot be opened for writing");
  const absl::Cleanup close_it = [fd] { close(fd); };
  line += "\n";
  struct stat before = {};
  if (fstat(fd, &before) != 0) return FileError(path, "cannot be looked at");
  if (write(fd, line.data(), line.size()) != static_cast<ssize_t>(line.size())) {
    const absl::Status status = FileError(path, "cannot be written");
    if (ftruncate(fd, before.st_size) != 0) return FileError(path, "cannot be written, and ends with half a line");
    return status;
  }
  if (fsync(fd) != 0) return FileError(path, "cannot be flushed to storage");
  return absl::OkStatus();
}

absl::Status MakeKey(const KeysFlags& flags) {
  if (absl::Status status = CheckTenant("--tenant", flags.tenant); !status.ok()) return status;
  const auto key = NewKey();
  if (!key.ok()) return key.status();
  const absl::Status status = AppendLine(flags.file, LineOfKey({flags.tenant, HashOfKey(*key)}));
  if (!status.ok()) return WithFlag("--file", status);
  std::cout << *key << std::endl;
  if (std::cout.good()) return absl::OkStatus();
  return absl::UnavailableError(absl::StrFormat(
      "the key could not be written to stdout; its line, the last in '%s', is of no use: take it out", flags.file));
}

}  // namespace

void AddKeysCommand(CLI::App& app, int* exit_code) {
  auto flags = std::make_shared<KeysFlags>();
  CLI::App* command = app.add_subcommand(
      "keys", "Make a key for a tenant: its hash goes into a file for --api-keys, the key itself to stdout, once");
  command->add_option("--tenant", flags->tenant, "Whose key it is")->required();
  command->add_option("--file", flags->file, "File of keys; made if there is none")->required();
  command->callback([flags, exit_code] {
    if (absl::Status status = MakeKey(*flags); !status.ok()) *exit_code = Fail(status);
  });
}

}  // namespace updraft::tool
