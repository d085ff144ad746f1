#include "deepssim/isa.hpp"

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "register.hpp"

namespace deepssim::bindings {

namespace py = pybind11;

void register_isa(py::module_& m) {
    m.def("supported_isa_levels", &supported_isa_levels,
          "Return the instruction-set levels that this build has and this processor runs, best last.");
    m.def(
        "resolve_isa", [](const std::string& requested) { return resolve_isa(requested); }, py::arg("requested") = "",
        "Return the level that a searcher would use; raise ValueError for one that does not run here.");
}

}  // namespace deepssim::bindings
