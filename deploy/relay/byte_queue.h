// Bytes that wait, in order: appended at the back in pieces of any size, taken from the front. What it allocates is
// about what it holds, however small the pieces are. Internal to deploy/relay.
#pragma once

#include <algorithm>
#include <cstddef>
#include <deque>
#include <string>
#include <string_view>

namespace updraft::relay::internal {

class ByteQueue {
 public:
  static constexpr size_t kBlockBytes = 16 << 10;

  void Append(std::string_view bytes) {
    size_ += bytes.size();
    while (!bytes.empty()) {
      if (blocks_.empty() || blocks_.back().size() >= kBlockBytes) {
        blocks_.emplace_back(bytes.substr(0, kBlockBytes));  // no larger than it need be: most are taken at once
        bytes.remove_prefix(blocks_.back().size());
        continue;
      }
      std::string& last = blocks_.back();
      const std::string_view part = bytes.substr(0, kBlockBytes - last.size());
      last.reserve(kBlockBytes);
      last.append(part);
      bytes.remove_prefix(part.size());
    }
  }

  // Some of the bytes at the front; none only when there are none. Valid until the next call that changes something.
  std::string_view Front() const {
    return blocks_.empty() ? std::string_view() : std::string_view(blocks_.front()).substr(taken_);
  }
  // REQUIRES: n <= Front().size().
  void Pop(size_t n) {
    size_ -= n;
    taken_ += n;
    if (blocks_.empty() || taken_ < blocks_.front().size()) return;
    blocks_.pop_front();
    taken_ = 0;
  }
  void Clear() {
    blocks_.clear();
    size_ = taken_ = 0;
  }

  size_t size() const { return size_; }
  size_t n_blocks() const { return blocks_.size(); }

 private:
  std::deque<std::string> blocks_;  // at most kBlockBytes each, none empty
  size_t taken_ = 0;                // of the first block
  size_t size_ = 0;
};

}  // namespace updraft::relay::internal
