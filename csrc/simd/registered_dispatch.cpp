// Picks the table for registered pairs. Compiled for the baseline processor.
#include <cstring>

#include "registered_kernels.hpp"

namespace deepssim::simd {

const RegisteredKernels& registered_kernels_for([[maybe_unused]] const char* level) {
#if defined(DEEPSSIM_HAVE_X86)
    if (std::strcmp(level, "avx512vnni") == 0 || std::strcmp(level, "amx") == 0) return kRegisteredAvx512;
    if (std::strcmp(level, "avx2") == 0 || std::strcmp(level, "avxvnni") == 0) return kRegisteredAvx2;
#endif
    return kRegisteredPortable;
}

}  // namespace deepssim::simd
