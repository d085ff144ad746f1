// AVX-512: sixteen float32 to a vector.
#include "similarity-inl.hpp"
#include "similarity_kernels.hpp"

namespace deepssim::simd {

extern const SimilarityKernels kSimilarityAvx512 = {byte_body<true>,  byte_body<false>, wide_body<true>,
                                                    wide_body<false>, smooth_body,      fsim_body};

}  // namespace deepssim::simd
