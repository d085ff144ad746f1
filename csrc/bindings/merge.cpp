#include "deepssim/merge.hpp"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cmath>
#include <optional>
#include <vector>

#include "arrays.hpp"
#include "deepssim/exact.hpp"
#include "register.hpp"

namespace deepssim::bindings {

namespace py = pybind11;

namespace {

template <class T>
const T* dense(const py::array& array, const char* name, const char* type, const py::array& like) {
    if (!array.dtype().equal(py::dtype::of<T>())) {
        throw py::type_error(std::string(name) + " must be an array of native " + type);
    }
    constexpr int kPlain = int{py::array::c_style} | int{py::detail::npy_api::NPY_ARRAY_ALIGNED_};
    if (array.ndim() != 3 || (array.flags() & kPlain) != kPlain) {
        throw py::value_error(std::string(name) + " must be aligned and C-contiguous, of shape (parts, queries, k)");
    }
    for (py::ssize_t axis = 0; axis < 3; ++axis) {
        if (array.shape(axis) != like.shape(axis))
            throw py::value_error(std::string(name) + " and scores differ in shape");
    }
    return static_cast<const T*>(array.data());
}

py::tuple merge(const py::array& scores, const py::array& ids, const std::optional<py::array>& groups,
                std::size_t max_per_group) {
    const float* score = dense<float>(scores, "scores", "float32", scores);
    const RowId* id = dense<RowId>(ids, "ids", "int64", scores);
    const GroupId* group = groups ? dense<GroupId>(*groups, "groups", "int64", scores) : nullptr;
    if (max_per_group != 0 && group == nullptr) throw py::value_error("a cap per group needs groups");
    const auto parts = static_cast<std::size_t>(scores.shape(0));
    const auto queries = static_cast<std::size_t>(scores.shape(1));
    const auto k = static_cast<std::size_t>(scores.shape(2));
    py::array_t<float> out_scores({scores.shape(1), scores.shape(2)});
    py::array_t<RowId> out_ids({scores.shape(1), scores.shape(2)});
    float* to_scores = out_scores.mutable_data();
    RowId* to_ids = out_ids.mutable_data();
    {
        const py::gil_scoped_release unlocked;  // borrowed inputs, outputs made here
        const FloatEnvironment environment;     // denormal scores keep their order
        std::vector<Match> lists(parts * k);
        std::vector<GroupId> known(group != nullptr ? parts * k : 0);
        std::vector<Match> merged(k);
        for (std::size_t query = 0; query < queries; ++query) {
            for (std::size_t part = 0; part < parts; ++part) {
                for (std::size_t place = 0; place < k; ++place) {
                    const std::size_t at = (part * queries + query) * k + place;
                    // NaN has no place in the order: sorting by it would be undefined.
                    if (std::isnan(score[at])) {
                        throw InvalidInput("scores hold NaN in part " + std::to_string(part) + ", query " +
                                           std::to_string(query));
                    }
                    lists[part * k + place] = {score[at], id[at]};
                    if (group != nullptr) known[part * k + place] = group[at];
                }
            }
            merge_topk(lists, known, max_per_group, merged);
            for (std::size_t place = 0; place < k; ++place) {
                to_scores[query * k + place] = merged[place].score;
                to_ids[query * k + place] = merged[place].id;
            }
        }
    }
    return py::make_tuple(out_scores, out_ids);
}

}  // namespace

void register_merge(py::module_& m) {
    m.def("merge_topk", &merge, py::arg("scores"), py::arg("ids"), py::arg("groups") = py::none(),
          py::arg("max_per_group") = 0, "Merge answers of shape (parts, queries, k) into one of shape (queries, k).");
}

}  // namespace deepssim::bindings
