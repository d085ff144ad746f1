#include "oracle.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <map>
#include <utility>

#include "deepssim/exact.hpp"
#include "deepssim/isa.hpp"

namespace deepssim::testing {

namespace {

void fill(float* row, std::size_t cols, Rng& rng) {
    for (std::size_t i = 0; i < cols; ++i) row[i] = static_cast<float>(uniform(rng));
}

void scale(float* row, std::size_t cols, double factor) {
    for (std::size_t i = 0; i < cols; ++i) row[i] = static_cast<float>(static_cast<double>(row[i]) * factor);
}

void normalise(float* row, std::size_t cols) {
    double squares = 0.0;
    for (std::size_t i = 0; i < cols; ++i) squares += static_cast<double>(row[i]) * static_cast<double>(row[i]);
    if (squares > 0.0) scale(row, cols, 1.0 / std::sqrt(squares));
}

bool is_left_out(const SearchOptions& options, std::span<const GroupId> groups, RowId id_offset, std::size_t query,
                 std::size_t row) {
    if (options.exclude_same_id &&
        options.first_query + static_cast<RowId>(query) == id_offset + static_cast<RowId>(row)) {
        return true;
    }
    return options.exclude_same_group && options.query_groups[query] != kNoGroup &&
           options.query_groups[query] == groups[row];
}

}  // namespace

double uniform(Rng& rng) { return static_cast<double>(static_cast<std::int64_t>(rng())) * 0x1p-63; }

std::size_t below(Rng& rng, std::size_t n) { return static_cast<std::size_t>(rng() % n); }

std::vector<std::string> levels() {
#ifdef __SANITIZE_THREAD__
    return {resolve_isa("")};
#else
    return supported_isa_levels();
#endif
}

Rows make_rows(Kind kind, std::size_t rows, std::size_t cols, std::uint64_t seed) {
    Rng rng(seed);
    Rows out{rows, cols, std::vector<float>(rows * cols)};
    Rng common(7);  // the same for queries and base rows
    std::vector<float> pattern(cols);
    fill(pattern.data(), cols, common);
    for (std::size_t r = 0; r < rows; ++r) {
        float* row = out.row(r);
        fill(row, cols, rng);
        switch (kind) {
            case Kind::kUnit:
                normalise(row, cols);
                break;
            case Kind::kIntegers:
                for (std::size_t i = 0; i < cols; ++i) row[i] = static_cast<float>(below(rng, 3)) - 1.0F;
                break;
            case Kind::kNearTies:
                std::copy(pattern.begin(), pattern.end(), row);
                row[below(rng, cols)] *= 1.0F + static_cast<float>(below(rng, 3)) * 0x1p-23F;
                break;
            case Kind::kScales:
                scale(row, cols, std::ldexp(1.0, static_cast<int>(below(rng, 121)) - 60));
                break;
            case Kind::kDenormal:
                scale(row, cols, std::ldexp(1.0, -74 + static_cast<int>(below(rng, 8)) - 4));
                break;
            case Kind::kCancelling:
                for (std::size_t i = 0; i + 1 < cols; i += 2) {
                    row[i] = pattern[i] * 1024.0F;
                    row[i + 1] = (i / 2 + r) % 2 == 0 ? pattern[i] * 1024.0F : -pattern[i] * 1024.0F;
                }
                row[cols - 1] *= 0x1p-20F;
                break;
        }
    }
    return out;
}

void AnswerSink::accept(const QueryResult& result) {
    answer.best[result.query].assign(result.best.begin(), result.best.end());
    answer.listed[result.query].assign(result.listed.begin(), result.listed.end());
    answer.counts[result.query].assign(result.counts.begin(), result.counts.end());
    ++calls_[result.query];
}

bool AnswerSink::is_complete() const {
    return std::all_of(calls_.begin(), calls_.end(), [](int calls) { return calls == 1; });
}

Oracle::Oracle(Rows query_rows, Rows base_rows) : queries(std::move(query_rows)), base(std::move(base_rows)) {
    for (std::size_t q = 0; q < queries.rows; ++q) {
        for (std::size_t r = 0; r < base.rows; ++r) {
            scores_.push_back(exact_score(queries.row(q), base.row(r), 1, base.cols));
        }
    }
}

Answer Oracle::answer(const SearchOptions& options, std::span<const GroupId> groups, RowId id_offset) const {
    Answer out(queries.rows);
    for (std::size_t q = 0; q < queries.rows; ++q) {
        std::vector<Match> all;
        for (std::size_t r = 0; r < base.rows; ++r) {
            if (!is_left_out(options, groups, id_offset, q, r)) {
                all.push_back({score(q, r), id_offset + static_cast<RowId>(r)});
            }
        }
        std::sort(all.begin(), all.end(), is_better);
        std::map<GroupId, std::size_t> taken;
        for (const Match& match : all) {
            if (out.best[q].size() == options.k) break;
            if (options.max_per_group != 0) {
                const GroupId group = groups[static_cast<std::size_t>(match.id - id_offset)];
                if (group != kNoGroup && ++taken[group] > options.max_per_group) continue;
            }
            out.best[q].push_back(match);
        }
        for (const float threshold : options.thresholds) {
            out.counts[q].push_back(
                std::count_if(all.begin(), all.end(), [&](const Match& match) { return match.score >= threshold; }));
        }
        const std::size_t over = out.counts[q].empty() ? 0 : static_cast<std::size_t>(out.counts[q].front());
        all.resize(std::min(options.max_listed, over));
        out.listed[q] = all;
    }
    return out;
}

std::vector<std::int64_t> Oracle::tally_counts(const SearchOptions& options) const {
    std::vector<std::int64_t> counts;
    for (std::size_t r = 0; r < base.rows; ++r) {
        for (const float threshold : options.thresholds) {
            counts.push_back(0);
            for (std::size_t q = 0; q < queries.rows; ++q) counts.back() += score(q, r) >= threshold ? 1 : 0;
        }
    }
    return counts;
}

std::vector<Match> Oracle::tally_best(const SearchOptions& options) const {
    std::vector<Match> best(base.rows);
    for (std::size_t r = 0; r < base.rows; ++r) {
        for (std::size_t q = 0; q < queries.rows; ++q) {
            const Match match{score(q, r), options.first_query + static_cast<RowId>(q)};
            if (match.score >= options.thresholds.front() && (best[r].id < 0 || is_better(match, best[r]))) {
                best[r] = match;
            }
        }
    }
    return best;
}

float Oracle::quantile(double part) const {
    std::vector<float> sorted = scores_;
    std::sort(sorted.begin(), sorted.end());
    return sorted[static_cast<std::size_t>(part * static_cast<double>(sorted.size() - 1))];
}

bool is_same(const std::vector<Match>& a, const std::vector<Match>& b) {
    return std::equal(a.begin(), a.end(), b.begin(), b.end(), [](const Match& x, const Match& y) {
        return x.id == y.id && std::bit_cast<std::uint32_t>(x.score) == std::bit_cast<std::uint32_t>(y.score);
    });
}

bool is_same(const Answer& a, const Answer& b) {
    const auto same = [](const std::vector<Match>& x, const std::vector<Match>& y) { return is_same(x, y); };
    return a.counts == b.counts && std::equal(a.best.begin(), a.best.end(), b.best.begin(), b.best.end(), same) &&
           std::equal(a.listed.begin(), a.listed.end(), b.listed.begin(), b.listed.end(), same);
}

}  // namespace deepssim::testing
