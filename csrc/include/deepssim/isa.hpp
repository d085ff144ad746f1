// Which instruction set the core runs on.
#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace deepssim {

// The levels built into this library that this processor runs, best last. "portable" is always there.
std::vector<std::string> supported_isa_levels();

// Resolves a level: `requested` if not empty, else the environment variable DEEPSSIM_ISA, else the best.
// Throws InvalidInput if the level is unknown or this processor lacks it. Answers do not depend on it.
std::string resolve_isa(std::string_view requested);

}  // namespace deepssim
