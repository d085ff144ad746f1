#include "deepssim/registered.hpp"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>

#include "arrays.hpp"
#include "register.hpp"
#include "transforms.hpp"

namespace deepssim::bindings {

namespace py = pybind11;

namespace {

py::tuple compare(const py::array& a, const py::array& b, const Numbers& numbers, bool with_maps,
                  const std::string& isa) {
    const MatrixView first = as_matrix(a, "a");
    const MatrixView second = as_matrix(b, "b");
    const Transform transform = as_transform(numbers);
    const auto rows = static_cast<py::ssize_t>(with_maps ? first.rows : 0);
    const auto cols = static_cast<py::ssize_t>(first.cols);
    py::array_t<float> ssim({rows, cols});
    py::array_t<float> structure({rows, cols});
    RegisteredMaps maps;
    if (with_maps) maps = {ssim.mutable_data(), structure.mutable_data()};
    RegisteredSimilarity found;
    {
        const py::gil_scoped_release unlocked;  // borrowed inputs, outputs made here
        RegisteredWorkspace workspace(isa);
        found = compare_registered(first, second, transform, workspace, maps);
    }
    return py::make_tuple(found.ssim, found.contrast_structure, found.fsim, found.ncc, found.overlap, ssim, structure);
}

}  // namespace

void register_registered(py::module_& m) {
    m.def("registered_similarity", &compare, py::arg("a"), py::arg("b"), py::arg("transform"), py::kw_only(),
          py::arg("with_maps") = false, py::arg("isa") = "", "Compare a registered pair pixel against pixel.");
}

}  // namespace deepssim::bindings
