// Picks the table of image similarity. Compiled for the baseline processor.
#include <string>
#include <string_view>

#include "deepssim/types.hpp"
#include "similarity_kernels.hpp"

namespace deepssim::simd {

const SimilarityKernels& similarity_kernels_for(const char* level) {
    const std::string_view name(level);
    if (name == "portable" || name == "neondot") return kSimilarityPortable;
#if defined(DEEPSSIM_HAVE_X86)
    if (name == "avx2" || name == "avxvnni") return kSimilarityAvx2;
    if (name == "avx512vnni" || name == "amx") return kSimilarityAvx512;
#endif
    throw InvalidInput("no kernels for ISA level " + std::string(name));
}

}  // namespace deepssim::simd
