# The registry "source file -> ISA flags". A file compiled for more than the baseline must define nothing
# with external linkage but its kernel table.
function(deepssim_simd_sources target)
  set(sources csrc/simd/dispatch.cpp csrc/simd/portable.cpp)
  # Passing wide vectors between functions of one file would warn that the convention differs elsewhere.
  set(gnu_quiet "$<$<CXX_COMPILER_ID:GNU>:-Wno-psabi>")
  set_source_files_properties(csrc/simd/portable.cpp PROPERTIES COMPILE_OPTIONS "${gnu_quiet}")
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    list(APPEND sources csrc/simd/avx2.cpp csrc/simd/avxvnni.cpp csrc/simd/avx512vnni.cpp csrc/simd/amx.cpp)
    set(avx2 "-mavx2;-mfma;${gnu_quiet}")
    # g++ 12 warns of the undefined registers inside its own AVX-512 header.
    set(avx512 "-mavx2;-mfma;-mavx512f;-mavx512bw;-mavx512dq;-mavx512vl;-mavx512vnni;-mprefer-vector-width=512;$<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized;-Wno-uninitialized;-Wno-psabi>")
    set_source_files_properties(csrc/simd/avx2.cpp PROPERTIES COMPILE_OPTIONS "${avx2}")
    set_source_files_properties(csrc/simd/avxvnni.cpp PROPERTIES COMPILE_OPTIONS "${avx2};-mavxvnni")
    set_source_files_properties(csrc/simd/avx512vnni.cpp PROPERTIES COMPILE_OPTIONS "${avx512}")
    set_source_files_properties(csrc/simd/amx.cpp PROPERTIES COMPILE_OPTIONS "${avx512};-mamx-tile;-mamx-int8")
    target_compile_definitions(${target} PRIVATE DEEPSSIM_HAVE_X86)
  elseif(CMAKE_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64|ARM64)$")
    list(APPEND sources csrc/simd/neon_dot.cpp)
    set_source_files_properties(csrc/simd/neon_dot.cpp PROPERTIES COMPILE_OPTIONS "-march=armv8.2-a+dotprod;${gnu_quiet}")
    target_compile_definitions(${target} PRIVATE DEEPSSIM_HAVE_ARM64)
  endif()
  target_sources(${target} PRIVATE ${sources})
endfunction()
