// The shared body for AVX-512VL; also what AMX machines run.
#include "align-inl.hpp"

namespace deepssim::simd {

extern const AlignKernels kAlignAvx512 = {"avx512",    warp_body, pair_body,       normal_body,
                                          smooth_body, bank_body, local_norm_body, local_correlation_body};

}  // namespace deepssim::simd
