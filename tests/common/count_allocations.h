// Counts what a test program takes from the heap.
#pragma once

namespace updraft {

long NumAllocations();  // so far

}  // namespace updraft
