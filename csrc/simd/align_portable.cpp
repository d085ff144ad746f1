// Plain C++: runs anywhere.
#include "align-inl.hpp"

namespace deepssim::simd {

extern const AlignKernels kAlignPortable = {"portable",  warp_body, pair_body,       normal_body,
                                            smooth_body, bank_body, local_norm_body, local_correlation_body};

}  // namespace deepssim::simd
