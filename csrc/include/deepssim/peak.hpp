// How fast this processor multiplies and adds when nothing else holds it up.
#pragma once

#include <cstddef>
#include <string_view>

namespace deepssim {

struct Peak {
    double integer = 0.0;  // multiply-adds a second of the scan's instructions
    double real = 0.0;     // of float32
};

// Runs register-only loops at an ISA level on `threads` threads (0: all) for about a third of a second, the best
// of several rounds each.
Peak measure_peak(std::string_view isa, std::size_t threads);

}  // namespace deepssim
