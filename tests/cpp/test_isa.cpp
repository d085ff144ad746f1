#include <doctest/doctest.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "deepssim/isa.hpp"
#include "deepssim/searcher.hpp"
#include "deepssim/types.hpp"
#include "simd/kernels.hpp"

namespace deepssim {

namespace {

// Sets DEEPSSIM_ISA for a scope.
class IsaOverride {
   public:
    explicit IsaOverride(const std::string& level) {
        if (const char* value = std::getenv(kName)) saved_ = value;
        ::setenv(kName, level.c_str(), 1);
    }
    ~IsaOverride() {
        if (saved_.empty()) {
            ::unsetenv(kName);
        } else {
            ::setenv(kName, saved_.c_str(), 1);
        }
    }
    IsaOverride(const IsaOverride&) = delete;
    IsaOverride& operator=(const IsaOverride&) = delete;

   private:
    static constexpr const char* kName = "DEEPSSIM_ISA";
    std::string saved_;
};

}  // namespace

TEST_SUITE_BEGIN("isa");

TEST_CASE("portable runs everywhere and each level has its own table") {
    const std::vector<std::string> levels = supported_isa_levels();
    REQUIRE_FALSE(levels.empty());
    CHECK(levels.front() == "portable");
    for (const std::string& level : levels) CHECK(simd::kernels_for(level.c_str()).name == level);
    CHECK_THROWS_AS(simd::kernels_for("nonsense"), InvalidInput);
}

TEST_CASE("the argument comes before the environment, the environment before the best") {
    const std::vector<std::string> levels = supported_isa_levels();
    {
        const IsaOverride none("");
        CHECK(resolve_isa("") == levels.back());
    }
    const IsaOverride portable("portable");
    CHECK(resolve_isa("") == "portable");
    CHECK(Searcher(4, 1, false, 0, "").isa() == "portable");
    CHECK(resolve_isa(levels.back()) == levels.back());
    CHECK(Searcher(4, 1, false, 0, levels.back()).isa() == levels.back());
}

TEST_CASE("a level that the whole run was started with runs here") {
    const char* level = std::getenv("DEEPSSIM_ISA");
    if (level == nullptr || *level == '\0') return;
    CHECK(resolve_isa("") == level);
    CHECK(simd::kernels_for(level).name == std::string(level));
}

TEST_CASE("an unknown level is refused by a line that names its origin and the choices") {
    CHECK_THROWS_WITH_AS(resolve_isa("sse9"), doctest::Contains("'sse9', does not run here"), InvalidInput);
    CHECK_THROWS_WITH_AS(resolve_isa("AVX2"), doctest::Contains("portable"), InvalidInput);
    const IsaOverride wrong("avx1024");
    CHECK_THROWS_WITH_AS(resolve_isa(""), doctest::Contains("DEEPSSIM_ISA, 'avx1024'"), InvalidInput);
    CHECK_THROWS_AS(Searcher(4, 1, false, 0, ""), InvalidInput);
    CHECK(resolve_isa("portable") == "portable");
}

TEST_SUITE_END();

}  // namespace deepssim
