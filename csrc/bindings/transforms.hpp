// Transforms as Python hands them over: is_mirrored, angle, row shift, column shift, scale.
#pragma once

#include <cmath>
#include <tuple>

#include "deepssim/registration.hpp"
#include "deepssim/types.hpp"

namespace deepssim::bindings {

using Numbers = std::tuple<bool, double, double, double, double>;

inline Transform as_transform(const Numbers& numbers) {
    const auto& [is_mirrored, angle, rows, columns, scale] = numbers;
    // Written so that NaN fails too.
    if (!(std::abs(angle) <= 1e6 && std::abs(rows) <= 1e6 && std::abs(columns) <= 1e6)) {
        throw InvalidInput("the transform's angle or shift is not finite or over a million");
    }
    if (!(scale >= 0.1 && scale <= 10.0)) throw InvalidInput("the transform's scale is outside 0.1 to 10");
    return {is_mirrored, angle, rows, columns, scale};
}

inline Numbers as_numbers(const Transform& t) {
    return {t.is_mirrored, t.angle_degrees, t.shift_rows, t.shift_columns, t.scale};
}

}  // namespace deepssim::bindings
