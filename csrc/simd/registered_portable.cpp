// The baseline processor.
#include "registered-inl.hpp"
#include "registered_kernels.hpp"

namespace deepssim::simd {

extern const RegisteredKernels kRegisteredPortable = {moments_body, structure_body, features_body};

}  // namespace deepssim::simd
