// A base made ready to be scanned: rotated, ordered, coded, with what bounds the scores of each group.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base_rows.hpp"
#include "codes.hpp"
#include "common/buffer.hpp"
#include "deepssim/searcher.hpp"
#include "guide.hpp"
#include "simd/kernels.hpp"

namespace deepssim {

class PreparedBase {
   public:
    // Takes all rows of `base`. Codes are made on `threads` threads; `poll` as in run_parallel.
    PreparedBase(const BaseRows& base, const Preparation& preparation, const simd::Kernels& kernels,
                 std::size_t threads, const std::function<void()>& poll);

    // Takes up what write() wrote of the same rows at a level with the same codes. Throws InvalidInput for what
    // cannot be that.
    PreparedBase(const BaseRows& base, const PreparedHeader& header, const simd::Kernels& kernels,
                 const ReadBytes& read);

    PreparedHeader header() const { return {shape_.dim, groups_rows_, shape_.head, !rotation_.is_identity()}; }
    // Everything but the header, piece by piece, without a copy.
    void write(const WriteBytes& write) const;

    struct Group {
        double scale;  // of the head's codes
        // The largest of its rows', less the centre: of the leading elements and of the head's others.
        double lead_norm;
        double lead_lost;
        double other_norm;
        double other_lost;
        double fine_scale;  // of the head's 16-bit codes
        double fine_lead_lost;
        double fine_other_lost;
        double rest_scale;
        double rest_norm;
        double rest_lost;
        double norm;  // the largest of its rows'
        std::uint32_t rows;
    };

    const CodeShape& shape() const { return shape_; }
    const Rotation& rotation() const { return rotation_; }
    const std::vector<float>& centre() const { return centre_; }
    double centre_norm() const { return centre_norm_; }
    double largest_norm() const { return largest_norm_; }
    std::size_t n_groups() const { return groups_.size(); }
    // The group that comes i-th in a scan. Groups hold rows that are alike; taken in turn from all over the order,
    // the first few show what the whole base is like, and thresholds rise soon.
    std::size_t visited(std::size_t i) const { return i * stride_ % groups_.size(); }
    const Group& group(std::size_t g) const { return groups_[g]; }
    // Of no elements where rows are scanned whole.
    const Guide& guide() const { return guide_; }
    const double* terms(std::size_t g) const { return terms_.data() + g * simd::kGroupTerms; }
    const std::byte* head(std::size_t g) const { return head_.get() + g * simd::kGroupRows * shape_.head_bytes(); }
    // A row's 16-bit codes of the head, and its codes of the rest.
    const std::int16_t* fine(std::size_t position) const {
        return reinterpret_cast<const std::int16_t*>(fine_.get() + position * shape_.fine_bytes());
    }
    const std::byte* rest(std::size_t position) const { return rest_.get() + position * shape_.rest_bytes; }
    // Asks for what the rows of a group with a bit in `rows` are looked at by once more.
    void prefetch_tails(std::size_t g, std::uint64_t rows) const;
    // The base row at a position of the scan's order.
    std::size_t row(std::size_t position) const { return order_[position]; }

    // Bytes of a prepared base, and what making it takes besides.
    static std::size_t bytes(std::size_t dim, std::size_t rows, bool with_rotation, std::size_t threads,
                             const simd::Kernels& kernels);

   private:
    struct Scratch;
    void allocate(std::size_t rows);
    void set_centre(const std::vector<float>& mean, const simd::Kernels& kernels);
    void order_rows(const BaseRows& base, const simd::Kernels& kernels, std::size_t threads,
                    const std::function<void()>& poll);
    void code_head(const simd::Kernels& kernels, std::size_t position, const float* image, Group& group,
                   std::int16_t* codes);
    void code_tail(const simd::Kernels& kernels, std::size_t position, const float* image, Group& group,
                   std::int16_t* codes);
    void code_group(const BaseRows& base, const simd::Kernels& kernels, std::size_t g, Scratch& scratch);

    // Calls piece(pointer, bytes) for everything that a prepared base holds.
    template <class Self, class Piece>
    static void for_each_piece(Self& self, const Piece& piece);

    CodeShape shape_;
    Rotation rotation_;
    std::vector<float> centre_;  // of the rotated rows
    double centre_norm_ = 0.0;
    double largest_norm_ = 0.0;
    std::vector<std::uint32_t> order_;
    std::vector<Group> groups_;
    std::size_t groups_rows_ = 0;
    std::size_t stride_ = 1;  // has no divisor in common with the number of groups
    std::vector<double> terms_;
    Guide guide_{0, 0};
    Buffer head_;
    Buffer fine_;
    Buffer rest_;
};

}  // namespace deepssim
