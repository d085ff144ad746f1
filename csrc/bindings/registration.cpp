#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "arrays.hpp"
#include "common/parallel.hpp"
#include "deepssim/registration.hpp"
#include "register.hpp"
#include "signals.hpp"
#include "transforms.hpp"

namespace deepssim::bindings {

namespace py = pybind11;

namespace {

using Images = std::vector<const RegistrationImage*>;

py::ssize_t size(std::size_t n) { return static_cast<py::ssize_t>(n); }

// What verify() writes for a pair.
constexpr std::size_t kColumns = 12;
void write_row(const Registration& registration, const Evidence& evidence, double* out) {
    const Transform& t = registration.transform;
    const double row[kColumns] = {
        t.is_mirrored ? 1.0 : 0.0, t.angle_degrees, t.shift_rows, t.shift_columns,     t.scale,      registration.fit,
        registration.overlap,      evidence.s1,     evidence.s2,  evidence.local_mean, evidence.ncc, evidence.overlap};
    std::copy(std::begin(row), std::end(row), out);
}

// `starts` has one more element than fixed images: the pairs of image i are starts[i] .. starts[i + 1] - 1.
py::array_t<double> verify(const Images& fixed, const Images& moving, const py::array& starts,
                           const py::array& candidates, bool with_scale, std::size_t threads) {
    const auto first = as_vector<std::int64_t>(starts, "starts", "int64");
    const auto chosen = as_vector<std::int64_t>(candidates, "candidates", "int64");
    if (first.size() != fixed.size() + 1 || first.front() != 0 ||
        first.back() != static_cast<std::int64_t>(chosen.size())) {
        throw InvalidInput("starts has to run from 0 to the number of candidates, one more than there are images");
    }
    for (std::size_t i = 0; i + 1 < first.size(); ++i) {
        if (first[i] > first[i + 1]) throw InvalidInput("starts has to ascend");
    }
    for (const std::int64_t id : chosen) {
        if (id < 0 || id >= static_cast<std::int64_t>(moving.size())) {
            throw InvalidInput("candidate " + std::to_string(id) + " is none of the " + std::to_string(moving.size()) +
                               " real images");
        }
    }
    py::array_t<double> out({size(chosen.size()), size(kColumns)});
    double* target = out.mutable_data();
    if (threads == 0) threads = usable_processors();
    {
        // Safe without the GIL: images never change and the caller's lists keep them alive; the array was made here,
        // and each pair has a row of its own.
        const py::gil_scoped_release unlocked;
        for_each_parallel(
            fixed.size(), 1, threads, poll_signals, [] { return std::make_unique<Aligner>(); },
            [&](std::size_t i, std::unique_ptr<Aligner>& aligner) {
                if (first[i] == first[i + 1]) return;
                aligner->fix(*fixed[i]);
                for (auto p = static_cast<std::size_t>(first[i]); p < static_cast<std::size_t>(first[i + 1]); ++p) {
                    const RegistrationImage& real = *moving[static_cast<std::size_t>(chosen[p])];
                    const Registration found = aligner->align(real, with_scale);
                    write_row(found, aligner->evidence(real, found.transform), target + p * kColumns);
                }
            });
    }
    return out;
}

py::tuple align(const RegistrationImage& fixed, const RegistrationImage& moving, bool with_scale,
                const std::string& isa) {
    Registration found;
    {
        const py::gil_scoped_release unlocked;  // reads images that never change
        Aligner aligner(isa);
        aligner.fix(fixed);
        found = aligner.align(moving, with_scale);
    }
    return py::make_tuple(as_numbers(found.transform), found.fit, found.overlap);
}

py::tuple evidence(const RegistrationImage& fixed, const RegistrationImage& moving, const Numbers& numbers,
                   bool with_maps, const std::string& isa) {
    const auto rows = with_maps ? size(fixed.rows()) : 0;
    py::array_t<float> agreement({rows, size(fixed.cols())});
    py::array_t<float> local({rows, size(fixed.cols())});
    EvidenceMaps maps;
    if (with_maps) maps = {agreement.mutable_data(), local.mutable_data()};
    const Transform transform = as_transform(numbers);
    Evidence found;
    {
        const py::gil_scoped_release unlocked;  // reads images that never change, writes arrays made here
        Aligner aligner(isa);
        aligner.look_at(fixed);
        found = aligner.evidence(moving, transform, maps);
    }
    return py::make_tuple(found.s1, found.s2, found.local_mean, found.ncc, found.overlap, agreement, local);
}

}  // namespace

void register_registration(py::module_& m) {
    py::class_<RegistrationImage>(m, "RegistrationImage", "What registration keeps of one image.")
        .def(py::init([](const py::array& image, const std::string& isa) {
                 const MatrixView view = as_matrix(image, "image");
                 const py::gil_scoped_release unlocked;  // the image is only read
                 return std::make_unique<RegistrationImage>(view, isa);
             }),
             py::arg("image"), py::kw_only(), py::arg("isa") = "")
        .def_property_readonly("shape",
                               [](const RegistrationImage& self) { return py::make_tuple(self.rows(), self.cols()); })
        .def_property_readonly("bytes", &RegistrationImage::bytes);

    m.def("register_images", &align, py::arg("fixed"), py::arg("moving"), py::kw_only(), py::arg("with_scale") = true,
          py::arg("isa") = "", "Register `moving` onto `fixed`.");
    m.def("evidence", &evidence, py::arg("fixed"), py::arg("moving"), py::arg("transform"), py::kw_only(),
          py::arg("with_maps") = false, py::arg("isa") = "", "Compare a registered pair.");
    m.def("verify_images", &verify, py::arg("fixed"), py::arg("moving"), py::arg("starts"), py::arg("candidates"),
          py::kw_only(), py::arg("with_scale") = true, py::arg("threads") = 0,
          "Register and compare candidates, one row a pair.");
    m.def(
        "warp_image",
        [](const py::array& image, const Numbers& numbers) {
            const MatrixView view = as_matrix(image, "image");
            if (view.rows == 0 || view.cols == 0) throw InvalidInput("the image is empty; give one with pixels");
            if (view.rows > 4096 || view.cols > 4096)
                throw InvalidInput("the image is over 4,096 pixels a side; resize it");
            const Transform transform = as_transform(numbers);
            py::array_t<float> out({size(view.rows), size(view.cols)});
            float* target = out.mutable_data();
            {
                const py::gil_scoped_release unlocked;  // a borrowed input, an output made here
                warp_image(view, transform, target);
            }
            return out;
        },
        py::arg("image"), py::arg("transform"), "Show an image under a transform.");
    m.def(
        "transform_matrix",
        [](const Numbers& numbers, std::size_t rows, std::size_t cols) {
            return matrix_of(as_transform(numbers), rows, cols);
        },
        py::arg("transform"), py::arg("rows"), py::arg("cols"));
    m.def(
        "inverse_transform", [](const Numbers& numbers) { return as_numbers(inverse(as_transform(numbers))); },
        py::arg("transform"));
}

}  // namespace deepssim::bindings
