// A block of queries, coded for the scan, with what bounds their scores.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "codes.hpp"
#include "deepssim/types.hpp"
#include "prepared_base.hpp"
#include "simd/kernels.hpp"

namespace deepssim {

class QueryBlock {
   public:
    // What bounds the scores of one query: |score - approximation| <= slack, see docs/core.md.
    struct Bounds {
        double scale = 1.0;   // of the head's codes
        double offset = 0.0;  // the score with the centre
        double margin = 0.0;  // rounding, apart from the codes
        double lead_coded = 0.0;
        double lead_lost = 0.0;
        double other_coded = 0.0;
        double other_lost = 0.0;
        double fine_scale = 1.0;  // of the head's 16-bit codes
        double fine_lead_coded = 0.0;
        double fine_lead_lost = 0.0;
        double fine_other_coded = 0.0;
        double fine_other_lost = 0.0;
        double rest_scale = 1.0;
        double rest_norm = 0.0;
        double rest_coded = 0.0;
        double rest_lost = 0.0;
        double turned = 0.0;          // what the rotation's defect costs, per norm of a base row
        std::int32_t rest_start = 0;  // undoes the offset of the rest's codes
    };

    // `n_likely` groups are looked for that may hold a query's best.
    QueryBlock(const PreparedBase& base, const simd::Kernels& kernels, std::size_t capacity, std::size_t n_likely);

    static std::size_t bytes(std::size_t capacity, std::size_t dim, bool with_split, const simd::Kernels& kernels);

    // Codes queries [first, first + count); their norms are upper bounds.
    void load(MatrixView queries, std::span<const double> norms, std::size_t first, std::size_t count);

    std::size_t size() const { return size_; }
    std::size_t n_tiles() const { return (size_ + tile_ - 1) / tile_; }
    const Bounds& bounds(std::size_t slot) const { return bounds_[slot]; }
    // As Guide::find.
    std::span<const std::uint32_t> likely(std::size_t slot) const {
        return {likely_.data() + slot * n_likely_, n_likely_};
    }

    // A pair whose score is below `cut` need not be found for this query any more.
    void set_cut(std::size_t slot, double cut);

    // Tiles [first, first + count) against a group; group_terms as PreparedBase::terms().
    simd::ScanJob job(std::size_t g, const double* group_terms, std::size_t first, std::size_t count) const;

    // The approximate score of a pair by the head alone is offset + head_factor * its integer sum.
    double head_factor(std::size_t slot, std::size_t g) const { return bounds_[slot].scale * base_.group(g).scale; }
    // How far the score can be from that.
    double slack(std::size_t slot, std::size_t g) const;
    // A closer look at pairs of a query with a group, where rows have a rest: by the head's 16-bit codes and the
    // rest's codes.
    class Refiner {
       public:
        Refiner(const QueryBlock& block, std::size_t slot, std::size_t g);
        // By the head's codes alone.
        double head(std::size_t position) const {
            const std::int32_t sum = fine_dot_(fine_, base_.fine(position), n_fine_);
            return offset_ + head_factor_ * static_cast<double>(sum);
        }
        // What the rest adds.
        double rest(std::size_t position) const {
            const std::int32_t sum = rest_start_ + dot_(rest_, base_.rest(position), rest_bytes_);
            return rest_factor_ * static_cast<double>(sum);
        }

       private:
        const PreparedBase& base_;
        decltype(simd::Kernels::fine_dot) fine_dot_;
        decltype(simd::Kernels::dot) dot_;
        const std::int16_t* fine_;
        const std::byte* rest_;
        std::size_t n_fine_;
        std::size_t rest_bytes_;
        double offset_;
        double head_factor_;
        double rest_factor_;
        std::int32_t rest_start_;
    };
    // How far the score can be from what a Refiner gives for the head, and for head and rest.
    double fine_slack(std::size_t slot, std::size_t g) const;
    double refined_slack(std::size_t slot, std::size_t g) const;

   private:
    static double fine_head_slack(const Bounds& q, const PreparedBase::Group& group);
    void load_one(std::size_t slot, const float* image, double norm);
    void load_tail(std::size_t slot, const float* image, double head_largest);

    const PreparedBase& base_;
    const simd::Kernels& kernels_;
    std::size_t tile_;
    std::size_t n_likely_;
    std::size_t size_ = 0;
    std::vector<std::byte> head_;
    std::vector<std::byte> tail_;
    std::vector<double> terms_;
    std::vector<std::int32_t> starts_;
    std::vector<Bounds> bounds_;
    std::vector<float> origin_;  // zeros: queries are not centred
    std::vector<std::uint32_t> likely_;
    std::vector<float> product_;
    std::vector<float> images_;
    std::vector<std::int16_t> codes_;
};

}  // namespace deepssim
