// What one query keeps while the base goes by.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "deepssim/types.hpp"

namespace deepssim {

// The best k matches seen so far (at most `max_per_group` of one group), in bounded memory: matches are
// appended to a buffer and the buffer is cut back to the answer when it is full.
class Keeper {
   public:
    Keeper(std::size_t k, std::size_t max_per_group);

    // Bytes of a keeper's buffers, at most.
    static std::size_t bytes(std::size_t k, std::size_t max_per_group);

    void reset(float floor);
    void add(Match match, GroupId group);

    // A match with a score below this cannot be in the answer any more. -infinity until k are held.
    float threshold() const { return threshold_; }

    // The answer so far, best first; valid until the next call.
    std::span<const Match> finish();

   private:
    static std::size_t buffer_size(std::size_t k);
    void cut_back();

    std::size_t k_;
    std::size_t max_per_group_;
    float floor_ = -std::numeric_limits<float>::infinity();
    float threshold_ = -std::numeric_limits<float>::infinity();
    std::vector<Match> matches_;
    std::vector<GroupId> groups_;
};

}  // namespace deepssim
