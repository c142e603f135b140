# Warnings, sanitizers, ccache and mold for every target.
set(SWITCHYARD_SANITIZE "" CACHE STRING "Sanitizers, as for -fsanitize=")

find_program(SWITCHYARD_CCACHE ccache)
if(SWITCHYARD_CCACHE)
  # A base directory and no hashed cwd let two checkouts share the cache.
  set(CMAKE_CXX_COMPILER_LAUNCHER ${CMAKE_COMMAND} -E env CCACHE_BASEDIR=${CMAKE_SOURCE_DIR} CCACHE_NOHASHDIR=1
      ${SWITCHYARD_CCACHE})
  set(CMAKE_CUDA_COMPILER_LAUNCHER ${CMAKE_CXX_COMPILER_LAUNCHER})
endif()
find_program(SWITCHYARD_MOLD mold)
if(SWITCHYARD_MOLD)
  add_link_options($<$<LINK_LANGUAGE:CXX>:-fuse-ld=mold>)
endif()

add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-Wall> $<$<COMPILE_LANGUAGE:CXX>:-Wextra>
                    $<$<COMPILE_LANGUAGE:CXX>:-Wshadow> $<$<COMPILE_LANGUAGE:CXX>:-Wno-missing-field-initializers>
                    $<$<AND:$<COMPILE_LANGUAGE:CXX>,$<CXX_COMPILER_ID:GNU>>:-Wno-restrict>  # false alarms of GCC 12, bug 105651
                    $<$<COMPILE_LANGUAGE:CXX>:-fno-omit-frame-pointer>)
if(SWITCHYARD_SANITIZE)
  add_compile_options($<$<COMPILE_LANGUAGE:CXX>:-fsanitize=${SWITCHYARD_SANITIZE}>)
  add_link_options(-fsanitize=${SWITCHYARD_SANITIZE})
endif()
