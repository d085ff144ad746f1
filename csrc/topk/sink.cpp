#include "deepssim/sink.hpp"

namespace deepssim {

namespace {

void write_row(const ArraySink::Target& target, std::size_t query, std::span<const Match> matches) {
    for (std::size_t place = 0; place < target.width; ++place) {
        const Match match = place < matches.size() ? matches[place] : kPadding;
        const std::size_t at = query * target.width + place;
        target.scores[at] = match.score;
        target.ids[at] = match.id;
    }
}

}  // namespace

void ArraySink::accept(const QueryResult& result) {
    write_row(best_, result.query, result.best);
    write_row(listed_, result.query, result.listed);
    for (std::size_t level = 0; level < levels_; ++level) {
        counts_[result.query * levels_ + level] = result.counts[level];
    }
}

void CountSink::accept(const QueryResult& result) {
    for (std::size_t level = 0; level < pairs_.size(); ++level) {
        pairs_[level] += result.counts[level];
        if (result.counts[level] > 0) ++queries_[level];
    }
}

std::vector<std::int64_t> CountSink::pairs() const { return {pairs_.begin(), pairs_.end()}; }
std::vector<std::int64_t> CountSink::queries() const { return {queries_.begin(), queries_.end()}; }

}  // namespace deepssim
