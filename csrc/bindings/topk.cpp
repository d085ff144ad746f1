#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <optional>

#include "arrays.hpp"
#include "deepssim/cancel.hpp"
#include "deepssim/exact.hpp"
#include "deepssim/searcher.hpp"
#include "register.hpp"
#include "signals.hpp"

namespace deepssim::bindings {

namespace py = pybind11;

namespace {

using Floats = py::array_t<float>;
using Ids = py::array_t<RowId>;
using Counts = py::array_t<std::int64_t>;

py::ssize_t size(std::size_t n) { return static_cast<py::ssize_t>(n); }

void refuse_not_finite(MatrixView rows, std::size_t i, const char* name) {
    if (std::isfinite(norm_upper_bound(rows.row(i), rows.cols))) return;
    throw InvalidInput(std::string(name) + " row " + std::to_string(i) + " holds NaN or infinity");
}

struct Request {
    SearchOptions options;
    MatrixView queries;
    RowTally* tally = nullptr;
    ReverseTopk* reverse = nullptr;
    const CancelToken* cancel = nullptr;
};

// Keyword arguments that search() and count() share, read under the GIL.
Request read_request(const py::array& queries, const std::vector<float>& thresholds,
                     const std::optional<py::array>& query_groups, bool exclude_same_group, bool exclude_same_id,
                     RowId first_query, RowTally* tally, ReverseTopk* reverse, const CancelToken* cancel,
                     std::size_t threads, std::size_t memory_limit, bool may_rotate) {
    Request request;
    request.queries = as_matrix(queries, "queries");
    if (query_groups) request.options.query_groups = as_vector<GroupId>(*query_groups, "query_groups", "int64");
    request.options.thresholds = thresholds;
    request.options.exclude_same_group = exclude_same_group;
    request.options.exclude_same_id = exclude_same_id;
    request.options.first_query = first_query;
    request.options.threads = threads;
    request.options.memory_limit = memory_limit;
    request.options.may_rotate = may_rotate;
    request.tally = tally;
    request.reverse = reverse;
    request.cancel = cancel;
    return request;
}

SearchStatistics run(const Searcher& searcher, const Request& request, Sink& sink) {
    // Safe without the GIL: the workers touch only borrowed buffers that the caller's arguments keep
    // alive, arrays made for this call, and the tally, which locks itself.
    const py::gil_scoped_release unlocked;
    return searcher.search(request.queries, request.options, sink, request.tally, request.reverse, request.cancel,
                           poll_signals);
}

py::dict as_dict(const SearchStatistics& statistics) {
    py::dict out;
    out["pairs"] = statistics.pairs;
    out["kept"] = statistics.kept;
    out["refined"] = statistics.refined;
    out["rescored"] = statistics.rescored;
    out["exact"] = statistics.exact;
    return out;
}

py::tuple search(const Searcher& searcher, const py::array& queries, std::size_t k, std::size_t max_per_group,
                 const std::vector<float>& thresholds, std::size_t max_listed,
                 const std::optional<py::array>& query_groups, bool exclude_same_group, bool exclude_same_id,
                 RowId first_query, RowTally* tally, ReverseTopk* reverse, const CancelToken* cancel,
                 std::size_t threads, std::size_t memory_limit, bool may_rotate) {
    Request request = read_request(queries, thresholds, query_groups, exclude_same_group, exclude_same_id, first_query,
                                   tally, reverse, cancel, threads, memory_limit, may_rotate);
    request.options.k = k;
    request.options.max_per_group = max_per_group;
    request.options.max_listed = max_listed;
    const std::size_t n = request.queries.rows;
    // Refuse what does not fit before the results are allocated.
    searcher.plan(request.options, n, tally != nullptr, reverse);
    Floats scores({size(n), size(k)});
    Ids ids({size(n), size(k)});
    Floats listed_scores({size(n), size(max_listed)});
    Ids listed_ids({size(n), size(max_listed)});
    Counts counts({size(n), size(thresholds.size())});
    ArraySink sink({scores.mutable_data(), ids.mutable_data(), k},
                   {listed_scores.mutable_data(), listed_ids.mutable_data(), max_listed}, counts.mutable_data(),
                   thresholds.size());
    const SearchStatistics statistics = run(searcher, request, sink);
    return py::make_tuple(scores, ids, counts, listed_scores, listed_ids, as_dict(statistics));
}

py::tuple count(const Searcher& searcher, const py::array& queries, const std::vector<float>& thresholds,
                const std::optional<py::array>& query_groups, bool exclude_same_group, bool exclude_same_id,
                RowId first_query, RowTally* tally, ReverseTopk* reverse, const CancelToken* cancel,
                std::size_t threads, std::size_t memory_limit) {
    const Request request = read_request(queries, thresholds, query_groups, exclude_same_group, exclude_same_id,
                                         first_query, tally, reverse, cancel, threads, memory_limit, false);
    CountSink sink(thresholds.size());
    const SearchStatistics statistics = run(searcher, request, sink);
    return py::make_tuple(sink.pairs(), sink.queries(), as_dict(statistics));
}

void register_tally(py::module_& m) {
    py::class_<RowTally>(m, "RowTally", "Counts for each base row, filled by searches with thresholds.")
        .def(py::init<std::size_t, std::size_t>(), py::arg("rows"), py::arg("levels"))
        .def_property_readonly(
            "counts",
            [](const RowTally& t) {
                Counts out({size(t.rows()), size(t.levels())});
                std::int64_t* to = out.mutable_data();
                t.read([to](const auto& counts, const auto&) { std::copy(counts.begin(), counts.end(), to); });
                return out;
            })
        .def_property_readonly("best_scores",
                               [](const RowTally& t) {
                                   Floats out(size(t.rows()));
                                   float* to = out.mutable_data();
                                   t.read([to](const auto&, const auto& best) {
                                       std::transform(best.begin(), best.end(), to,
                                                      [](const Match& match) { return match.score; });
                                   });
                                   return out;
                               })
        .def_property_readonly("best_queries", [](const RowTally& t) {
            Ids out(size(t.rows()));
            RowId* to = out.mutable_data();
            t.read([to](const auto&, const auto& best) {
                std::transform(best.begin(), best.end(), to, [](const Match& match) { return match.id; });
            });
            return out;
        });
}

void register_reverse(py::module_& m) {
    py::class_<ReverseTopk>(m, "ReverseTopk", "Each base row's best queries, filled by any number of searches.")
        .def(py::init<std::size_t, std::size_t, std::size_t>(), py::arg("rows"), py::arg("k"),
             py::arg("max_per_group") = 0)
        .def_property_readonly("rows", &ReverseTopk::rows)
        .def_property_readonly("k", &ReverseTopk::k)
        .def("read", [](const ReverseTopk& self) {
            Floats scores({size(self.rows()), size(self.k())});
            Ids ids({size(self.rows()), size(self.k())});
            float* to_scores = scores.mutable_data();
            RowId* to_ids = ids.mutable_data();
            {
                const py::gil_scoped_release unlocked;  // writes arrays made here; the answer locks itself
                self.read(to_scores, to_ids);
            }
            return py::make_tuple(scores, ids);
        });
}

}  // namespace

void register_topk(py::module_& m) {
    py::class_<CancelToken>(m, "CancelToken", "A flag that ends the searches it was given to, from any thread.")
        .def(py::init<>())
        .def("cancel", &CancelToken::cancel)
        .def_property_readonly("is_cancelled", &CancelToken::is_cancelled);
    register_tally(m);
    register_reverse(m);

    py::class_<Searcher>(m, "Searcher", "Exact top-k and threshold search by inner product; see deepssim.search.")
        .def(py::init<std::size_t, std::size_t, bool, RowId, const std::string&>(), py::arg("dim"), py::arg("capacity"),
             py::kw_only(), py::arg("with_groups") = false, py::arg("id_offset") = 0, py::arg("isa") = "")
        .def(
            "add",
            [](Searcher& self, const py::array& rows, const std::optional<py::array>& groups) {
                const MatrixView view = as_matrix(rows, "rows");
                std::span<const GroupId> known;
                if (groups) known = as_vector<GroupId>(*groups, "groups", "int64");
                const py::gil_scoped_release unlocked;  // the rows are only read; the searcher locks itself
                self.add(view, known);
            },
            py::arg("rows"), py::arg("groups") = py::none())
        .def("search", &search, py::arg("queries"), py::arg("k"), py::kw_only(), py::arg("max_per_group") = 0,
             py::arg("thresholds") = std::vector<float>{}, py::arg("max_listed") = 0,
             py::arg("query_groups") = py::none(), py::arg("exclude_same_group") = false,
             py::arg("exclude_same_id") = false, py::arg("first_query") = 0, py::arg("tally") = py::none(),
             py::arg("reverse") = py::none(), py::arg("cancel") = py::none(), py::arg("threads") = 0,
             py::arg("memory_limit") = 0, py::arg("may_rotate") = false)
        .def("count", &count, py::arg("queries"), py::arg("thresholds"), py::kw_only(),
             py::arg("query_groups") = py::none(), py::arg("exclude_same_group") = false,
             py::arg("exclude_same_id") = false, py::arg("first_query") = 0, py::arg("tally") = py::none(),
             py::arg("reverse") = py::none(), py::arg("cancel") = py::none(), py::arg("threads") = 0,
             py::arg("memory_limit") = 0)
        .def(
            "prepare",
            [](Searcher& self, std::size_t head, const std::optional<py::array>& rotation, std::size_t threads) {
                Preparation preparation;
                preparation.head = head;
                if (rotation) preparation.rotation = as_matrix(*rotation, "rotation");
                if (rotation && preparation.rotation.rows == 0) throw InvalidInput("the rotation is empty");
                const py::gil_scoped_release unlocked;  // the rotation is only read; the searcher locks itself
                self.prepare(preparation, threads, poll_signals);
            },
            py::kw_only(), py::arg("head") = 0, py::arg("rotation") = py::none(), py::arg("threads") = 0)
        .def(
            "sample",
            [](const Searcher& self, std::size_t wanted) {
                std::size_t rows = 0;
                {
                    const py::gil_scoped_release unlocked;  // takes the searcher's lock
                    rows = self.rows();
                }
                const std::size_t most = std::min(wanted, rows);
                const std::size_t step = most == 0 ? 1 : (rows + most - 1) / most;
                Floats out({size(most), size(self.dim())});
                float* target = out.mutable_data();
                std::size_t n = 0;
                {
                    const py::gil_scoped_release unlocked;  // writes an array made here; the searcher locks itself
                    n = self.sample(0, step, most, target);
                }
                return py::object(out[py::slice(0, size(n), 1)]);
            },
            py::arg("most"), "Copy up to `most` base rows, evenly spread.")
        .def("prepared_header",
             [](const Searcher& self) {
                 PreparedHeader header;
                 {
                     const py::gil_scoped_release unlocked;  // takes the searcher's lock
                     header = self.prepared_header();
                 }
                 py::dict out;
                 out["dim"] = header.dim;
                 out["rows"] = header.rows;
                 out["head"] = header.head;
                 out["is_rotated"] = header.is_rotated;
                 return out;
             })
        .def(
            "write_prepared",
            [](const Searcher& self, const py::function& write) {
                // The searcher's lock may be held by a search that waits for the GIL to poll signals.
                const py::gil_scoped_release unlocked;
                self.write_prepared([&](const void* from, std::size_t n) {
                    const py::gil_scoped_acquire gil;
                    write(py::memoryview::from_memory(from, size(n)));
                });
            },
            py::arg("write"), "Call write(memoryview) for each piece of what was prepared.")
        .def(
            "read_prepared",
            [](Searcher& self, const py::function& read, std::size_t dim, std::size_t rows, std::size_t head,
               bool is_rotated) {
                const py::gil_scoped_release unlocked;  // as above
                self.read_prepared({dim, rows, head, is_rotated}, [&](void* to, std::size_t n) {
                    const py::gil_scoped_acquire gil;
                    read(py::memoryview::from_memory(to, size(n)));
                });
            },
            py::arg("read"), py::kw_only(), py::arg("dim"), py::arg("rows"), py::arg("head"), py::arg("is_rotated"),
            "Call read(memoryview) to fill each piece of what was prepared.")
        .def("forget_prepared", &Searcher::forget_prepared, py::call_guard<py::gil_scoped_release>())
        .def_property_readonly("codes", &Searcher::codes)
        .def("is_prepared", &Searcher::is_prepared, py::call_guard<py::gil_scoped_release>())
        .def_property_readonly("dim", &Searcher::dim)
        .def_property_readonly("capacity", &Searcher::capacity)
        .def_property_readonly("id_offset", &Searcher::id_offset)
        .def_property_readonly("isa", &Searcher::isa)
        // Takes the searcher's lock, whose holder may be waiting for the GIL.
        .def("__len__", &Searcher::rows, py::call_guard<py::gil_scoped_release>());

    m.def(
        "exact_scores",
        [](const py::array& a, const py::array& b) {
            const MatrixView left = as_matrix(a, "a");
            const MatrixView right = as_matrix(b, "b");
            if (left.rows != right.rows || left.cols != right.cols) throw InvalidInput("a and b differ in shape");
            Floats out(size(left.rows));
            float* target = out.mutable_data();
            const py::gil_scoped_release unlocked;  // reads borrowed buffers, writes an array made here
            const FloatEnvironment environment;     // a score may be denormal
            for (std::size_t i = 0; i < left.rows; ++i) {
                refuse_not_finite(left, i, "a");
                refuse_not_finite(right, i, "b");
                target[i] = exact_score(left.row(i), right.row(i), 1, left.cols);
            }
            return out;
        },
        py::arg("a"), py::arg("b"),
        "Return the score of each row of `a` with the same row of `b`, by exact summation.");
}

}  // namespace deepssim::bindings
