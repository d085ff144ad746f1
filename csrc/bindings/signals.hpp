// Ctrl-C while the core works without the GIL.
#pragma once

#include <pybind11/pybind11.h>

namespace deepssim::bindings {

// Runs pending signal handlers while the workers work; throws what a handler raised.
inline void poll_signals() {
    const pybind11::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) throw pybind11::error_already_set();
}

}  // namespace deepssim::bindings
