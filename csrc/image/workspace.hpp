// The buffers of one Aligner, and its steps.
#pragma once

#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

#include "image/registration_image.hpp"
#include "image/transform.hpp"

namespace deepssim {

struct Start {
    Pose pose;
    double score = 0.0;
};

// All flips and rotations of the fixed thumbnail, turned into the frame of the moving one, and their scores at shifts;
// eight bits a pixel.
class Bank {
   public:
    void build(const simd::AlignKernels& kernels, const Plane& thumbnail, double factor_rows, double factor_columns);
    // The best starts, best first, at most `wanted`, none turned nearly as a better one of its zoom.
    void find(const simd::AlignKernels& kernels, const Plane& thumbnail, double factor_rows, double factor_columns,
              bool with_scale, std::size_t wanted, std::vector<Start>& starts);

   private:
    // Adds the best starts of the moving thumbnail shown at one zoom.
    void look(const simd::AlignKernels& kernels, double zoom, double factor_rows, double factor_columns,
              std::size_t wanted, std::vector<Start>& starts);

    int rows_ = 0;
    int width_ = 0;
    int reach_rows_ = 0;
    AlignedVector<std::int8_t> templates_;
    std::vector<std::int32_t> sums_;       // of each template
    std::vector<double> inverse_lengths_;  // of each template
    AlignedVector<std::uint8_t> padded_;
    std::vector<std::int32_t> scores_;
    RowPairs pairs_;
    Plane shown_;
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
// Best first, equals in their order: an insertion, for the handful that there are.
template <class Scored>
void sort_best_first(std::vector<Scored>& items) {
    for (std::size_t i = 1; i < items.size(); ++i) {
        for (std::size_t k = i; k > 0 && items[k].score > items[k - 1].score; --k) std::swap(items[k], items[k - 1]);
    }
}
// The smaller of the parts of the two images that `count` fixed pixels cover.
double overlap_of(const Pose& pose, std::size_t count, int rows, int cols);
// Correlation from sums over n pixels; 0 where one image is constant.
double correlation_of(const simd::PairSums& sums, double n);

}  // namespace deepssim
