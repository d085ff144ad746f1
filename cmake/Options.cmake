option(DEEPSSIM_PYTHON "Build the Python extension" ON)
option(DEEPSSIM_TESTS "Build the C++ tests (needs doctest)" OFF)
option(DEEPSSIM_WERROR "Treat warnings as errors" OFF)
set(DEEPSSIM_SANITIZE "" CACHE STRING "Sanitizers, as -fsanitize takes them: address,undefined or thread")

# Release unless told otherwise: a debug build of the scan is fifty times slower.
if(NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Build type" FORCE)
endif()
