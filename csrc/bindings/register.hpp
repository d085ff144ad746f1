// What module.cpp calls; one function a file.
#pragma once

#include <pybind11/pybind11.h>

namespace deepssim::bindings {

void register_errors(pybind11::module_& m);
void register_isa(pybind11::module_& m);
void register_plan(pybind11::module_& m);
void register_topk(pybind11::module_& m);
void register_merge(pybind11::module_& m);
void register_image(pybind11::module_& m);
void register_similarity(pybind11::module_& m);
void register_registration(pybind11::module_& m);
void register_registered(pybind11::module_& m);

}  // namespace deepssim::bindings
