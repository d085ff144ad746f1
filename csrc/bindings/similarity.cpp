#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <string>
#include <utility>
#include <vector>

#include "arrays.hpp"
#include "deepssim/similarity.hpp"
#include "register.hpp"
#include "signals.hpp"

namespace deepssim::bindings {

namespace py = pybind11;

namespace {

// What messages call the two stacks.
using Names = std::pair<std::string, std::string>;

// A borrowed stack of grey images (n, height, width); pixels of a row contiguous, other strides as they are.
ImageStack as_stack(const py::array& array, const char* name) {
    ImageStack stack;
    stack.name = name;
    if (array.dtype().equal(py::dtype::of<std::uint8_t>())) {
        stack.type = PixelType::kUint8;
    } else if (!array.dtype().equal(py::dtype::of<float>())) {
        throw py::type_error(stack.name + " must be uint8 or native float32, not " +
                             std::string(py::str(array.dtype())) + "; convert it with .astype(\"float32\")");
    }
    if (array.ndim() != 3) {
        throw py::value_error(stack.name + " must have three dimensions (images, rows, columns), not " +
                              std::to_string(array.ndim()));
    }
    const py::ssize_t item = array.itemsize();
    if (array.size() > 0) {
        if (array.shape(2) > 1 && array.strides(2) != item) {
            throw py::value_error(stack.name + " must have contiguous rows; use np.ascontiguousarray");
        }
        const bool is_odd = reinterpret_cast<std::uintptr_t>(array.data()) % static_cast<std::size_t>(item) != 0;
        if (is_odd || array.strides(0) % item != 0 || array.strides(1) % item != 0) {
            throw py::value_error(stack.name + " is not aligned; copy it with np.array(..., copy=True)");
        }
    }
    stack.data = array.data();
    stack.n = static_cast<std::size_t>(array.shape(0));
    stack.height = static_cast<std::size_t>(array.shape(1));
    stack.width = static_cast<std::size_t>(array.shape(2));
    stack.image_stride = array.strides(0);
    stack.row_stride = array.strides(1);
    return stack;
}

Similarity as_kind(const std::string& kind) {
    if (kind == "ssim") return Similarity::kSsim;
    if (kind == "contrast_structure") return Similarity::kContrastStructure;
    if (kind == "fsim") return Similarity::kFsim;
    if (kind == "ncc") return Similarity::kNcc;
    throw InvalidInput("unknown similarity '" + kind + "'; choose ssim, contrast_structure, fsim or ncc");
}

SimilarityOptions as_options(const std::string& kind, double data_range, const std::string& window, bool with_z_score,
                             std::size_t threads, const std::string& isa) {
    SimilarityOptions options;
    options.kind = as_kind(kind);
    if (window == "gaussian") {
        options.window = SsimWindow::kGaussian;
    } else if (window != "uniform") {
        throw InvalidInput("unknown window '" + window + "'; choose uniform or gaussian");
    }
    options.data_range = data_range;
    options.with_z_score = with_z_score;
    options.threads = threads;
    options.isa = isa;
    return options;
}

SimilarityOutput as_output(py::array& out, const ImageStack& first, const ImageStack& second) {
    if (out.ndim() != 2 || static_cast<std::size_t>(out.shape(0)) != first.n ||
        static_cast<std::size_t>(out.shape(1)) != second.n) {
        throw InvalidInput("out must have the shape (" + std::to_string(first.n) + ", " + std::to_string(second.n) +
                           ")");
    }
    const bool is_double = out.dtype().equal(py::dtype::of<double>());
    if (!is_double && !out.dtype().equal(py::dtype::of<float>())) {
        throw py::type_error("out must be native float32 or float64, not " + std::string(py::str(out.dtype())));
    }
    if (!out.writeable()) throw py::value_error("out is read-only");
    const py::ssize_t item = out.itemsize();
    const bool is_odd = reinterpret_cast<std::uintptr_t>(out.data()) % static_cast<std::size_t>(item) != 0;
    if (out.size() > 0 && (is_odd || (out.shape(1) > 1 && out.strides(1) != item) ||
                           (out.shape(0) > 1 && (out.strides(0) < 0 || out.strides(0) % item != 0)))) {
        throw py::value_error("out must have contiguous rows in ascending order; give a slice of a C-ordered array");
    }
    SimilarityOutput target;
    if (is_double) {
        target.doubles = static_cast<double*>(out.mutable_data());
    } else {
        target.floats = static_cast<float*>(out.mutable_data());
    }
    target.row_stride = static_cast<std::size_t>(out.strides(0) / item);
    return target;
}

void matrix(const std::string& kind, const py::array& first, const py::array& second, py::array out, double data_range,
            const std::string& window, bool with_z_score, std::size_t threads, const CancelToken* cancel,
            const std::string& isa, const Names& names) {
    const SimilarityOptions options = as_options(kind, data_range, window, with_z_score, threads, isa);
    ImageStack rows = as_stack(first, names.first.c_str());
    ImageStack columns = as_stack(second, names.second.c_str());
    const SimilarityOutput target = as_output(out, rows, columns);
    // Safe without the GIL: borrowed buffers that the caller's arguments keep alive.
    const py::gil_scoped_release unlocked;
    similarity_matrix(rows, columns, options, target, cancel, poll_signals);
}

py::array_t<double> pairs(const std::string& kind, const py::array& first, const py::array& second,
                          const py::array& index_pairs, double data_range, const std::string& window, bool with_z_score,
                          std::size_t threads, const CancelToken* cancel, const std::string& isa, const Names& names) {
    const SimilarityOptions options = as_options(kind, data_range, window, with_z_score, threads, isa);
    const ImageStack rows = as_stack(first, names.first.c_str());
    const ImageStack columns = as_stack(second, names.second.c_str());
    const auto indices = as_vector<std::int64_t>(index_pairs, "index_pairs", "int64");
    if (indices.size() % 2 != 0) throw InvalidInput("index_pairs must hold two indices a pair");
    std::vector<ImagePair> wanted(indices.size() / 2);
    for (std::size_t p = 0; p < wanted.size(); ++p) wanted[p] = {indices[2 * p], indices[2 * p + 1]};
    py::array_t<double> out(static_cast<py::ssize_t>(wanted.size()));
    double* target = out.mutable_data();
    {
        const py::gil_scoped_release unlocked;  // borrowed inputs, an output made here
        similarity_pairs(rows, columns, wanted, options, target, cancel, poll_signals);
    }
    return out;
}

double pair(const std::string& kind, const py::array& a, const py::array& b, double data_range,
            const std::string& window, bool with_z_score, const std::string& isa) {
    const SimilarityOptions options = as_options(kind, data_range, window, with_z_score, 1, isa);
    const ImageStack first = as_stack(a, "a");
    const ImageStack second = as_stack(b, "b");
    const ImagePair wanted[] = {{0, 0}};
    double value = 0.0;
    {
        const py::gil_scoped_release unlocked;  // borrowed inputs
        similarity_pairs(first, second, wanted, options, &value, nullptr, {});
    }
    return value;
}

py::array_t<double> map(const std::string& kind, const py::array& a, const py::array& b, double data_range,
                        const std::string& window, bool with_z_score, const std::string& isa) {
    const SimilarityOptions options = as_options(kind, data_range, window, with_z_score, 1, isa);
    const ImageStack first = as_stack(a, "a");
    const ImageStack second = as_stack(b, "b");
    const std::size_t border = 2 * ssim_radius(options.window);
    const auto inner = [&](std::size_t n) { return static_cast<py::ssize_t>(n > border ? n - border : 0); };
    py::array_t<double> out({inner(first.height), inner(first.width)});
    double* target = out.mutable_data();
    {
        const py::gil_scoped_release unlocked;  // borrowed inputs, an output made here
        ssim_map(first, second, options, target);
    }
    return out;
}

}  // namespace

void register_similarity(py::module_& m) {
    m.def("similarity_matrix", &matrix, py::arg("kind"), py::arg("first"), py::arg("second"),
          py::arg("out").noconvert(), py::kw_only(), py::arg("data_range") = 0.0, py::arg("window") = "uniform",
          py::arg("with_z_score") = false, py::arg("threads") = 0, py::arg("cancel") = py::none(), py::arg("isa") = "",
          py::arg("names") = Names("first", "second"),
          "Compare every image of one stack with every one of another, into `out`.");
    m.def("similarity_pairs", &pairs, py::arg("kind"), py::arg("first"), py::arg("second"), py::arg("index_pairs"),
          py::kw_only(), py::arg("data_range") = 0.0, py::arg("window") = "uniform", py::arg("with_z_score") = false,
          py::arg("threads") = 0, py::arg("cancel") = py::none(), py::arg("isa") = "",
          py::arg("names") = Names("first", "second"), "Compare pairs of images given by index.");
    m.def("similarity_pair", &pair, py::arg("kind"), py::arg("a"), py::arg("b"), py::kw_only(),
          py::arg("data_range") = 0.0, py::arg("window") = "uniform", py::arg("with_z_score") = false,
          py::arg("isa") = "", "Compare two images, each a stack of one.");
    m.def("similarity_map", &map, py::arg("kind"), py::arg("a"), py::arg("b"), py::kw_only(),
          py::arg("data_range") = 0.0, py::arg("window") = "uniform", py::arg("with_z_score") = false,
          py::arg("isa") = "", "SSIM at each place of the window.");
}

}  // namespace deepssim::bindings
