// How alike two images are once one is laid onto the other: the field's statistics over the pixels that both show.
//
// SSIM: Wang, Bovik, Sheikh, Simoncelli, IEEE TIP 13(4), 2004, equation 13, 7 x 7 windows with the sample covariance,
// on grey values taken to zero mean and unit population variance over the overlap, K1 = .01 and K2 = .03 times the
// range of the first image there; the mean over the windows that lie wholly in the overlap. FSIM: as fsim.hpp, on
// grey values to 255, over the pixels all of whose neighbours in the frame lie in the overlap; maxima over the same.
//
// With full overlap and the identity these are similarity.hpp's numbers, to 1e-6.
#pragma once

#include <memory>
#include <string_view>

#include "deepssim/registration.hpp"
#include "deepssim/types.hpp"

namespace deepssim {

struct RegisteredSimilarity {
    double ssim = 0.0;
    double contrast_structure = 0.0;  // SSIM without the luminance term
    double fsim = 0.0;
    double ncc = 0.0;      // Pearson's correlation of grey values; 0 where an image is constant
    double overlap = 0.0;  // as in Registration
};

// Where to write maps, each (rows, cols), NaN but at the centres of windows; null: not wanted.
struct RegisteredMaps {
    float* ssim = nullptr;
    float* contrast_structure = nullptr;
};

// Buffers of compare_registered() and the kernels of a level: one a thread, for pairs of any size.
class RegisteredWorkspace {
   public:
    explicit RegisteredWorkspace(std::string_view isa = "");
    ~RegisteredWorkspace();
    RegisteredWorkspace(const RegisteredWorkspace&) = delete;
    RegisteredWorkspace& operator=(const RegisteredWorkspace&) = delete;

    struct Parts;
    Parts& parts() { return *parts_; }

   private:
    std::unique_ptr<Parts> parts_;
};

// Compares `a` with `b` under `transform` (bilinear). Grey values are in [0, 1]; both images have one size, from 7 x 7
// to 4,096 x 4,096; throws InvalidInput otherwise. All but the overlap are -1 where that is below 35 %; `ssim` and
// `contrast_structure` are -1 too where no window fits. Where both are constant in the overlap both are 1, where `a`
// alone is 0; images without an edge have `fsim` 0.
RegisteredSimilarity compare_registered(MatrixView a, MatrixView b, const Transform& transform,
                                        RegisteredWorkspace& workspace, const RegisteredMaps& maps = {});

}  // namespace deepssim
