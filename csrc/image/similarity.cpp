// Which images are held at a time, and who compares which.
#include "deepssim/similarity.hpp"

#include <algorithm>
#include <numeric>
#include <tuple>
#include <unordered_map>
#include <vector>

#include "common/buffer.hpp"
#include "common/parallel.hpp"
#include "deepssim/exact.hpp"
#include "image/comparison.hpp"

namespace deepssim {

namespace {

// Terms that are held of each side. Those of the first are made again for each block of the second, so most of the
// memory is the second's.
constexpr std::size_t kFirstBytes = std::size_t{16} << 20;
constexpr std::size_t kSecondBytes = std::size_t{48} << 20;
// The terms of some images, in one piece of memory.
struct SideTerms {
    Buffer memory;
    std::size_t room = 0;  // images
    std::vector<ImageTerms> images;
};

// A call's threads, its ways to end early, and what it compares by.
class Work {
   public:
    Work(const ImageStack& first, const ImageStack& second, const SimilarityOptions& options, const CancelToken* cancel,
         const std::function<void()>& poll)
        : comparison(first, second, options),
          threads_(options.threads == 0 ? usable_processors() : options.threads),
          cancel_(cancel),
          poll_(poll) {}

    // task(i, scratch) for every i < n. A single one runs on the calling thread: starting another costs more.
    template <class Task>
    void each(std::size_t n, const Task& task) const {
        const auto make = [this] { return make_buffer(comparison.scratch_bytes()); };
        const auto checked = [&](std::size_t i, const Buffer& scratch) {
            if (cancel_ != nullptr && cancel_->is_cancelled()) throw Cancelled();
            task(i, scratch.get());
        };
        if (n == 1) {
            const FloatEnvironment environment;
            checked(0, make());
        } else if (n > 0) {
            for_each_parallel(n, 1, threads_, poll_, make, checked);
        }
    }

    std::vector<ImageSummary> summaries(const ImageStack& stack) const {
        std::vector<ImageSummary> found(stack.n);
        each(stack.n, [&](std::size_t i, std::byte*) { found[i] = summarise(stack, i); });
        return found;
    }

    // In memory that is kept: pages that were given back would have to be cleared again.
    void make_terms(const ImageStack& stack, const std::vector<std::size_t>& images,
                    const std::vector<ImageSummary>& summaries, Side side, SideTerms& made) const {
        if (images.size() > made.room) {
            made = {};
            made.memory = make_buffer(images.size() * comparison.term_bytes());
            made.room = images.size();
        }
        made.images.resize(images.size());
        each(images.size(), [&](std::size_t i, std::byte*) {
            std::byte* memory = made.memory.get() + i * comparison.term_bytes();
            made.images[i] = comparison.terms(stack, images[i], summaries[images[i]], side, memory);
        });
    }

    // Images whose terms fit a side.
    std::size_t room(Side side) const {
        return std::max<std::size_t>(1, (side == Side::kFirst ? kFirstBytes : kSecondBytes) / comparison.term_bytes());
    }

    Comparison comparison;

   private:
    std::size_t threads_;
    const CancelToken* cancel_;
    const std::function<void()>& poll_;
};

std::vector<std::size_t> consecutive(std::size_t first, std::size_t n) {
    std::vector<std::size_t> images(n);
    std::iota(images.begin(), images.end(), first);
    return images;
}

// All of `rows` with all of `columns`; the results' place is (first_row, first_column).
void compare_tile(const Work& work, std::span<const ImageTerms> rows, std::span<const ImageTerms> columns,
                  const SimilarityOutput& out, std::size_t first_row, std::size_t first_column) {
    const std::size_t n = work.comparison.block_images();
    const std::size_t across = (columns.size() + n - 1) / n;
    const std::size_t down = (rows.size() + n - 1) / n;
    work.each(across * down, [&](std::size_t block, std::byte* scratch) {
        const std::size_t row = block / across * n;
        const std::size_t column = block % across * n;
        const auto of_rows = rows.subspan(row, std::min(n, rows.size() - row));
        const auto of_columns = columns.subspan(column, std::min(n, columns.size() - column));
        std::vector<double> values(of_rows.size() * of_columns.size());
        work.comparison.compare_block(of_rows, of_columns, scratch, values.data());
        for (std::size_t p = 0; p < values.size(); ++p) {
            out.store(first_row + row + p / of_columns.size(), first_column + column + p % of_columns.size(),
                      values[p]);
        }
    });
}

// The images that some pairs need, each once.
class Needed {
   public:
    void add(std::size_t image) {
        if (places_.try_emplace(image, images_.size()).second) images_.push_back(image);
    }
    std::size_t place(std::size_t image) const { return places_.at(image); }
    const std::vector<std::size_t>& images() const { return images_; }

