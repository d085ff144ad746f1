# The registry "source file -> ISA flags". A file compiled for more than the baseline must define nothing
# with external linkage but its kernel table.
function(deepssim_simd_sources target)
  set(sources csrc/simd/dispatch.cpp csrc/simd/portable.cpp)
  if(CMAKE_SYSTEM_PROCESSOR MATCHES "^(x86_64|AMD64|amd64)$")
    list(APPEND sources csrc/simd/avx2.cpp csrc/simd/avx512.cpp)
    set_source_files_properties(csrc/simd/avx2.cpp PROPERTIES COMPILE_OPTIONS "-mavx2;-mfma")
    # g++ 12 warns of the undefined registers inside its own AVX-512 header.
    set_source_files_properties(csrc/simd/avx512.cpp PROPERTIES COMPILE_OPTIONS
      "-mavx2;-mfma;-mavx512f;-mprefer-vector-width=512;$<$<CXX_COMPILER_ID:GNU>:-Wno-maybe-uninitialized;-Wno-uninitialized>")
    target_compile_definitions(${target} PRIVATE DEEPSSIM_HAVE_X86)
  endif()
  target_sources(${target} PRIVATE ${sources})
endfunction()
