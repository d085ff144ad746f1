#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include "arrays.hpp"
#include "deepssim/resize.hpp"
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
}

}  // namespace deepssim::bindings
