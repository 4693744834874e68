// Which instruction sets the kernels are compiled for and which of them this machine can run. The choice is made once,
// when an Ops object is made; no kernel asks again.
#ifndef UPDRAFT_KERNELS_ARCH_H_
#define UPDRAFT_KERNELS_ARCH_H_

#include <optional>
#include <string_view>
#include <vector>

namespace updraft::kernels {

// In order of preference: the last supported one is the default.
enum class Isa {
  kReference,    // plain loops in double on dequantized weights: the oracle, slow
  kPortable,     // the vector bodies over arrays of 16 floats: any machine, same bits as the vector ones
  kAvx2,         // AVX2, FMA, F16C
  kAvxVnni,      // kAvx2 and AVX-VNNI
  kAvx512Vnni,   // AVX-512 F/BW/DQ/VL and VNNI
  kAvx512Vbmi2,  // kAvx512Vnni and VBMI2, which expands bytes
  kAvx512Bf16,   // kAvx512Vbmi2 and BF16
  kNeon,         // AArch64 baseline
  kNeonDotprod,  // AArch64 with the dot product extension (ARMv8.2)
  kNeonI8mm      // kNeonDotprod and the 8-bit matrix products (ARMv8.6)
};

// As written in UPDRAFT_FORCE_ISA and in Ops::name(): "reference", "portable", "avx2", "avxvnni", "avx512vnni",
// "avx512vbmi2", "avx512bf16", "neon", "neon_dotprod", "neon_i8mm".
const char* IsaName(Isa isa);
std::optional<Isa> ParseIsa(std::string_view name);

// True where the code for `isa` is in this program and both processor and operating system can run it.
bool IsaSupported(Isa isa);

// In order of preference, the best last. kReference and kPortable are always there.
std::vector<Isa> SupportedIsas();

// What the environment variable UPDRAFT_FORCE_ISA asks for, else the best. A name that is unknown or that this machine
// cannot run is reported on stderr and ignored.
Isa ChooseIsa();

}  // namespace updraft::kernels

#endif  // UPDRAFT_KERNELS_ARCH_H_
