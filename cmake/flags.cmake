# What every translation unit is compiled with: target sepconv_flags.

# Value-changing flags would break "the same bits on any number of threads" and, in a shared library, set
# flush-to-zero for the whole process.
string(TOUPPER "CMAKE_CXX_FLAGS_${CMAKE_BUILD_TYPE}" flags_of_type)
set(value_changing -Ofast -ffast-math -funsafe-math-optimizations -fassociative-math -ffinite-math-only -freciprocal-math
  -fno-signed-zeros -fno-honor-nans -fno-honor-infinities -fapprox-func -fsingle-precision-constant
  "-ffp-model=(fast|aggressive)" -mrecip -mdaz-ftz)
list(JOIN value_changing "|" value_changing)
foreach(flags IN ITEMS "${CMAKE_CXX_FLAGS}" "${${flags_of_type}}" "${CMAKE_SHARED_LINKER_FLAGS}" "${CMAKE_MODULE_LINKER_FLAGS}")
  if(flags MATCHES "${value_changing}")
    message(FATAL_ERROR "sepconv: ${CMAKE_MATCH_0} changes results and must not be given, but the flags are: ${flags}")
  endif()
endforeach()

add_library(sepconv_flags INTERFACE)
target_compile_features(sepconv_flags INTERFACE cxx_std_20)
target_include_directories(sepconv_flags INTERFACE "${PROJECT_SOURCE_DIR}/csrc")
target_compile_options(sepconv_flags INTERFACE
  -ffp-contract=off
  -fno-math-errno
  -fstack-protector-strong
  "-ffile-prefix-map=${PROJECT_SOURCE_DIR}=."  # the same bytes whatever the checkout's path
  -Wall -Wextra -Wshadow -Wnon-virtual-dtor -Woverloaded-virtual -Wcast-qual -Wimplicit-fallthrough
  -Wno-missing-field-initializers  # plain structs have defaults
  $<$<BOOL:${SEPCONV_WERROR}>:-Werror>)
if(NOT APPLE AND NOT WIN32)  # ELF
  target_link_options(sepconv_flags INTERFACE -Wl,-z,relro,-z,now,-z,noexecstack)
endif()

if(SEPCONV_SANITIZE)
  string(REPLACE ";" "," sanitizers "${SEPCONV_SANITIZE}")
  # -O1: with more, checked code takes minutes to compile.
  target_compile_options(sepconv_flags INTERFACE
    -O1 -fsanitize=${sanitizers} -D_GLIBCXX_ASSERTIONS -fno-sanitize-recover=all -fno-omit-frame-pointer -g1)
  target_link_options(sepconv_flags INTERFACE -fsanitize=${sanitizers})
else()
  # Toolchains may define _FORTIFY_SOURCE themselves; it does nothing, and warns, without optimisation.
  target_compile_options(sepconv_flags INTERFACE $<$<NOT:$<CONFIG:Debug>>:-U_FORTIFY_SOURCE$<SEMICOLON>-D_FORTIFY_SOURCE=2>)
endif()
