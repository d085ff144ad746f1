# Flags that every target of ours is compiled with.
function(deepssim_compile_options target)
  # Contraction would let the compiler fuse what the definition of a result keeps apart; kernels that
  # want fused arithmetic say so by intrinsics.
  target_compile_options(${target} PRIVATE -Wall -Wextra -Wconversion -Wshadow -ffp-contract=off -fno-fast-math)
  if(DEEPSSIM_WERROR)
    target_compile_options(${target} PRIVATE -Werror)
  endif()
  if(DEEPSSIM_SANITIZE)
    target_compile_options(${target} PUBLIC -fsanitize=${DEEPSSIM_SANITIZE} -fno-omit-frame-pointer -fno-sanitize-recover=all)
    target_link_options(${target} PUBLIC -fsanitize=${DEEPSSIM_SANITIZE})
  endif()
endfunction()
