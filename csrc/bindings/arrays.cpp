#include "arrays.hpp"

#include <cstdint>

namespace deepssim::bindings {

MatrixView as_matrix(const py::array& array, const char* name) {
    const std::string who(name);
    if (!array.dtype().equal(py::dtype::of<float>())) {
        throw py::type_error(who + " must be a float32 array in native byte order, not " +
                             std::string(py::str(array.dtype())) + "; convert it with .astype(\"float32\")");
    }
    if (array.ndim() != 2) {
        throw py::value_error(who + " must be two-dimensional, not " + std::to_string(array.ndim()) + "-dimensional");
    }
    constexpr auto kItem = static_cast<py::ssize_t>(sizeof(float));
    const bool is_empty = array.size() == 0;
    if (!is_empty && array.shape(1) > 1 && array.strides(1) != kItem) {
        throw py::value_error(who + " must have contiguous rows (unit column stride); use np.ascontiguousarray");
    }
    if (!is_empty && array.shape(0) > 1 && array.strides(0) % kItem != 0) {
        throw py::value_error(who + " has a row stride that is no multiple of 4 bytes; use np.ascontiguousarray");
    }
    if (!is_empty && reinterpret_cast<std::uintptr_t>(array.data()) % alignof(float) != 0) {
        throw py::value_error(who + " is not aligned to 4 bytes; copy it with np.array(..., copy=True)");
    }
    MatrixView view;
    view.data = static_cast<const float*>(array.data());
    view.rows = static_cast<std::size_t>(array.shape(0));
    view.cols = static_cast<std::size_t>(array.shape(1));
    view.row_stride = array.shape(0) > 1 ? array.strides(0) / kItem : array.shape(1);
    return view;
}

}  // namespace deepssim::bindings
