#include "query_block.hpp"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "deepssim/exact.hpp"

namespace deepssim {

namespace {

// Slack terms are rounded up by this, thresholds down: more than the additions and products after can lose.
constexpr double kUp = 1.0 + 0x1p-40;

std::size_t padded_to_tiles(std::size_t n, std::size_t tile) { return (n + tile - 1) / tile * tile; }

double lowered(double value) { return std::isfinite(value) ? value - std::fabs(value) * 0x1p-40 : value; }

}  // namespace

std::size_t QueryBlock::bytes(std::size_t capacity, std::size_t dim, bool with_split, const simd::Kernels& kernels) {
    const std::size_t n = padded_to_tiles(capacity, kernels.tile_queries);
    const std::size_t per_query = CodeShape::most_bytes(dim, with_split, kernels) + simd::kQueryTerms * sizeof(double) +
                                  sizeof(std::int32_t) + sizeof(Bounds) +
                                  (with_split ? Guide::kMostFound * sizeof(std::uint32_t) : 0);
    const std::size_t images = simd::kMaxProductRows * Rotation::padded(dim);
    const std::size_t scratch = std::max(Rotation::scratch_floats(dim), Guide::most_scratch_floats());
    return n * per_query + (dim + scratch + images) * sizeof(float) + dim * sizeof(std::int16_t) + 1024;
}

QueryBlock::QueryBlock(const PreparedBase& base, const simd::Kernels& kernels, std::size_t capacity,
                       std::size_t n_likely)
    : base_(base), kernels_(kernels), tile_(kernels.tile_queries), n_likely_(n_likely) {
    const CodeShape& shape = base.shape();
    const std::size_t n = padded_to_tiles(capacity, tile_);
    head_.resize(n * shape.head_bytes());
    tail_.resize(n * shape.tail_bytes());
    terms_.resize(n * simd::kQueryTerms);
    starts_.resize(n);
    bounds_.resize(n);
    origin_.resize(shape.dim, 0.0F);
    likely_.resize(n_likely * n);
    product_.resize(std::max(Rotation::scratch_floats(shape.dim), base.guide().scratch_floats()));
    images_.resize(simd::kMaxProductRows * Rotation::padded(shape.dim));
    codes_.resize(shape.dim);
}

void QueryBlock::load(MatrixView queries, std::span<const double> norms, std::size_t first, std::size_t count) {
    const std::size_t dim = base_.shape().dim;
    const std::size_t stride = Rotation::padded(dim);
    size_ = count;
    std::fill(head_.begin(), head_.end(), std::byte{0});
    std::fill(tail_.begin(), tail_.end(), std::byte{0});
    std::fill(starts_.begin(), starts_.end(), 0);
    // Places that no query takes have a cut that no sum reaches, unless rows ask for pairs themselves.
    for (std::size_t t = 0; t < terms_.size(); t += simd::kQueryTerms * tile_) {
        std::fill_n(terms_.begin() + static_cast<std::ptrdiff_t>(t), simd::kQueryTerms * tile_, 0.0);
        std::fill_n(terms_.begin() + static_cast<std::ptrdiff_t>(t), tile_, std::numeric_limits<double>::infinity());
        std::fill_n(terms_.begin() + static_cast<std::ptrdiff_t>(t + simd::kReverseFactor * tile_), tile_, 1.0);
    }
    for (std::size_t start = 0; start < count; start += kernels_.product_rows) {
        const float* rows[simd::kMaxProductRows];
        const std::size_t n = std::min(kernels_.product_rows, count - start);
        for (std::size_t i = 0; i < n; ++i) rows[i] = queries.row(first + start + i);
        base_.rotation().apply(kernels_, {rows, n}, dim, product_.data(), images_.data(), stride);
        if (n_likely_ > 0) {
            base_.guide().find(kernels_, images_.data(), stride, n, n_likely_, product_.data(),
                               likely_.data() + start * n_likely_);
        }
        for (std::size_t i = 0; i < n; ++i) {
            load_one(start + i, images_.data() + i * stride, norms[first + start + i]);
        }
    }
}

void QueryBlock::load_one(std::size_t slot, const float* image, double norm) {
    const CodeShape& shape = base_.shape();
    const std::vector<float>& centre = base_.centre();
    const int limit = code_limit(kernels_.format);
    const int offset = code_offset(kernels_.format);
    Bounds& q = bounds_[slot];
    q = {};

    const double head_largest = kernels_.largest(image, origin_.data(), shape.head);
    const CodedHead head =
        encode_head(kernels_, shape, image, origin_.data(), scale_for(head_largest, limit), limit, codes_.data());
    std::int32_t sum = 0;
    for (std::size_t d = 0; d < shape.head; ++d) sum += codes_[d];
    starts_[slot] = -offset * sum;
    std::byte* tile = head_.data() + slot / tile_ * tile_ * shape.head_bytes();
    const std::size_t place = slot % tile_;
    for (std::size_t d = 0; d < shape.head; d += simd::kStepBytes) {
        std::byte* out = tile + query_place(kernels_, d / simd::kStepBytes, place) * simd::kStepBytes;
        for (std::size_t i = 0; i < std::min(simd::kStepBytes, shape.head - d); ++i) {
            out[i] = static_cast<std::byte>(codes_[d + i]);
        }
    }
    q.scale = head.lead.scale;
    q.lead_coded = head.lead.coded_norm;
    q.lead_lost = head.lead.lost;
    q.other_coded = head.other.coded_norm;
    q.other_lost = head.other.lost;
    if (shape.rest() > 0) load_tail(slot, image, head_largest);
    q.offset = kernels_.inner(image, centre.data(), shape.dim);
    q.turned = base_.rotation().relative() * norm;
    const double reach = 4.0 * (base_.largest_norm() + base_.centre_norm());
    q.margin =
        (float64_error_factor(shape.dim) + 0x1p-46) * (head.norm() + q.rest_norm) * (base_.centre_norm() + reach) +
        base_.rotation().absolute() * (norm + base_.largest_norm() + 1.0);

    double* terms = terms_.data() + slot / tile_ * tile_ * simd::kQueryTerms + place;
    const double inverse = 1.0 / q.scale;
    terms[simd::kReverseOffset * tile_] = q.offset + q.margin + 0x1p-40 * (std::fabs(q.offset) + q.margin);
    terms[simd::kReverseFactor * tile_] = inverse;
    const double slacks[simd::kSlacks] = {q.lead_coded, q.lead_lost, q.other_coded,
                                          q.other_lost, q.rest_norm, q.turned};
    for (std::size_t t = 0; t < simd::kSlacks; ++t) terms[(simd::kSlack + t) * tile_] = slacks[t] * inverse * kUp;
}

void QueryBlock::load_tail(std::size_t slot, const float* image, double head_largest) {
    const CodeShape& shape = base_.shape();
    Bounds& q = bounds_[slot];
    std::byte* out = tail_.data() + slot * shape.tail_bytes();
    const int fine = fine_limit(shape.head);
    const CodedHead head =
        encode_head(kernels_, shape, image, origin_.data(), scale_for(head_largest, fine), fine, codes_.data());
    std::memcpy(out, codes_.data(), shape.head * sizeof(std::int16_t));
    q.fine_scale = head.lead.scale;
    q.fine_lead_coded = head.lead.coded_norm;
    q.fine_lead_lost = head.lead.lost;
    q.fine_other_coded = head.other.coded_norm;
    q.fine_other_lost = head.other.lost;

    const float* tail = image + shape.head;
    const int limit = code_limit(kernels_.format);
    const double largest = kernels_.largest(tail, origin_.data(), shape.rest());
    const CodedPart rest =
        encode(kernels_, tail, origin_.data(), shape.rest(), scale_for(largest, limit), limit, codes_.data());
    out += shape.fine * sizeof(std::int16_t);
    std::int32_t sum = 0;
    for (std::size_t d = 0; d < shape.rest(); ++d) {
        out[d] = static_cast<std::byte>(codes_[d]);
        sum += codes_[d];
    }
    q.rest_start = -code_offset(kernels_.format) * sum;
    q.rest_scale = rest.scale;
    q.rest_norm = rest.norm;
    q.rest_coded = rest.coded_norm;
    q.rest_lost = rest.lost;
}

void QueryBlock::set_cut(std::size_t slot, double cut) {
    const Bounds& q = bounds_[slot];
    double* terms = terms_.data() + slot / tile_ * tile_ * simd::kQueryTerms + slot % tile_;
    // The difference is rounded by 2^-53 of its parts, the rest is relative.
    const double room = cut - q.offset - q.margin - 0x1p-40 * (std::fabs(q.offset) + q.margin);
    terms[simd::kCut * tile_] = lowered(std::isfinite(cut) ? (room - 0x1p-40 * std::fabs(cut)) / q.scale : cut);
}

simd::ScanJob QueryBlock::job(std::size_t g, const double* group_terms, std::size_t first, std::size_t count) const {
    const std::size_t start = first * tile_;
    return {base_.head(g),
            group_terms,
            base_.shape().steps,
            count,
            head_.data() + start * base_.shape().head_bytes(),
            terms_.data() + start * simd::kQueryTerms,
            starts_.data() + start};
}

double QueryBlock::slack(std::size_t slot, std::size_t g) const {
    const Bounds& q = bounds_[slot];
    const PreparedBase::Group& group = base_.group(g);
    return (q.lead_coded * group.lead_lost + q.lead_lost * group.lead_norm + q.other_coded * group.other_lost +
            q.other_lost * group.other_norm + q.rest_norm * group.rest_norm + q.turned * group.norm + q.margin) *
           kUp;
}

double QueryBlock::fine_head_slack(const Bounds& q, const PreparedBase::Group& group) {
    return q.fine_lead_coded * group.fine_lead_lost + q.fine_lead_lost * group.lead_norm +
           q.fine_other_coded * group.fine_other_lost + q.fine_other_lost * group.other_norm + q.turned * group.norm +
           q.margin;
}

double QueryBlock::fine_slack(std::size_t slot, std::size_t g) const {
    const Bounds& q = bounds_[slot];
    const PreparedBase::Group& group = base_.group(g);
    return (fine_head_slack(q, group) + q.rest_norm * group.rest_norm) * kUp;
}

double QueryBlock::refined_slack(std::size_t slot, std::size_t g) const {
    const Bounds& q = bounds_[slot];
    const PreparedBase::Group& group = base_.group(g);
    return (fine_head_slack(q, group) + q.rest_coded * group.rest_lost + q.rest_lost * group.rest_norm) * kUp;
}

QueryBlock::Refiner::Refiner(const QueryBlock& block, std::size_t slot, std::size_t g)
    : base_(block.base_),
      fine_dot_(block.kernels_.fine_dot),
      dot_(block.kernels_.dot),
      fine_(reinterpret_cast<const std::int16_t*>(block.tail_.data() + slot * block.base_.shape().tail_bytes())),
      rest_(block.tail_.data() + slot * block.base_.shape().tail_bytes() +
            block.base_.shape().fine * sizeof(std::int16_t)),
      n_fine_(block.base_.shape().fine),
      rest_bytes_(block.base_.shape().rest_bytes),
      offset_(block.bounds_[slot].offset),
      head_factor_(block.bounds_[slot].fine_scale * block.base_.group(g).fine_scale),
      rest_factor_(block.bounds_[slot].rest_scale * block.base_.group(g).rest_scale),
      rest_start_(block.bounds_[slot].rest_start) {}

}  // namespace deepssim
