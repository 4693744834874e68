// Keeps the process alive when a file that it has mapped is cut shorter: access to the lost pages is a SIGBUS, which
// ends a process by default.
//
// The handler maps zeros over the whole mapping, notes that it did, and lets the thread go on. A jump out of the
// interrupted code (sigsetjmp) would skip destructors and leave locks held and other threads waiting, and zeros are
// values that any reader of a hostile file must take anyway. What was computed from them is worthless, so who reads a
// mapping asks afterwards (MappedFile::CheckIntact).
#pragma once

#include <cstddef>
#include <span>

namespace updraft::gguf {

// A mapping that is watched over. Made by Watch, never freed, used again after Release.
class MappingGuard;

// From here on a SIGBUS within `mapping` (page-aligned, not empty) turns it into zeros. Installs the handler the first
// time; a SIGBUS elsewhere goes to whoever handled it before. Any thread.
MappingGuard* Watch(std::span<const std::byte> mapping);
// Before the mapping is undone. No thread may be reading it.
void Release(MappingGuard* guard);

// Whether the mapping was turned into zeros, or said to be lost. Any thread; stays true.
bool IsLost(const MappingGuard* guard);
void SetLost(MappingGuard* guard);

}  // namespace updraft::gguf
