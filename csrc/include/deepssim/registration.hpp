// Rigid registration of one grey image onto another of the same size, flips and a little zoom included.
#pragma once

#include <array>
#include <cstddef>
#include <memory>
#include <string_view>

#include "deepssim/types.hpp"

namespace deepssim {

// What happens to an image, about its centre: left and right exchanged, magnified, turned (counter-clockwise as seen,
// rows downwards), shifted; in this order. A flip upside down is a mirror image turned by 180 degrees.
struct Transform {
    bool is_mirrored = false;
    double angle_degrees = 0.0;  // over -180 to 180
    double shift_rows = 0.0;     // pixels, positive is down
    double shift_columns = 0.0;  // pixels, positive is to the right
    double scale = 1.0;
};

// [A | d], row by row: the pixel (row, column) of the result shows the pixel A (row, column) + d of the image.
using Matrix23 = std::array<double, 6>;
Matrix23 matrix_of(const Transform& transform, std::size_t rows, std::size_t cols);
// The transform that undoes this one.
Transform inverse(const Transform& transform);

// Everything of one image that does not depend on the other: a pyramid of locally normalised levels, grey values.
// Never changes once made, so any number of threads may read it.
class RegistrationImage {
   public:
    // `image` has finite grey values in [0, 1] and at most 4,096 rows and columns; throws InvalidInput.
    RegistrationImage(MatrixView image, std::string_view isa = "");
    ~RegistrationImage();
    RegistrationImage(const RegistrationImage&) = delete;
    RegistrationImage& operator=(const RegistrationImage&) = delete;
    RegistrationImage(RegistrationImage&&) noexcept;
    RegistrationImage& operator=(RegistrationImage&&) noexcept;

    std::size_t rows() const;
    std::size_t cols() const;
    std::size_t bytes() const;

    struct Parts;
    const Parts& parts() const { return *parts_; }

   private:
    std::unique_ptr<const Parts> parts_;
};

struct Registration {
    Transform transform;   // moves the moving image onto the fixed one
    double fit = 0.0;      // correlation of the locally normalised images over the overlap, -1 to 1
    double overlap = 0.0;  // part of the image that both show, the smaller of the two images' parts
};

struct Evidence {
    double s1 = 0.0;          // correlation of the locally normalised images over the overlap
    double s2 = 0.0;          // how well the worst places agree: low end of local correlation
    double local_mean = 0.0;  // mean of the local correlation whose low end S2 is
    double ncc = 0.0;         // correlation of the blurred grey values over the overlap
    double overlap = 0.0;     // as in Registration
};

// Where to write maps, each (rows, cols), NaN outside the overlap; null: not wanted.
struct EvidenceMaps {
    float* agreement = nullptr;          // product of the locally normalised images, whose mean S1 is
    float* local_correlation = nullptr;  // what S2 takes the low end of
};

// Registers images onto one fixed image, one pair at a time. Holds buffers: one a thread.
class Aligner {
   public:
    explicit Aligner(std::string_view isa = "");
    ~Aligner();
    Aligner(const Aligner&) = delete;
    Aligner& operator=(const Aligner&) = delete;

    // Takes the fixed image, which must outlive its use, and turns its thumbnail in all directions.
    void fix(const RegistrationImage& fixed);
    // The same for evidence() alone, which needs no turned thumbnails.
    void look_at(const RegistrationImage& fixed);
    // Finds what moves `moving` onto the fixed image. Always ends; `fit` says how well it went.
    Registration align(const RegistrationImage& moving, bool with_scale);
    Evidence evidence(const RegistrationImage& moving, const Transform& transform, const EvidenceMaps& maps = {});

    struct Workspace;

   private:
    std::unique_ptr<Workspace> workspace_;
};

// Shows `image` under `transform` by bilinear interpolation, zeros from outside.
void warp_image(MatrixView image, const Transform& transform, float* out);

}  // namespace deepssim
