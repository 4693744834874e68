// Who may read and write a file.
#pragma once

#include <sys/types.h>

namespace updraft {

struct FileAccess {
  mode_t mode = 0600;                    // permission bits
  gid_t group = static_cast<gid_t>(-1);  // that the group's bits are for
};

}  // namespace updraft
