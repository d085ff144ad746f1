// AVX2: eight float32 to a vector.
#include "similarity-inl.hpp"
#include "similarity_kernels.hpp"

namespace deepssim::simd {

extern const SimilarityKernels kSimilarityAvx2 = {
    {byte_body<true, false>, byte_body<true, true>},
    {byte_body<false, false>, byte_body<false, true>},
    wide_body<true>,
    wide_body<false>,
    smooth_body,
    fsim_body,
};

}  // namespace deepssim::simd
