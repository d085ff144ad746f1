// The words of the core: views, matches and their total order, errors.
#pragma once

#include <cstddef>
#include <cstdint>
#include <limits>
#include <stdexcept>
#include <string>

namespace deepssim {

using RowId = std::int64_t;
using GroupId = std::int64_t;

// A group id that equals no other, itself included: the row belongs to no known group.
inline constexpr GroupId kNoGroup = -1;

// Rows wider than this are refused: every error bound of the core is proven up to here.
inline constexpr std::size_t kMaxDim = 65536;

// Rows with a Euclidean norm above 2^63 are refused: below it no product of two rows, nor any partial
// sum of one, can leave the range of float32 (2^126 < FLT_MAX).
inline constexpr double kMaxNorm = 9223372036854775808.0;

// A borrowed row-major float32 matrix with unit column stride.
struct MatrixView {
    const float* data = nullptr;
    std::size_t rows = 0;
    std::size_t cols = 0;
    std::ptrdiff_t row_stride = 0;  // in elements; may be negative

    const float* row(std::size_t i) const { return data + static_cast<std::ptrdiff_t>(i) * row_stride; }
};

struct Match {
    float score = -std::numeric_limits<float>::infinity();
    RowId id = -1;
};

// What fills the places of a result that no row took.
inline constexpr Match kPadding{};

// The one total order: higher score first, then lower id.
constexpr bool is_better(const Match& a, const Match& b) {
    return a.score > b.score || (a.score == b.score && a.id < b.id);
}

// A caller's input cannot be used: shapes, strides, values.
class InvalidInput : public std::invalid_argument {
   public:
    using std::invalid_argument::invalid_argument;
};

// A memory limit cannot be met; `minimum_bytes` is the smallest that can.
class MemoryLimitTooSmall : public std::runtime_error {
   public:
    MemoryLimitTooSmall(const std::string& what, std::size_t minimum)
        : std::runtime_error(what), minimum_bytes(minimum) {}
    std::size_t minimum_bytes;
};

// The work was cancelled by its caller; partial results are void.
class Cancelled : public std::runtime_error {
   public:
    Cancelled() : std::runtime_error("the search was cancelled") {}
};

}  // namespace deepssim
