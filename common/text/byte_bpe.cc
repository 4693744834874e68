#include "common/text/byte_bpe.h"

#include <unicode/utf8.h>

#include <algorithm>
#include <array>
#include <limits>
#include <queue>

#include "absl/status/status.h"
#include "absl/strings/str_format.h"

namespace updraft::text {
namespace {

constexpr char32_t kFirstStandIn = 0x100;
constexpr size_t kStandIns = 68;

bool PrintsInLatin1(int byte) {
  return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) || (byte >= 0xAE && byte <= 0xFF);
}

struct ByteTable {
  std::array<char32_t, 256> printable{};
  std::array<uint8_t, kStandIns> stand_in{};
};

const ByteTable& Table() {
  static const ByteTable table = [] {
    ByteTable t;
    size_t next = 0;
    for (int byte = 0; byte < 256; ++byte) {
      if (PrintsInLatin1(byte)) {
        t.printable[byte] = static_cast<char32_t>(byte);
      } else {
        t.printable[byte] = kFirstStandIn + static_cast<char32_t>(next);
        t.stand_in[next++] = static_cast<uint8_t>(byte);
      }
    }
    return t;
  }();
  return table;
}

uint64_t Key(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

char32_t PrintableOfByte(uint8_t byte) { return Table().printable[byte]; }

std::optional<uint8_t> ByteOfPrintable(char32_t character) {
  if (character < kFirstStandIn) {
    const auto byte = static_cast<uint8_t>(character);
    return PrintsInLatin1(byte) ? std::optional<uint8_t>(byte) : std::nullopt;
  }
  if (character - kFirstStandIn >= kStandIns) return std::nullopt;
  return Table().stand_in[character - kFirstStandIn];
}

std::string PrintableOfBytes(std::string_view bytes) {
  std::string printable;
  printable.reserve(bytes.size() * 2);
  for (const char byte : bytes) {
    const char32_t c = PrintableOfByte(static_cast<uint8_t>(byte));
    if (c < 0x80) {
      printable.push_back(static_cast<char>(c));
    } else {  // all of them are below U+0800
      printable.push_back(static_cast<char>(0xC0 | (c >> 6)));
      printable.push_back(static_cast<char>(0x80 | (c & 0x3F)));
    }
  }
  return printable;
}

std::optional<std::string> BytesOfPrintable(std::string_view printable) {
  std::string bytes;
  bytes.reserve(printable.size());
  size_t pos = 0;
  while (pos < printable.size()) {
    const auto left = static_cast<int32_t>(std::min<size_t>(printable.size() - pos, 4));
    int32_t used = 0;
    UChar32 c;
    U8_NEXT(printable.data() + pos, used, left, c);
    if (c < 0) return std::nullopt;
    const std::optional<uint8_t> byte = ByteOfPrintable(static_cast<char32_t>(c));
    if (!byte) return std::nullopt;
    bytes.push_back(static_cast<char>(*byte));
    pos += static_cast<size_t>(used);
  }
  return bytes;
}

absl::StatusOr<BpeMerger> BpeMerger::Create(std::span<const BpeMerge> merges) {
  if (merges.size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
    return absl::InvalidArgumentError(absl::StrFormat("merges: expected fewer than 2^31, found %u", merges.size()));
  }
  BpeMerger merger;
  merger.table_.reserve(merges.size());
  for (size_t rank = 0; rank < merges.size(); ++rank) {
    const BpeMerge& m = merges[rank];
    if (m.left < 0 || m.right < 0 || m.result < 0) {
      return absl::InvalidArgumentError(absl::StrFormat("merge %u: expected symbols of 0 or more, found %d + %d -> %d",
                                                        rank, m.left, m.right, m.result));
    }
    merger.table_.try_emplace(Key(m.left, m.right), Entry{static_cast<int32_t>(rank), m.result});
  }
  return merger;
}

const BpeMerger::Entry* BpeMerger::Find(int32_t left, int32_t right) const {
  if (left < 0 || right < 0) return nullptr;
  const auto it = table_.find(Key(left, right));
  return it == table_.end() ? nullptr : &it->second;
}

void BpeMerger::Apply(std::vector<int32_t>* symbols) const {
  // Words are short, and for a few symbols a scan per merge costs less than a heap.
  constexpr size_t kShort = 32;
  if (symbols->size() <= kShort) {
    ApplyShort(symbols);
  } else {
    ApplyLong(symbols);
  }
}

void BpeMerger::ApplyShort(std::vector<int32_t>* symbols) const {
  std::vector<int32_t>& s = *symbols;
  constexpr Entry kNone{std::numeric_limits<int32_t>::max(), -1};
  std::array<Entry, 32> pair;  // pair[i]: the merge of s[i] and s[i + 1]
  const auto look_up = [&](size_t i) {
    const Entry* entry = Find(s[i], s[i + 1]);
    pair[i] = entry == nullptr ? kNone : *entry;
  };
  for (size_t i = 0; i + 1 < s.size(); ++i) look_up(i);
  while (s.size() > 1) {
    size_t best = 0;
    for (size_t i = 1; i + 1 < s.size(); ++i) {
      if (pair[i].rank < pair[best].rank) best = i;
    }
    if (pair[best].result < 0) return;
    s[best] = pair[best].result;
    s.erase(s.begin() + static_cast<std::ptrdiff_t>(best) + 1);
    for (size_t i = best + 1; i + 1 < s.size(); ++i) pair[i] = pair[i + 1];
    if (best > 0) look_up(best - 1);
    if (best + 1 < s.size()) look_up(best);
  }
}

void BpeMerger::ApplyLong(std::vector<int32_t>* symbols) const {
  constexpr uint32_t kEnd = std::numeric_limits<uint32_t>::max();
  struct Node {
    int32_t symbol;
    uint32_t previous;
    uint32_t next;
    bool alive;
  };
  struct Candidate {
    int32_t rank;
    uint32_t at;  // index of the left node
    int32_t left, right, result;
    bool operator<(const Candidate& other) const {  // the heap's top is the largest: lowest rank, then leftmost
      return rank != other.rank ? rank > other.rank : at > other.at;
    }
  };
  const auto n = static_cast<uint32_t>(symbols->size());
  std::vector<Node> nodes(n);
  for (uint32_t i = 0; i < n; ++i) nodes[i] = {(*symbols)[i], i == 0 ? kEnd : i - 1, i + 1 == n ? kEnd : i + 1, true};

  std::priority_queue<Candidate> heap;
  const auto consider = [&](uint32_t at) {
    if (at == kEnd || nodes[at].next == kEnd) return;
    const int32_t left = nodes[at].symbol;
    const int32_t right = nodes[nodes[at].next].symbol;
    if (const Entry* entry = Find(left, right)) heap.push({entry->rank, at, left, right, entry->result});
  };
  for (uint32_t i = 0; i + 1 < n; ++i) consider(i);
  while (!heap.empty()) {
    const Candidate top = heap.top();
    heap.pop();
    Node& left = nodes[top.at];
    // A merge nearby may have taken either symbol since this candidate was found.
    if (!left.alive || left.symbol != top.left || left.next == kEnd || nodes[left.next].symbol != top.right) continue;
    Node& right = nodes[left.next];
    left.symbol = top.result;
    right.alive = false;
    left.next = right.next;
    if (left.next != kEnd) nodes[left.next].previous = top.at;
    consider(left.previous);
    consider(top.at);
  }

  symbols->clear();
  for (uint32_t i = 0; i != kEnd; i = nodes[i].next) symbols->push_back(nodes[i].symbol);
}

}  // namespace updraft::text
