// Picks the kernel table once, outside every loop. Compiled for the baseline processor.
#if defined(DEEPSSIM_HAVE_X86)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(DEEPSSIM_HAVE_ARM64)
#include <asm/hwcap.h>
#include <sys/auxv.h>
#endif

#include <cstdlib>
#include <cstring>

#include "deepssim/isa.hpp"
#include "deepssim/types.hpp"
#include "kernels.hpp"

namespace deepssim {

namespace simd {

namespace {

struct Level {
    const Kernels* kernels;
    bool (*runs_here)();
};

bool always() { return true; }

#if defined(DEEPSSIM_HAVE_X86)
bool has_avx2() { return __builtin_cpu_supports("avx2") != 0 && __builtin_cpu_supports("fma") != 0; }

// g++ 12 knows neither AVX-VNNI nor AMX by name: bits of leaf 7.
bool has_leaf7_bit(unsigned subleaf, bool in_edx, unsigned bit) {
    unsigned eax = 0;
    unsigned ebx = 0;
    unsigned ecx = 0;
    unsigned edx = 0;
    if (__get_cpuid_count(7, subleaf, &eax, &ebx, &ecx, &edx) == 0) return false;
    return (((in_edx ? edx : eax) >> bit) & 1U) != 0;
}
bool has_avxvnni() { return has_avx2() && has_leaf7_bit(1, false, 4); }

bool has_avx512vnni() {
    return has_avx2() && __builtin_cpu_supports("avx512f") != 0 && __builtin_cpu_supports("avx512bw") != 0 &&
           __builtin_cpu_supports("avx512dq") != 0 && __builtin_cpu_supports("avx512vl") != 0 &&
           __builtin_cpu_supports("avx512vnni") != 0;
}

// Linux hands the tile registers only to a process that has asked for them; asking again is harmless.
bool may_use_tiles() {
#if defined(__linux__) && defined(SYS_arch_prctl)
    constexpr long kRequestPermission = 0x1023;
    constexpr long kTileData = 18;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
#else
    return false;
#endif
}
bool has_amx() {
    static const bool usable =
        has_avx512vnni() && has_leaf7_bit(0, true, 24) && has_leaf7_bit(0, true, 25) && may_use_tiles();
    return usable;
}
#endif

#if defined(DEEPSSIM_HAVE_ARM64)
bool has_dot_product() { return (getauxval(AT_HWCAP) & HWCAP_ASIMDDP) != 0; }
#endif

// Ascending; the last that runs is the default.
constexpr Level kLevels[] = {
    {&kPortable, always},
#if defined(DEEPSSIM_HAVE_X86)
    {&kAvx2, has_avx2},           {&kAvxVnni, has_avxvnni}, {&kAvx512Vnni, has_avx512vnni}, {&kAmx, has_amx},
#endif
#if defined(DEEPSSIM_HAVE_ARM64)
    {&kNeonDot, has_dot_product},
#endif
};

}  // namespace

const Kernels& kernels_for(const char* level) {
    for (const Level& candidate : kLevels) {
        if (std::strcmp(candidate.kernels->name, level) == 0 && candidate.runs_here()) return *candidate.kernels;
    }
    throw InvalidInput(std::string("no kernels for ISA level ") + level);
}

}  // namespace simd

std::vector<std::string> supported_isa_levels() {
    std::vector<std::string> names;
    for (const simd::Level& level : simd::kLevels) {
        if (level.runs_here()) names.emplace_back(level.kernels->name);
    }
    return names;
}

std::string resolve_isa(std::string_view requested) {
    const std::vector<std::string> supported = supported_isa_levels();
    std::string wanted(requested);
    std::string origin = "the ISA level asked for";
    if (wanted.empty()) {
        const char* override_level = std::getenv("DEEPSSIM_ISA");
        if (override_level == nullptr || *override_level == '\0') return supported.back();
        wanted = override_level;
        origin = "the ISA level in DEEPSSIM_ISA";
    }
    std::string choices;
    for (const std::string& name : supported) {
        if (name == wanted) return wanted;
        choices += (choices.empty() ? "" : ", ") + name;
    }
    throw InvalidInput(origin + ", '" + wanted + "', does not run here; this processor runs: " + choices);
}

}  // namespace deepssim
