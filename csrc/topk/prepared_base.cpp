#include "prepared_base.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <numeric>

#include "common/parallel.hpp"
#include "deepssim/cancel.hpp"
#include "deepssim/exact.hpp"
#include "order.hpp"

namespace deepssim {

namespace {

// Rows that the centre is the mean of, at most: any centre keeps the bound true, a good one makes it tight.
constexpr std::size_t kCentreRows = 16384;

// Groups that a thread codes at a time.
constexpr std::size_t kRun = 8;

std::size_t groups_of(std::size_t rows) { return (rows + simd::kGroupRows - 1) / simd::kGroupRows; }

double norm_of(const std::vector<float>& row) { return norm_upper_bound(row.data(), row.size()); }

// The mean of some of the rows, spread over all.
std::vector<float> mean_of(const BaseRows& base) {
    const std::size_t step = std::max<std::size_t>(1, base.rows() / kCentreRows);
    std::vector<double> sums(base.dim());
    std::size_t n = 0;
    for (std::size_t i = 0; i < base.rows(); i += step, ++n) {
        for (std::size_t d = 0; d < sums.size(); ++d) sums[d] += static_cast<double>(base.row(i)[d]);
    }
    std::vector<float> mean(base.dim());
    for (std::size_t d = 0; d < sums.size() && n > 0; ++d) {
        mean[d] = static_cast<float>(sums[d] / static_cast<double>(n));
    }
    return mean;
}

}  // namespace

struct PreparedBase::Scratch {
    explicit Scratch(const CodeShape& shape)
        : product(Rotation::scratch_floats(shape.dim)),
          stride(Rotation::padded(shape.dim)),
          images(simd::kGroupRows * stride),
          codes(shape.dim) {}
    std::vector<float> product;
    std::size_t stride;
    std::vector<float> images;
    std::vector<std::int16_t> codes;