   private:
    std::unordered_map<std::size_t, std::size_t> places_;
    std::vector<std::size_t> images_;
};

void check_pairs(const ImageStack& first, const ImageStack& second, std::span<const ImagePair> pairs) {
    for (std::size_t p = 0; p < pairs.size(); ++p) {
        const auto is_in = [](std::int64_t i, std::size_t n) { return i >= 0 && static_cast<std::size_t>(i) < n; };
        if (is_in(pairs[p].first, first.n) && is_in(pairs[p].second, second.n)) continue;
        throw InvalidInput("pair " + std::to_string(p) + " is (" + std::to_string(pairs[p].first) + ", " +
                           std::to_string(pairs[p].second) + "), but there are " + std::to_string(first.n) + " and " +
                           std::to_string(second.n) + " images");
    }
}

}  // namespace

void similarity_matrix(const ImageStack& first, const ImageStack& second, const SimilarityOptions& options,
                       const SimilarityOutput& out, const CancelToken* cancel, const std::function<void()>& poll) {
    Work work(first, second, options, cancel, poll);
    const std::vector<ImageSummary> of_first = work.summaries(first);
    const std::vector<ImageSummary> of_second = work.summaries(second);
    work.comparison.accept(first, of_first, second, of_second);
    const std::size_t n_rows = work.room(Side::kFirst);
    const std::size_t n_columns = work.room(Side::kSecond);
    SideTerms rows;
    SideTerms columns;
    for (std::size_t column = 0; column < second.n; column += n_columns) {
        work.make_terms(second, consecutive(column, std::min(n_columns, second.n - column)), of_second, Side::kSecond,
                        columns);
        for (std::size_t row = 0; row < first.n; row += n_rows) {
            if (rows.images.empty() || first.n > n_rows) {
                work.make_terms(first, consecutive(row, std::min(n_rows, first.n - row)), of_first, Side::kFirst, rows);
            }
            compare_tile(work, rows.images, columns.images, out, row, column);
        }
    }
}

void similarity_pairs(const ImageStack& first, const ImageStack& second, std::span<const ImagePair> pairs,
                      const SimilarityOptions& options, double* out, const CancelToken* cancel,
                      const std::function<void()>& poll) {
    Work work(first, second, options, cancel, poll);
    check_pairs(first, second, pairs);
    const std::vector<ImageSummary> of_first = work.summaries(first);
    const std::vector<ImageSummary> of_second = work.summaries(second);
    work.comparison.accept(first, of_first, second, of_second);
    std::vector<std::size_t> order = consecutive(0, pairs.size());
    std::sort(order.begin(), order.end(), [&](std::size_t p, std::size_t q) {
        return std::tie(pairs[p].first, pairs[p].second, p) < std::tie(pairs[q].first, pairs[q].second, q);
    });
    SideTerms row_terms;
    SideTerms column_terms;
    for (std::size_t begin = 0; begin < order.size();) {
        Needed rows;
        Needed columns;
        std::size_t end = begin;
        while (end < order.size() && rows.images().size() <= work.room(Side::kFirst) &&
               columns.images().size() < work.room(Side::kSecond)) {
            rows.add(static_cast<std::size_t>(pairs[order[end]].first));
            columns.add(static_cast<std::size_t>(pairs[order[end]].second));
            ++end;
        }
        work.make_terms(first, rows.images(), of_first, Side::kFirst, row_terms);
        work.make_terms(second, columns.images(), of_second, Side::kSecond, column_terms);
        work.each(end - begin, [&](std::size_t i, std::byte* scratch) {
            const ImagePair& pair = pairs[order[begin + i]];
            out[order[begin + i]] = work.comparison.compare(
                row_terms.images[rows.place(static_cast<std::size_t>(pair.first))],
                column_terms.images[columns.place(static_cast<std::size_t>(pair.second))], scratch);
        });
        begin = end;
    }
}

void ssim_map(const ImageStack& first, const ImageStack& second, const SimilarityOptions& options, double* out) {
    if (first.n != 1 || second.n != 1) throw InvalidInput("a map is of one image with one other");
    const std::function<void()> no_poll;
    Work work(first, second, options, nullptr, no_poll);
    const std::vector<ImageSummary> of_first = work.summaries(first);
    const std::vector<ImageSummary> of_second = work.summaries(second);
    work.comparison.want_wide();
    work.comparison.accept(first, of_first, second, of_second);
    SideTerms a;
    SideTerms b;
    work.make_terms(first, {0}, of_first, Side::kFirst, a);
    work.make_terms(second, {0}, of_second, Side::kSecond, b);
    work.each(1, [&](std::size_t, std::byte* scratch) { work.comparison.map(a.images[0], b.images[0], scratch, out); });
}

}  // namespace deepssim
