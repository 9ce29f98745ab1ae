# SPDX-License-Identifier: Apache-2.0
# Programs on musl(7)'s C library and libc++'s headers: see launcher/small_runtime.cpp for why, and for what stands in
# for libc++'s compiled half.
find_path(MUSL_HEADERS features.h PATHS /usr/include/${CMAKE_LIBRARY_ARCHITECTURE}-musl /usr/include/x86_64-linux-musl NO_DEFAULT_PATH REQUIRED)
find_path(MUSL_LIBRARIES crt1.o PATHS /usr/lib/x86_64-linux-musl /usr/lib/musl/lib NO_DEFAULT_PATH REQUIRED)
find_path(LIBCXX_HEADERS __config PATHS /usr/lib/llvm-14/include/c++/v1 NO_DEFAULT_PATH REQUIRED)

# The compiler's own headers (stddef.h), and of /usr/include what is of no C library.
execute_process(COMMAND ${CMAKE_CXX_COMPILER} -print-file-name=include OUTPUT_VARIABLE compiler_headers OUTPUT_STRIP_TRAILING_WHITESPACE COMMAND_ERROR_IS_FATAL ANY)
set(other_headers ${CMAKE_CURRENT_BINARY_DIR}/musl-include)
file(MAKE_DIRECTORY ${other_headers})
foreach(name linux asm-generic fmt tl)
  file(CREATE_LINK /usr/include/${name} ${other_headers}/${name} SYMBOLIC)
endforeach()
file(CREATE_LINK /usr/include/${CMAKE_LIBRARY_ARCHITECTURE}/asm ${other_headers}/asm SYMBOLIC)

add_library(postern-musl INTERFACE)
target_compile_options(postern-musl INTERFACE -Wall -Wextra -Wconversion -Wshadow -fstack-protector-strong
    -ffunction-sections -fdata-sections -fno-pie -fno-exceptions -fno-rtti -fno-threadsafe-statics -nostdinc -nostdinc++
    "SHELL:-isystem ${LIBCXX_HEADERS}" "SHELL:-isystem ${MUSL_HEADERS}" "SHELL:-isystem ${compiler_headers}" "SHELL:-isystem ${other_headers}")
if(CMAKE_CXX_COMPILER_ID STREQUAL GNU)
  # Of g++ 12, about libc++'s strings as it inlines them.
  target_compile_options(postern-musl INTERFACE -Wno-array-bounds -Wno-stringop-overflow -Wno-alloc-size-larger-than)
endif()
# As an option, since CMake takes no macro with parameters for a definition.
target_compile_options(postern-musl INTERFACE "-DFMT_THROW(x)=::std::abort()")
target_compile_definitions(postern-musl INTERFACE _GNU_SOURCE _LIBCPP_HAS_MUSL_LIBC _LIBCPP_DISABLE_EXTERN_TEMPLATE
    FMT_HEADER_ONLY "FMT_STATIC_THOUSANDS_SEPARATOR=','" POSTERN_VERSION="${PROJECT_VERSION}")
target_include_directories(postern-musl INTERFACE ${CMAKE_SOURCE_DIR})
target_link_options(postern-musl INTERFACE -nostdlib -static -Wl,--gc-sections ${MUSL_LIBRARIES}/crt1.o ${MUSL_LIBRARIES}/crti.o)
target_link_libraries(postern-musl INTERFACE ${MUSL_LIBRARIES}/libc.a gcc ${MUSL_LIBRARIES}/crtn.o)
