# Toolchain of the preset "aarch64": Debian's cross compiler (g++-aarch64-linux-gnu) and an emulator that runs what
# it builds (qemu-user). Neither needs a foreign package architecture to be enabled.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)

# No processor is named here: QEMU_CPU in the environment picks one, and the test presets set it.
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)

# Libraries of the host must never be found in place of the target's. Packages may come from the host: the only one
# that a build without Python looks for is doctest, which is headers alone and works for any target. The cross compiler
# searches /usr/include itself, after the target's own headers, so doctest adds no include path that could change that.
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE BOTH)
