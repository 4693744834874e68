// Weights that leave out half of their elements can be multiplied from either of two layouts. Which one is faster
// depends on the machine: on how fast it reads memory and how fast it puts bytes where they belong.
#ifndef UPDRAFT_KERNELS_CPU_LAYOUT_CHOICE_H_
#define UPDRAFT_KERNELS_CPU_LAYOUT_CHOICE_H_

#include "kernels/ops.h"

namespace updraft::kernels {

// Times products with `whole` and `kept`, the same matrix packed both ways, in turns, and picks `kept` only where
// requests win by it. Matrices that together with their model's others fill no cache are read from memory every time,
// as a forward pass does.
LayoutChoice ChooseLayout(Ops& ops, const PackedMatrix& whole, const PackedMatrix& kept);

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_CPU_LAYOUT_CHOICE_H_
