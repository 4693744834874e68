// operator new that fails once, on the thread that asked for it. Linking failing_new.cc replaces the program's.
#pragma once

namespace updraft {

struct FailingNew {
  static void Arm(int n);  // the allocation after `n` more of this thread throws bad_alloc
  static void Disarm();
  static bool fired();  // since Arm, whatever came of Disarm
};

}  // namespace updraft
