#include "deepssim/registered.hpp"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstddef>
#include <memory>
#include <string>

#include "arrays.hpp"
#include "register.hpp"
#include "transforms.hpp"

namespace deepssim::bindings {

namespace py = pybind11;

namespace {

// Buffers of a thread's last call: mapping fresh pages for each pair took a fifth of the time. Those of large images
// are not kept.
constexpr std::size_t kMostKeptPixels = std::size_t{1} << 18;

RegisteredSimilarity compare_on_thread(MatrixView a, MatrixView b, const Transform& transform, const std::string& isa,
                                       const RegisteredMaps& maps) {
    if (a.rows * a.cols > kMostKeptPixels) {
        RegisteredWorkspace workspace(isa);
        return compare_registered(a, b, transform, workspace, maps);
    }
    thread_local std::string level;
    thread_local std::unique_ptr<RegisteredWorkspace> kept;
    if (!kept || level != isa) {
        kept = std::make_unique<RegisteredWorkspace>(isa);
        level = isa;
    }
    return compare_registered(a, b, transform, *kept, maps);
}

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
        found = compare_on_thread(first, second, transform, isa, maps);
    }
    return py::make_tuple(found.ssim, found.contrast_structure, found.fsim, found.ncc, found.overlap, ssim, structure);
}

}  // namespace

void register_registered(py::module_& m) {
    m.def("registered_similarity", &compare, py::arg("a"), py::arg("b"), py::arg("transform"), py::kw_only(),
          py::arg("with_maps") = false, py::arg("isa") = "", "Compare a registered pair pixel against pixel.");
}

}  // namespace deepssim::bindings
