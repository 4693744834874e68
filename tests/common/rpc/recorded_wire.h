// What tiers of an earlier version said to each other (tests/golden/wire), and its schema, to read today's messages as
// that version reads them.
#pragma once

#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>
#include <google/protobuf/dynamic_message.h>
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"

namespace updraft::testing {

inline std::filesystem::path RecordingsFolder() {
  const char* source = std::getenv("UPDRAFT_SOURCE_DIR");
  return std::filesystem::path(source != nullptr ? source : ".") / "tests/golden/wire";
}

// Of every version that there is a recording of: NAME of NAME.proto and NAME.txt.
inline std::vector<std::string> RecordedVersions() {
  std::vector<std::string> names;
  std::error_code error;
  for (const auto& entry : std::filesystem::directory_iterator(RecordingsFolder(), error)) {
    if (entry.path().extension() == ".proto") names.push_back(entry.path().stem().string());
  }
  return names;
}

struct RecordedCall {
  std::string name;    // e.g. "conversation_ids"; "probe": of GetStatus
  std::string method;  // "/updraft.v1.Inference/Generate"
  std::string request;
  std::vector<std::string> responses;
  std::string status;  // "OK"
};

// The format is that of tests/golden/wire/record.py.
inline std::vector<RecordedCall> ReadRecording(const std::string& version) {
  std::vector<RecordedCall> calls;
  std::ifstream file(RecordingsFolder() / (version + ".txt"));
  EXPECT_TRUE(file.good()) << version;
  for (std::string word; file >> word;) {
    std::string rest;
    std::getline(file, rest);
    if (!rest.empty()) rest.erase(0, 1);
    if (word == "call") calls.emplace_back().name = rest;
    if (word == "request") {
      const size_t space = rest.find(' ');
      calls.back().method = rest.substr(0, space);
      if (space != std::string::npos) calls.back().request = absl::HexStringToBytes(rest.substr(space + 1));
    }
    if (word == "response") calls.back().responses.push_back(absl::HexStringToBytes(rest));
    if (word == "status") calls.back().status = rest;
  }
  EXPECT_GE(calls.size(), 10u) << version;
  return calls;
}

class RecordedSchema {
 public:
  explicit RecordedSchema(const std::string& version) {
    std::ifstream file(std::string(UPDRAFT_RECORDED_SCHEMAS) + "/" + version + ".desc", std::ios::binary);
    google::protobuf::FileDescriptorSet parsed;
    EXPECT_TRUE(parsed.ParseFromIstream(&file) && parsed.file_size() == 1) << version;
    file_ = pool_.BuildFile(parsed.file(0));
    EXPECT_NE(file_, nullptr) << version;
  }

  const google::protobuf::FileDescriptor& file() const { return *file_; }
  // name: "GenerateResponse".
  std::unique_ptr<google::protobuf::Message> New(const std::string& name) const {
    return std::unique_ptr<google::protobuf::Message>(factory_.GetPrototype(file_->FindMessageTypeByName(name))->New());
  }

 private:
  google::protobuf::DescriptorPool pool_;
  mutable google::protobuf::DynamicMessageFactory factory_{&pool_};
  const google::protobuf::FileDescriptor* file_ = nullptr;
};

}  // namespace updraft::testing
