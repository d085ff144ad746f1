#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <vector>

#include "arrays.hpp"
#include "deepssim/resize.hpp"
#include "deepssim/views.hpp"
#include "register.hpp"

namespace deepssim::bindings {

namespace py = pybind11;

void register_image(py::module_& m) {
    m.def(
        "resize_area",
        [](const py::array& image, std::size_t height, std::size_t width) {
            const MatrixView view = as_matrix(image, "image");
            if (height > 65536 || width > 65536) throw InvalidInput("the size to resize to is over 65,536");
            py::array_t<float> out({static_cast<py::ssize_t>(height), static_cast<py::ssize_t>(width)});
            float* target = out.mutable_data();
            {
                const py::gil_scoped_release unlocked;  // a borrowed input, an output made here
                resize_area(view, height, width, target);
            }
            return out;
        },
        py::arg("image"), py::arg("height"), py::arg("width"),
        "Resample a float32 image (height, width) by area averaging.");

    m.def(
        "make_views",
        [](const py::array& image, std::size_t n_angles, const std::vector<double>& zooms, std::size_t shift,
           double least_overlap, bool with_mirror, double aspect) {
            const MatrixView view = as_matrix(image, "image");
            const ViewGrid grid{n_angles, zooms, shift, least_overlap, with_mirror, aspect};
            const std::size_t n = count_views(grid);
            py::array_t<float> out({static_cast<py::ssize_t>(n), static_cast<py::ssize_t>(view.rows * view.cols)});
            float* target = out.mutable_data();
            {
                const py::gil_scoped_release unlocked;  // a borrowed input, an output made here
                make_views(view, grid, target);
            }
            return out;
        },
        py::arg("image"), py::kw_only(), py::arg("n_angles"), py::arg("zooms"), py::arg("shift"),
        py::arg("least_overlap"), py::arg("with_mirror"), py::arg("aspect") = 1.0,
        "See many ways of looking at a small image, each a unit row.");
}

}  // namespace deepssim::bindings
