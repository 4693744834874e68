#include "tests/cloud/engine/failing_new.h"

#include <cstdlib>
#include <new>

namespace {

thread_local int n_left = -1;  // -1: none fails
thread_local bool has_fired = false;

void* Allocate(std::size_t size, std::size_t align) {
  if (n_left >= 0 && n_left-- == 0) {
    has_fired = true;
    throw std::bad_alloc();
  }
  if (void* p = std::aligned_alloc(align, (size + align) / align * align)) return p;
  throw std::bad_alloc();
}

}  // namespace

void* operator new(std::size_t size) { return Allocate(size, __STDCPP_DEFAULT_NEW_ALIGNMENT__); }
void* operator new(std::size_t size, std::align_val_t align) { return Allocate(size, static_cast<std::size_t>(align)); }
void operator delete(void* p) noexcept { std::free(p); }
void operator delete(void* p, std::size_t) noexcept { std::free(p); }
void operator delete(void* p, std::align_val_t) noexcept { std::free(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { std::free(p); }

namespace updraft {

void FailingNew::Arm(int n) {
  n_left = n;
  has_fired = false;
}
void FailingNew::Disarm() { n_left = -1; }
bool FailingNew::fired() { return has_fired; }

}  // namespace updraft
