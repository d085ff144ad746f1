// The buffers of one Aligner, and its steps.
#pragma once

#include <vector>

#include "image/registration_image.hpp"
#include "image/transform.hpp"

namespace deepssim {

struct Start {
    Pose pose;
    float score = 0.0F;
};

// All flips and rotations of the fixed thumbnail, turned into the frame of the moving one, and their scores at shifts.
class Bank {
   public:
    void build(const simd::AlignKernels& kernels, const Plane& thumbnail, double factor_rows, double factor_columns);
    // The best starts, best first, at most `wanted`, none close to a better one.
    void find(const simd::AlignKernels& kernels, const Plane& thumbnail, double factor_rows, double factor_columns,
              std::size_t wanted, std::vector<Start>& starts);

   private:
    int rows_ = 0;
    int width_ = 0;
    int reach_rows_ = 0;
    AlignedFloats templates_;
    AlignedFloats padded_;
    std::vector<float> scores_;
    Plane turned_;
    RowPairs pairs_;
    SpanList spans_;
};

struct Candidate {
    Pose pose;
    double score = -1.0;
    double overlap = 0.0;
};

struct Aligner::Workspace {
    explicit Workspace(const simd::AlignKernels& table) : kernels(table), smoother(table) {}

    const simd::AlignKernels& kernels;
    const RegistrationImage* fixed = nullptr;
    Smoother smoother;
    Bank bank;
    std::vector<Start> starts;
    RowPairs moving;  // what is being warped
    Plane warped;
    SpanList spans;
    SpanList inner;
    // Evidence.
    Plane mask;
    Plane inverse;  // of the smoothed mask
    Plane blurred[2];
    Plane locals[2];
    SpanList full;
    SpanList edge;  // spans less what interpolation mixed with the fill
    Plane sums[6];
    Plane correlation;
    std::vector<float> lowest;
};

// Throws InvalidInput where there is no fixed image or the sizes differ.
void check_pair(const Aligner::Workspace& work, const RegistrationImage& moving);
// The smaller of the parts of the two images that `count` fixed pixels cover.
double overlap_of(const Pose& pose, std::size_t count, int rows, int cols);
// Correlation from sums over n pixels; 0 where one image is constant.
double correlation_of(const simd::PairSums& sums, double n);

}  // namespace deepssim
