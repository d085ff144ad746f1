// Comparisons of runs of float32 with a limit, in the compiler's vectors of four.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

namespace deepssim {

namespace compare {

using Floats4 = float __attribute__((vector_size(16)));
using Ints4 = std::int32_t __attribute__((vector_size(16)));

inline Floats4 load(const float* from) {
    Floats4 four;
    std::memcpy(&four, from, sizeof(four));
    return four;
}

}  // namespace compare

// Whether one of 16 values is larger.
inline bool is_any_over(const float* values, float limit) {
    using compare::load;
    const compare::Floats4 limits = {limit, limit, limit, limit};
    const compare::Ints4 over = (load(values) > limits) | (load(values + 4) > limits) | (load(values + 8) > limits) |
                                (load(values + 12) > limits);
    std::uint64_t halves[2];
    std::memcpy(halves, &over, sizeof(halves));
    return (halves[0] | halves[1]) != 0;
}

// How many of the values, a multiple of four of them, are as large.
inline std::size_t count_reaching(std::span<const float> values, float limit) {
    const compare::Floats4 limits = {limit, limit, limit, limit};
    compare::Ints4 counts = {};
    for (std::size_t i = 0; i < values.size(); i += 4) counts -= compare::load(values.data() + i) >= limits;
    std::size_t count = 0;
    for (int lane = 0; lane < 4; ++lane) count += static_cast<std::size_t>(counts[lane]);
    return count;
}

// Bit i: value i of 64 is smaller. NaN is not.
inline std::uint64_t mask_below(const float* values, float limit) {
    const compare::Floats4 limits = {limit, limit, limit, limit};
    constexpr compare::Ints4 kBits = {1, 2, 4, 8};
    std::uint64_t mask = 0;
    for (std::size_t i = 0; i < 64; i += 4) {
        const compare::Ints4 bits = (compare::load(values + i) < limits) & kBits;
        const std::int32_t four = bits[0] | bits[1] | bits[2] | bits[3];
        mask |= static_cast<std::uint64_t>(four) << i;
    }
    return mask;
}

}  // namespace deepssim
