// AVX2.
#include "registered-inl.hpp"
#include "registered_kernels.hpp"

namespace deepssim::simd {

extern const RegisteredKernels kRegisteredAvx2 = {moments_body, structure_body, features_body};

}  // namespace deepssim::simd
