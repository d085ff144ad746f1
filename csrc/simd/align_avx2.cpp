// The shared body for AVX2; also what AVX-VNNI machines run.
#include "align-inl.hpp"

namespace deepssim::simd {

extern const AlignKernels kAlignAvx2 = {"avx2",      warp_body, pair_body,       normal_body,
                                        smooth_body, bank_body, local_norm_body, local_correlation_body};

}  // namespace deepssim::simd