    static std::size_t bytes(std::size_t dim) {
        return (Rotation::scratch_floats(dim) + simd::kGroupRows * Rotation::padded(dim)) * sizeof(float) +
               dim * sizeof(std::int16_t);
    }
};

std::size_t PreparedBase::bytes(std::size_t dim, std::size_t rows, bool with_rotation, std::size_t threads,
                                const simd::Kernels& kernels) {
    const std::size_t code_bytes = CodeShape::most_bytes(dim, with_rotation, kernels);
    const std::size_t group_bytes =
        simd::kGroupRows * (code_bytes + sizeof(std::uint32_t)) + sizeof(Group) + simd::kGroupTerms * sizeof(double);
    // The keys that rows are ordered by, and the threads' buffers, are gone once it is made.
    const std::size_t making =
        rows * CodeShape::kMostLead * sizeof(float) + threads * Scratch::bytes(dim) + dim * 2 * sizeof(double);
    return sizeof(PreparedBase) + 3 * (buffer_bytes(rows * code_bytes) - rows * code_bytes) +
           groups_of(rows) * group_bytes + dim * sizeof(float) + making + 4096 +
           (with_rotation ? Rotation::bytes(dim) + Guide::bytes(groups_of(rows), Guide::kMostElements) : 0);
}

PreparedBase::PreparedBase(const BaseRows& base, const Preparation& preparation, const simd::Kernels& kernels,
                           std::size_t threads, const std::function<void()>& poll)
    : shape_(base.dim(), preparation.head, kernels),
      rotation_(preparation.rotation.rows == 0 ? Rotation(base.dim()) : Rotation(preparation.rotation, kernels)) {
    if (rotation_.dim() != base.dim()) {
        throw InvalidInput("the rotation is for rows of " + std::to_string(rotation_.dim()) + " elements");
    }
    const std::vector<float> mean = mean_of(base);
    set_centre(mean, kernels);
    allocate(base.rows());
    order_rows(base, kernels, threads, poll);
    for_each_parallel(
        groups_.size(), kRun, threads, poll, [&] { return Scratch(shape_); },
        [&](std::size_t g, Scratch& scratch) { code_group(base, kernels, g, scratch); });
    for (const Group& group : groups_) largest_norm_ = std::max(largest_norm_, group.norm);
}

template <class Self, class Piece>
void PreparedBase::for_each_piece(Self& self, const Piece& piece) {
    const std::size_t rows = self.groups_.size() * simd::kGroupRows;
    if (!self.rotation_.is_identity()) Rotation::for_each_piece(self.rotation_, piece);
    piece(self.centre_.data(), self.centre_.size() * sizeof(float));
    piece(&self.centre_norm_, sizeof(double));
    piece(&self.largest_norm_, sizeof(double));
    piece(self.order_.data(), self.order_.size() * sizeof(std::uint32_t));
    piece(self.groups_.data(), self.groups_.size() * sizeof(Group));
    piece(self.terms_.data(), self.terms_.size() * sizeof(double));
    Guide::for_each_piece(self.guide_, piece);
    piece(self.head_.get(), rows * self.shape_.head_bytes());
    piece(self.fine_.get(), rows * self.shape_.fine_bytes());
    piece(self.rest_.get(), rows * self.shape_.rest_bytes);
}

void PreparedBase::prefetch_tails(std::size_t g, std::uint64_t rows) const {
    constexpr std::size_t kLine = 64;
    for (; rows != 0; rows &= rows - 1) {
        const std::size_t position = g * simd::kGroupRows + static_cast<std::size_t>(std::countr_zero(rows));
        const auto* codes = reinterpret_cast<const std::byte*>(fine(position));
        for (std::size_t at = 0; at < shape_.fine_bytes(); at += kLine) __builtin_prefetch(codes + at, 0, 2);
        for (std::size_t at = 0; at < shape_.rest_bytes; at += kLine) __builtin_prefetch(rest(position) + at, 0, 2);
    }
}

void PreparedBase::write(const WriteBytes& write) const {
    for_each_piece(*this, [&](const void* from, std::size_t n) { write(from, n); });
}

PreparedBase::PreparedBase(const BaseRows& base, const PreparedHeader& header, const simd::Kernels& kernels,
                           const ReadBytes& read)
    : shape_(base.dim(), header.head, kernels),
      rotation_(header.is_rotated ? Rotation::blank(base.dim()) : Rotation(base.dim())) {
    if (header.dim != base.dim() || header.rows != base.rows() || header.head > base.dim()) {
        throw InvalidInput("what was prepared is of other rows");
    }
    centre_.resize(shape_.dim);
    allocate(base.rows());
    for_each_piece(*this, [&](void* to, std::size_t n) { read(to, n); });
    for (const std::uint32_t row : order_) {
        if (row >= std::max<std::size_t>(base.rows(), 1))
            throw InvalidInput("what was prepared names rows that are not there");
    }
    for (std::size_t g = 0; g < groups_.size(); ++g) {
        const std::size_t count = std::min(simd::kGroupRows, base.rows() - g * simd::kGroupRows);
        if (groups_[g].rows != count) throw InvalidInput("what was prepared has groups of other sizes");
    }
}

void PreparedBase::allocate(std::size_t rows) {
    const std::size_t n_groups = groups_of(rows);
    groups_rows_ = rows;
    order_.resize(n_groups * simd::kGroupRows, 0);
    groups_.resize(n_groups);
    terms_.resize(n_groups * simd::kGroupTerms);
    guide_ = Guide(n_groups, shape_.rest() == 0 ? 0 : shape_.lead);
    head_ = make_buffer(n_groups * simd::kGroupRows * shape_.head_bytes());
    fine_ = make_buffer(n_groups * simd::kGroupRows * shape_.fine_bytes());
    rest_ = make_buffer(n_groups * simd::kGroupRows * shape_.rest_bytes);
    stride_ = static_cast<std::size_t>(static_cast<double>(n_groups) * 0.618) | 1U;
    while (std::gcd(stride_, n_groups) > 1) stride_ += 2;
}

void PreparedBase::set_centre(const std::vector<float>& mean, const simd::Kernels& kernels) {
    centre_.resize(Rotation::padded(mean.size()));
    std::vector<float> scratch(Rotation::scratch_floats(mean.size()));
    const float* row = mean.data();
    rotation_.apply(kernels, {&row, 1}, mean.size(), scratch.data(), centre_.data(), centre_.size());
    centre_.resize(mean.size());
    centre_norm_ = norm_of(centre_);
}

// Where there is a rest, groups are places: most of a row is in its leading elements, and the groups where a query's
// best are likely to be can be told. Without, rows of a like largest element, which sets the scale, go together.
void PreparedBase::order_rows(const BaseRows& base, const simd::Kernels& kernels, std::size_t threads,
                              const std::function<void()>& poll) {
    const std::size_t n = base.rows();
    const std::size_t tile = kernels.product_rows;
    const std::size_t width = shape_.rest() == 0 ? 1 : shape_.lead;
    std::vector<float> keys(n * width);
    const auto fill_keys = [&](std::size_t block, Scratch& scratch) {
        const float* rows[simd::kMaxProductRows];
        const std::size_t first = block * tile;
        const std::size_t count = std::min(tile, n - first);
        for (std::size_t i = 0; i < count; ++i) rows[i] = base.row(first + i);
        const std::size_t elements = shape_.rest() == 0 ? shape_.dim : shape_.lead;
        rotation_.apply(kernels, {rows, count}, elements, scratch.product.data(), scratch.images.data(),
                        scratch.stride);
        for (std::size_t i = 0; i < count; ++i) {
            const float* image = scratch.images.data() + i * scratch.stride;
            float* key = keys.data() + (first + i) * width;
            if (shape_.rest() == 0) {
                *key = static_cast<float>(kernels.largest(image, centre_.data(), shape_.dim));
            } else {
                std::copy_n(image, width, key);
            }
        }
    };
    for_each_parallel((n + tile - 1) / tile, kRun, threads, poll, [&] { return Scratch(shape_); }, fill_keys);
    const std::span<std::uint32_t> order(order_.data(), n);
    if (shape_.rest() == 0) return order_by_key(keys, order);
    order_by_place(keys, width, simd::kGroupRows, order, threads, poll);
}

void PreparedBase::code_head(const simd::Kernels& kernels, std::size_t position, const float* image, Group& group,
                             std::int16_t* codes) {
    const int limit = code_limit(kernels.format);
    const int offset = code_offset(kernels.format);
    const CodedHead part = encode_head(kernels, shape_, image, centre_.data(), group.scale, limit, codes);
    group.lead_norm = std::max(group.lead_norm, part.lead.norm);
    group.lead_lost = std::max(group.lead_lost, part.lead.lost);
    group.other_norm = std::max(group.other_norm, part.other.norm);
    group.other_lost = std::max(group.other_lost, part.other.lost);
    std::byte* panel = head_.get() + position / simd::kPanelRows * simd::kPanelRows * shape_.head_bytes() +
                       position % simd::kPanelRows * simd::kStepBytes;
    for (std::size_t d = 0; d < shape_.head; ++d) {
        panel[d / simd::kStepBytes * simd::kPanelStepBytes + d % simd::kStepBytes] =
            static_cast<std::byte>(codes[d] + offset);
    }
}

void PreparedBase::code_tail(const simd::Kernels& kernels, std::size_t position, const float* image, Group& group,
                             std::int16_t* codes) {
    const int offset = code_offset(kernels.format);
    const CodedHead fine =
        encode_head(kernels, shape_, image, centre_.data(), group.fine_scale, fine_limit(shape_.head), codes);
    group.fine_lead_lost = std::max(group.fine_lead_lost, fine.lead.lost);
    group.fine_other_lost = std::max(group.fine_other_lost, fine.other.lost);
    std::memcpy(fine_.get() + position * shape_.fine_bytes(), codes, shape_.head * sizeof(std::int16_t));
    const CodedPart rest = encode(kernels, image + shape_.head, centre_.data() + shape_.head, shape_.rest(),
                                  group.rest_scale, code_limit(kernels.format), codes);
    group.rest_norm = std::max(group.rest_norm, rest.norm);
    group.rest_lost = std::max(group.rest_lost, rest.lost);
    std::byte* out = rest_.get() + position * shape_.rest_bytes;
    for (std::size_t d = 0; d < shape_.rest(); ++d) out[d] = static_cast<std::byte>(codes[d] + offset);
}

void PreparedBase::code_group(const BaseRows& base, const simd::Kernels& kernels, std::size_t g, Scratch& scratch) {
    const std::size_t first = g * simd::kGroupRows;
    const std::size_t count = std::min(simd::kGroupRows, base.rows() - first);
    const std::size_t tile = kernels.product_rows;
    Group& group = groups_[g];
    group = {};
    group.rows = static_cast<std::uint32_t>(count);
    double head_largest = 0.0;
    double rest_largest = 0.0;
    for (std::size_t start = 0; start < count; start += tile) {
        const float* rows[simd::kMaxProductRows];
        const std::size_t n = std::min(tile, count - start);
        for (std::size_t i = 0; i < n; ++i) rows[i] = base.row(order_[first + start + i]);
        // Rows of a group lie all over the base: those of the next tile are on their way meanwhile.
        for (std::size_t next = first + start + n; next < std::min(base.rows(), first + start + n + tile); ++next) {
            base.prefetch(order_[next]);
        }
        rotation_.apply(kernels, {rows, n}, shape_.dim, scratch.product.data(),
                        scratch.images.data() + start * scratch.stride, scratch.stride);
    }
    const float* rest_centre = centre_.data() + shape_.head;
    for (std::size_t i = 0; i < count; ++i) {
        const float* image = scratch.images.data() + i * scratch.stride;
        head_largest = std::max(head_largest, kernels.largest(image, centre_.data(), shape_.head));
        rest_largest = std::max(rest_largest, kernels.largest(image + shape_.head, rest_centre, shape_.rest()));
        group.norm = std::max(group.norm, base.norm(order_[first + i]));
    }
    double place[Guide::kMostElements] = {};
    for (std::size_t i = 0; i < count; ++i) {
        const float* image = scratch.images.data() + i * scratch.stride;
        for (std::size_t d = 0; d < guide_.elements(); ++d) place[d] += static_cast<double>(image[d]);
    }
    for (double& element : place) element /= static_cast<double>(count);
    guide_.set(g, place);
    group.scale = scale_for(head_largest, code_limit(kernels.format));
    group.fine_scale = scale_for(head_largest, fine_limit(shape_.head));
    group.rest_scale = scale_for(rest_largest, code_limit(kernels.format));
    std::memset(head_.get() + first * shape_.head_bytes(), 0, simd::kGroupRows * shape_.head_bytes());
    if (shape_.rest() > 0) {
        std::memset(fine_.get() + first * shape_.fine_bytes(), 0, simd::kGroupRows * shape_.fine_bytes());
        std::memset(rest_.get() + first * shape_.rest_bytes, 0, simd::kGroupRows * shape_.rest_bytes);
    }
    for (std::size_t i = 0; i < count; ++i) {
        const float* image = scratch.images.data() + i * scratch.stride;
        code_head(kernels, first + i, image, group, scratch.codes.data());
        if (shape_.rest() > 0) code_tail(kernels, first + i, image, group, scratch.codes.data());
    }
    // Rounded up, so that thresholds come out low.
    const double inverse = 1.0 / group.scale;
    const double up = inverse * (1.0 + 0x1p-45);
    double* terms = terms_.data() + g * simd::kGroupTerms;
    terms[simd::kInverseScale] = inverse;
    terms[simd::kRowCut] = std::numeric_limits<double>::infinity();
    const double bounds[simd::kSlacks] = {group.lead_lost,  group.lead_norm, group.other_lost,
                                          group.other_norm, group.rest_norm, group.norm};
    for (std::size_t t = 0; t < simd::kSlacks; ++t) terms[simd::kBound + t] = bounds[t] * up;
}

}  // namespace deepssim
