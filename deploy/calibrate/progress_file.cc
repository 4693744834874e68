#include "deploy/calibrate/progress_file.h"

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <nlohmann/json.hpp>

#include "absl/strings/str_format.h"

namespace updraft {
namespace {

using nlohmann::json;

std::string LineOf(std::string_view kind, std::string_view key, const std::string& finding) {
  const json line = {{"kind", kind}, {"key", key}, {"finding", finding}};
  return line.dump(-1, ' ', false, json::error_handler_t::replace) + "\n";
}

}  // namespace

absl::StatusOr<std::unique_ptr<ProgressFile>> ProgressFile::Open(const std::string& path, const std::string& run) {
  std::unique_ptr<ProgressFile> file(new ProgressFile(path));
  MutexLock lock(file->mu_);
  const std::string standing = file->Load(run);
  file->n_at_start_ = static_cast<int>(file->findings_.size());
  // Written anew, beside it until it is whole, so that what was broken off is gone from it.
  const std::string beside = path + ".new";
  file->out_.open(beside, std::ios::binary | std::ios::trunc);
  file->out_ << json({{"run", run}}).dump(-1, ' ', false, json::error_handler_t::replace) << "\n" << standing;
  file->out_.flush();
  if (!file->out_ || std::rename(beside.c_str(), path.c_str()) != 0) {
    return absl::PermissionDeniedError(
        absl::StrFormat("cannot write '%s', where the run's progress is kept: %s", path, std::strerror(errno)));
  }
  return file;
}

std::string ProgressFile::Load(const std::string& run) {
  std::ifstream in(path_, std::ios::binary);
  std::string line, standing;
  for (bool first = true; std::getline(in, line) && !in.eof(); first = false) {  // a whole line ends with its break
    const json object = json::parse(line, /*cb=*/nullptr, /*allow_exceptions=*/false);
    if (!object.is_object()) return first ? "" : standing;
    if (first) {
      if (object.value("run", json()) != json(run)) return "";
      continue;
    }
    const auto kind = object.find("kind"), key = object.find("key"), finding = object.find("finding");
    if (kind == object.end() || key == object.end() || finding == object.end() || !kind->is_string() ||
        !key->is_string() || !finding->is_string()) {
      return standing;
    }
    findings_[{kind->get<std::string>(), key->get<std::string>()}] = finding->get<std::string>();
    standing += line + "\n";
  }
  return standing;
}

std::optional<std::string> ProgressFile::Find(std::string_view kind, std::string_view key) const {
  MutexLock lock(mu_);
  const auto found = findings_.find(std::pair(std::string(kind), std::string(key)));
  if (found == findings_.end()) return std::nullopt;
  return found->second;
}

absl::Status ProgressFile::Add(std::string_view kind, std::string_view key, const std::string& finding) {
  MutexLock lock(mu_);
  out_ << LineOf(kind, key, finding);
  out_.flush();
  if (!out_) return absl::DataLossError(absl::StrFormat("cannot write '%s': %s", path_, std::strerror(errno)));
  findings_[{std::string(kind), std::string(key)}] = finding;
  return absl::OkStatus();
}

void ProgressFile::Remove() {
  MutexLock lock(mu_);
  out_.close();
  std::error_code ignored;
  std::filesystem::remove(path_, ignored);
}

}  // namespace updraft
