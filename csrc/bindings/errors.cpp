#include <pybind11/pybind11.h>

#include <exception>
#include <utility>

#include "deepssim/types.hpp"
#include "register.hpp"

namespace deepssim::bindings {

namespace py = pybind11;

void register_errors(py::module_& m) {
    // InvalidInput derives from std::invalid_argument, which pybind11 turns into ValueError.
    py::register_exception<Cancelled>(m, "Cancelled", PyExc_RuntimeError);
    static py::exception<MemoryLimitTooSmall> memory_error(m, "MemoryLimitTooSmall", PyExc_MemoryError);
    py::register_exception_translator([](std::exception_ptr error) {
        try {
            if (error) std::rethrow_exception(std::move(error));
        } catch (const MemoryLimitTooSmall& e) {
            const py::object value = py::handle(memory_error)(e.what());
            value.attr("minimum_bytes") = e.minimum_bytes;
            PyErr_SetObject(memory_error.ptr(), value.ptr());
        }
    });
}

}  // namespace deepssim::bindings
