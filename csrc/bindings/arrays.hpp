// NumPy arrays in and out: taken as they are or refused by a message that says what to do.
#pragma once

#include <pybind11/numpy.h>

#include <cstdint>
#include <span>
#include <string>

#include "deepssim/types.hpp"

namespace deepssim::bindings {

namespace py = pybind11;

// A borrowed float32 matrix with unit column stride, any row stride, possibly read-only.
MatrixView as_matrix(const py::array& array, const char* name);

// A borrowed C-contiguous one-dimensional array of T.
template <class T>
std::span<const T> as_vector(const py::array& array, const char* name, const char* type) {
    if (!array.dtype().equal(py::dtype::of<T>())) {
        throw py::type_error(std::string(name) + " must be an array of native " + type + ", not " +
                             std::string(py::str(array.dtype())) + "; convert it with .astype(\"" + type + "\")");
    }
    if (array.ndim() != 1 || (array.size() > 1 && array.strides(0) != static_cast<py::ssize_t>(sizeof(T)))) {
        throw py::value_error(std::string(name) + " must be one-dimensional and contiguous; use np.ascontiguousarray");
    }
    if (array.size() > 0 && reinterpret_cast<std::uintptr_t>(array.data()) % alignof(T) != 0) {
        throw py::value_error(std::string(name) + " is not aligned; copy it with np.array(..., copy=True)");
    }
    return {static_cast<const T*>(array.data()), static_cast<std::size_t>(array.size())};
}

}  // namespace deepssim::bindings
