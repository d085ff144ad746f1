// Picks the registration kernels once, outside every loop. Compiled for the baseline processor.
#include <cstring>

#include "align.hpp"

namespace deepssim::simd {

const AlignKernels& align_kernels_for([[maybe_unused]] const char* level) {
#if defined(DEEPSSIM_HAVE_X86)
    if (std::strcmp(level, "avx512vnni") == 0 || std::strcmp(level, "amx") == 0) return kAlignAvx512;
    if (std::strcmp(level, "avx2") == 0 || std::strcmp(level, "avxvnni") == 0) return kAlignAvx2;
#endif
    return kAlignPortable;
}

}  // namespace deepssim::simd
