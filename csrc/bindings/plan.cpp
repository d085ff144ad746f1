#include "deepssim/plan.hpp"

#include <pybind11/pybind11.h>

#include "common/parallel.hpp"
#include "register.hpp"

namespace deepssim::bindings {

namespace py = pybind11;

void register_plan(py::module_& m) {
    py::class_<Plan>(m, "Plan", "What a search allocates, in bytes, and the blocks it works in.")
        .def_readonly("base_bytes", &Plan::base_bytes)
        .def_readonly("prepared_bytes", &Plan::prepared_bytes)
        .def_readonly("tally_bytes", &Plan::tally_bytes)
        .def_readonly("worker_bytes", &Plan::worker_bytes)
        .def_readonly("row_bytes", &Plan::row_bytes)
        .def_readonly("threads", &Plan::threads)
        .def_readonly("query_block", &Plan::query_block)
        .def_readonly("chunk_rows", &Plan::chunk_rows)
        .def_readonly("total_bytes", &Plan::total_bytes);

    m.def(
        "plan_search",
        [](std::size_t base_rows, std::size_t dim, std::size_t k, std::size_t max_listed, std::size_t levels,
           bool with_groups, bool with_cap, bool with_tally, bool with_rotation, std::size_t reverse_k,
           bool with_reverse_cap, std::size_t threads, std::size_t memory_limit, std::size_t max_chunk_rows,
           const std::string& isa) {
            PlanRequest request;
            request.base_rows = base_rows;
            request.dim = dim;
            request.k = k;
            request.max_listed = max_listed;
            request.levels = levels;
            request.with_groups = with_groups;
            request.with_cap = with_cap;
            request.with_tally = with_tally;
            request.with_rotation = with_rotation;
            request.reverse_k = reverse_k;
            request.with_reverse_cap = with_reverse_cap;
            request.isa = isa;
            request.threads = threads == 0 ? usable_processors() : threads;
            request.memory_limit = memory_limit;
            request.max_chunk_rows = max_chunk_rows;
            return plan_search(request);
        },
        py::arg("base_rows"), py::arg("dim"), py::kw_only(), py::arg("k") = 0, py::arg("max_listed") = 0,
        py::arg("levels") = 0, py::arg("with_groups") = false, py::arg("with_cap") = false,
        py::arg("with_tally") = false, py::arg("with_rotation") = false, py::arg("reverse_k") = 0,
        py::arg("with_reverse_cap") = false, py::arg("threads") = 0, py::arg("memory_limit") = 0,
        py::arg("max_chunk_rows") = 65536, py::arg("isa") = "",
        "Fit a search under a memory limit (bytes, 0: none); raise MemoryLimitTooSmall where none fits.");
    m.def("usable_processors", &usable_processors, "Return the number of processors this process may use.");
}

}  // namespace deepssim::bindings
