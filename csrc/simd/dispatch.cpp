// Picks the kernel table once, outside every loop. Compiled for the baseline processor.
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
bool has_avx512() { return has_avx2() && __builtin_cpu_supports("avx512f") != 0; }
#endif

// Ascending; the last that runs is the default.
constexpr Level kLevels[] = {
    {&kPortable, always},
#if defined(DEEPSSIM_HAVE_X86)
    {&kAvx2, has_avx2},
    {&kAvx512, has_avx512},
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
