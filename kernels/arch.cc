#include "kernels/arch.h"

#include <cstdio>
#include <cstdlib>
#include <string>

#if defined(__x86_64__)
#include <cpuid.h>
#endif
#if defined(__aarch64__) && defined(__linux__)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

namespace updraft::kernels {
namespace {

constexpr Isa kAllIsas[] = {Isa::kReference,   Isa::kPortable,   Isa::kAvx2, Isa::kAvxVnni,     Isa::kAvx512Vnni,
                            Isa::kAvx512Vbmi2, Isa::kAvx512Bf16, Isa::kNeon, Isa::kNeonDotprod, Isa::kNeonI8mm};

#if defined(__x86_64__)
// A bit of EAX of leaf 7, sub-leaf 1; __builtin_cpu_supports does not know the names in every compiler.
bool HasFeature(int bit) {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid_count(7, 1, &eax, &ebx, &ecx, &edx) != 0 && (eax & (1u << bit)) != 0;
}
// Nor F16C in Clang 14: bit 29 of ECX of leaf 1.
bool HasF16c() {
  unsigned eax = 0, ebx = 0, ecx = 0, edx = 0;
  return __get_cpuid(1, &eax, &ebx, &ecx, &edx) != 0 && (ecx & (1u << 29)) != 0;
}
constexpr int kAvxVnniBit = 4;
constexpr int kAvx512Bf16Bit = 5;
#endif

}  // namespace

const char* IsaName(Isa isa) {
  switch (isa) {
    case Isa::kReference:
      return "reference";
    case Isa::kPortable:
      return "portable";
    case Isa::kAvx2:
      return "avx2";
    case Isa::kAvxVnni:
      return "avxvnni";
    case Isa::kAvx512Vnni:
      return "avx512vnni";
    case Isa::kAvx512Vbmi2:
      return "avx512vbmi2";
    case Isa::kAvx512Bf16:
      return "avx512bf16";
    case Isa::kNeon:
      return "neon";
    case Isa::kNeonDotprod:
      return "neon_dotprod";
    case Isa::kNeonI8mm:
      return "neon_i8mm";
  }
  return "unknown";
}

std::optional<Isa> ParseIsa(std::string_view name) {
  for (const Isa isa : kAllIsas) {
    if (name == IsaName(isa)) return isa;
  }
  return std::nullopt;
}

bool IsaSupported(Isa isa) {
  switch (isa) {
    case Isa::kReference:
    case Isa::kPortable:
      return true;
    case Isa::kAvx2:
#if defined(__x86_64__)
      return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && HasF16c();
#else
      return false;
#endif
    case Isa::kAvxVnni:
#if defined(__x86_64__)
      return IsaSupported(Isa::kAvx2) && HasFeature(kAvxVnniBit);
#else
      return false;
#endif
    case Isa::kAvx512Vnni:
#if defined(__x86_64__)
      return IsaSupported(Isa::kAvx2) && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
             __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
             __builtin_cpu_supports("avx512vnni");
#else
      return false;
#endif
    case Isa::kAvx512Vbmi2:
#if defined(__x86_64__)
      return IsaSupported(Isa::kAvx512Vnni) && __builtin_cpu_supports("avx512vbmi2");
#else
      return false;
#endif
    case Isa::kAvx512Bf16:
#if defined(__x86_64__)
      return IsaSupported(Isa::kAvx512Vbmi2) && HasFeature(kAvx512Bf16Bit);
#else
      return false;
#endif
    case Isa::kNeon:
#if defined(__aarch64__)
      return true;
#else
      return false;
#endif
    case Isa::kNeonDotprod:
#if defined(__aarch64__) && defined(__linux__)
      return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0;
#else
      return false;
#endif
    case Isa::kNeonI8mm:
#if defined(__aarch64__) && defined(__linux__)
      return IsaSupported(Isa::kNeonDotprod) && (getauxval(AT_HWCAP2) & HWCAP2_I8MM) != 0;
#else
      return false;
#endif
  }
  return false;
}

std::vector<Isa> SupportedIsas() {
  std::vector<Isa> isas;
  for (const Isa isa : kAllIsas) {
    if (IsaSupported(isa)) isas.push_back(isa);
  }
  return isas;
}

Isa ChooseIsa() {
  const Isa best = SupportedIsas().back();
  const char* forced = std::getenv("UPDRAFT_FORCE_ISA");
  if (forced == nullptr || *forced == '\0') return best;
  const std::optional<Isa> isa = ParseIsa(forced);
  if (isa && IsaSupported(*isa)) return *isa;
  std::string supported;
  for (const Isa s : SupportedIsas()) supported += std::string(supported.empty() ? "" : ", ") + IsaName(s);
  std::fprintf(stderr, "UPDRAFT_FORCE_ISA=%s: %s; expected one of %s; using %s\n", forced,
               isa ? "this machine cannot run it" : "unknown name", supported.c_str(), IsaName(best));
  return best;
}

}  // namespace updraft::kernels
