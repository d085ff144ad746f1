#include "deepssim/isa.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "deepssim/peak.hpp"
#include "register.hpp"

namespace deepssim::bindings {

namespace py = pybind11;

void register_isa(py::module_& m) {
    m.def("supported_isa_levels", &supported_isa_levels,
          "Return the instruction-set levels that this build has and this processor runs, best last.");
    m.def(
        "resolve_isa", [](const std::string& requested) { return resolve_isa(requested); }, py::arg("requested") = "",
        "Return the level that a searcher would use; raise ValueError for one that does not run here.");
    m.def(
        "measure_peak",
        [](const std::string& isa, std::size_t threads) {
            Peak peak;
            {
                const py::gil_scoped_release unlocked;  // touches nothing of Python's
                peak = measure_peak(isa, threads);
            }
            py::dict out;
            out["integer"] = peak.integer;
            out["float32"] = peak.real;
            return out;
        },
        py::arg("isa") = "", py::arg("threads") = 0,
        "Return multiply-adds a second of register-only loops: of the scan's instructions and of float32.");
}

}  // namespace deepssim::bindings
