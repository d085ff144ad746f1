#include "register.hpp"

PYBIND11_MODULE(_core, m) {
    m.doc() =
        "The C++ core of deepssim: exact search and image operations. Use deepssim.search and deepssim.image_ops.";
    using namespace deepssim::bindings;
    register_errors(m);
    register_isa(m);
    register_plan(m);
    register_topk(m);
    register_merge(m);
    register_image(m);
    register_similarity(m);
    register_registration(m);
    register_registered(m);
}
