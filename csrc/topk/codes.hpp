// Integer codes of rows, and what they lose: the ground of the bound. See docs/core.md.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "deepssim/types.hpp"
#include "simd/kernels.hpp"

namespace deepssim {

// The largest code and what is added to the codes of base rows.
int code_limit(simd::CodeFormat format);
int code_offset(simd::CodeFormat format);

// Where step `step` of query `place` of a tile lies, in steps.
inline std::size_t query_place(const simd::Kernels& kernels, std::size_t step, std::size_t place) {
    const std::size_t run = kernels.step_run;
    return step / run * run * kernels.tile_queries + place * run + step % run;
}

// The largest 16-bit code of rows of `n` elements: n * limit^2 < 2^31.
int fine_limit(std::size_t n);

// How the elements of a row are split and padded. The head is scanned for every pair. Where there is a rest, pairs
// that the head could not discard are looked at once more: the head in 16-bit codes, the rest in bytes.
struct CodeShape {
    // Whole vectors of the coding kernel.
    static constexpr std::size_t kMostLead = 8;

    std::size_t dim = 0;
    std::size_t head = 0;        // elements; dim: there is no rest
    std::size_t lead = 0;        // the first elements of the head, which have norms of their own
    std::size_t steps = 0;       // of the head, padded
    std::size_t fine = 0;        // 16-bit codes of the head, padded; 0 without a rest
    std::size_t rest_bytes = 0;  // of a row's rest, padded

    CodeShape(std::size_t dim, std::size_t head, const simd::Kernels& kernels);
    std::size_t head_bytes() const { return steps * simd::kStepBytes; }
    std::size_t rest() const { return dim - head; }
    std::size_t fine_bytes() const { return fine * sizeof(std::int16_t); }
    // Of what is looked at once more.
    std::size_t tail_bytes() const { return fine_bytes() + rest_bytes; }

    // Bytes of a row's codes, however it is split.
    static std::size_t most_bytes(std::size_t dim, bool with_split, const simd::Kernels& kernels);
};

// A run of elements less their centre, coded at one scale. Norms are rounded up.
struct CodedPart {
    double scale = 1.0;  // code * scale approximates an element
    double norm = 0.0;   // of the elements
    double coded_norm = 0.0;
    double lost = 0.0;  // norm of what the codes lose
};

// Coded elements in two runs, the leading ones apart: by Cauchy-Schwarz in each, two of them bound an inner product
// more closely than one norm of all does, and never less. Where a rotation puts most of a row into few elements
// that halves the slack.
struct CodedHead {
    CodedPart lead;
    CodedPart other;
    double norm() const;  // of both
};

// The scale at which elements up to `largest` are coded; 1 where all are zero.
double scale_for(double largest, int limit);

// Codes `n` elements at a given scale.
CodedPart encode(const simd::Kernels& kernels, const float* row, const float* centre, std::size_t n, double scale,
                 int limit, std::int16_t* codes);

// Codes a head at a given scale.
CodedHead encode_head(const simd::Kernels& kernels, const CodeShape& shape, const float* row, const float* centre,
                      double scale, int limit, std::int16_t* codes);

// A linear map that is orthogonal up to a known defect, applied in float32.
class Rotation {
   public:
    // One to be filled by for_each_piece.
    static Rotation blank(std::size_t dim);

    // No rotation: rows go through as they are.
    explicit Rotation(std::size_t dim) : dim_(dim) {}
    // Rows of `matrix` (dim, dim) are the directions. Throws InvalidInput if it is far from orthogonal.
    Rotation(MatrixView matrix, const simd::Kernels& kernels);

    bool is_identity() const { return panels_.empty(); }
    std::size_t dim() const { return dim_; }

    // |p . y - q . x| <= relative() * |q| * |x| + absolute() * (|q| + |x| + 1) for the images p, y of rows q, x.
    double relative() const { return relative_; }
    double absolute() const { return absolute_; }

    // The first `n` elements (rounded up to whole panels) of the images of up to kernels.product_rows rows, to
    // out + i * stride, stride >= padded(n). `scratch` holds product_scratch(dim) floats.
    void apply(const simd::Kernels& kernels, std::span<const float* const> rows, std::size_t n, float* scratch,
               float* out, std::size_t stride) const;

    template <class Self, class Piece>
    static void for_each_piece(Self& self, const Piece& piece) {
        piece(self.panels_.data(), self.panels_.size() * sizeof(float));
        piece(&self.relative_, sizeof(double));
        piece(&self.absolute_, sizeof(double));
    }

    static std::size_t padded(std::size_t n) {
        return (n + simd::kPanelRows - 1) / simd::kPanelRows * simd::kPanelRows;
    }
    static std::size_t scratch_floats(std::size_t dim) { return 2 * simd::kMaxProductRows * padded(dim); }
    static std::size_t bytes(std::size_t dim) { return padded(dim) * dim * sizeof(float); }

   private:
    std::size_t dim_;
    std::vector<float> panels_;
    double relative_ = 0.0;
    double absolute_ = 0.0;
};

}  // namespace deepssim
