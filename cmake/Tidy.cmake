# Optional targets for people; continuous integration does not need the tools.
#
#   format, format-check    clang-format over the tree's C++, CUDA and proto files
#   tidy                    clang-tidy over the files that do not include torch
#   tidy-torch              clang-tidy over the trainer's files and their tests (slow: ten seconds a file and more)
#
# Both run as many files at once as there are cores and print each when it is done. CUDA files are left out: clang 14
# does not read the headers of CUDA 13.
find_program(SWITCHYARD_CLANG_FORMAT NAMES clang-format-16 clang-format-14 clang-format)
find_program(SWITCHYARD_RUN_CLANG_TIDY NAMES run-clang-tidy-16 run-clang-tidy-14 run-clang-tidy)

function(_switchyard_tool_target name tool package comment)
  if(tool)
    add_custom_target(${name} COMMAND ${ARGN} WORKING_DIRECTORY ${CMAKE_SOURCE_DIR} COMMENT "${comment}" VERBATIM USES_TERMINAL)
  else()
    add_custom_target(${name} COMMAND ${CMAKE_COMMAND} -E echo "${name} needs Debian's package ${package}"
      COMMAND ${CMAKE_COMMAND} -E false VERBATIM)
  endif()
endfunction()

set(_roots common coordinator kernels proto tests worker)
string(JOIN " " _roots ${_roots})
set(_find "find ${_roots} -name '*.h' -o -name '*.cc' -o -name '*.cu' -o -name '*.cuh' -o -name '*.proto'")
_switchyard_tool_target(format "${SWITCHYARD_CLANG_FORMAT}" clang-format "Formatting"
  sh -c "${_find} | xargs ${SWITCHYARD_CLANG_FORMAT} -i")
_switchyard_tool_target(format-check "${SWITCHYARD_CLANG_FORMAT}" clang-format "Checking the format"
  sh -c "${_find} | xargs ${SWITCHYARD_CLANG_FORMAT} --dry-run --Werror")
_switchyard_tool_target(tidy "${SWITCHYARD_RUN_CLANG_TIDY}" clang-tidy "clang-tidy without torch"
  ${SWITCHYARD_RUN_CLANG_TIDY} -quiet -p ${CMAKE_BINARY_DIR}
  "${CMAKE_SOURCE_DIR}/(common|coordinator|worker/agent|tests/(common|coordinator|agent|fuzz))/.*[.]cc$")
_switchyard_tool_target(tidy-torch "${SWITCHYARD_RUN_CLANG_TIDY}" clang-tidy "clang-tidy over the trainer"
  ${SWITCHYARD_RUN_CLANG_TIDY} -quiet -p ${CMAKE_BINARY_DIR}
  "${CMAKE_SOURCE_DIR}/(worker/trainer|kernels|tests/(trainer|kernels))/.*[.]cc$")
if(SWITCHYARD_SERVICE)
  cmake_language(DEFER CALL add_dependencies tidy switchyard_proto)  # generated headers
endif()
