// The kernel table of what is measured on a registered pair. Declarations and plain data only, as in kernels.hpp and
// for its reason.
#pragma once

#include <cstddef>

#include "align.hpp"

namespace deepssim::simd {

// Accumulators have this many lanes at every level, so that all round alike.
inline constexpr int kRegisteredLanes = 16;
inline constexpr int kSsimTaps = 7;
inline constexpr int kSsimReach = kSsimTaps / 2;

// Two images in one frame; rows are `stride` apart.
struct PairView {
    const float* a;
    const float* b;
    std::ptrdiff_t stride;
    int rows;
    int cols;
};

// Over the spans, which hold `n` pixels.
struct Moments {
    double mean[2];
    double squares[2];  // sums of squares about the mean
    double products;
    float least[2];
    float most[2];
};

struct StructureJob {
    PairView pair;
    Spans overlap;
    Spans windows;  // by their centres; their 7 x 7 pixels lie in the overlap
    double mean[2];
    double scale[2];  // of the z-score
    double c1;
    double c2;
    double* scratch;  // kStructureLines * stride
    float* ssim;      // maps, rows of `cols`, written at centres of windows; may be null
    float* structure;
};
inline constexpr int kStructureLines = 2 * kSsimTaps + 6;

struct StructureSums {
    double ssim;
    double structure;
};

struct FeatureJob {
    PairView pair;
    Spans features;  // pixels all of whose neighbours in the frame may be used
    float* scratch;  // (4 * rows + 2) * stride
};

struct FeatureSums {
    double over;
    double under;
};

struct RegisteredKernels {
    void (*moments)(const PairView& pair, const Spans& spans, double n, Moments& out);
    StructureSums (*structure)(const StructureJob& job);
    FeatureSums (*features)(const FeatureJob& job);
};

extern const RegisteredKernels kRegisteredPortable;
extern const RegisteredKernels kRegisteredAvx2;
extern const RegisteredKernels kRegisteredAvx512;

// The table of a level named by resolve_isa().
const RegisteredKernels& registered_kernels_for(const char* level);

}  // namespace deepssim::simd
