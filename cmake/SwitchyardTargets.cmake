# switchyard_library / switchyard_binary / switchyard_test: one line a target, sources listed by name.
#
#   switchyard_library(NAME SRCS a.cc b.cc DEPS common_base ...)       target switchyard_NAME; no SRCS: interface
#   switchyard_binary(NAME SRCS main.cc DEPS ... [TORCH])              program NAME in <build>/bin
#   switchyard_test(NAME SRCS x_test.cc DEPS ... [TORCH] [LABELS ...] [TIMEOUT s] [PROCESSORS n])
#
# DEPS are names of switchyard libraries, or targets with "::" in them. Abseil is linked by programs, not by
# libraries: shared beside gRPC (one copy a process), static with TORCH (the trainer is carried to machines
# that have only torch).

set(SWITCHYARD_ABSL_SHARED absl::status absl::statusor absl::strings absl::str_format absl::flat_hash_map
    absl::flat_hash_set absl::synchronization absl::time absl::random_random absl::base absl::cleanup)

file(GLOB SWITCHYARD_ABSL_ARCHIVES /usr/lib/*-linux-gnu/libabsl_*.a)
list(FILTER SWITCHYARD_ABSL_ARCHIVES EXCLUDE REGEX "libabsl_flags")

function(_switchyard_link target scope)
  foreach(dep IN LISTS ARGN)
    if(dep MATCHES "::" OR TARGET ${dep})
      target_link_libraries(${target} ${scope} ${dep})
    else()
      target_link_libraries(${target} ${scope} switchyard_${dep})
    endif()
  endforeach()
endfunction()

function(switchyard_library name)
  cmake_parse_arguments(ARG "" "" "SRCS;DEPS" ${ARGN})
  if(ARG_SRCS)
    add_library(switchyard_${name} STATIC ${ARG_SRCS})
    target_include_directories(switchyard_${name} PUBLIC ${CMAKE_SOURCE_DIR})
    _switchyard_link(switchyard_${name} PUBLIC ${ARG_DEPS})
  else()
    add_library(switchyard_${name} INTERFACE)
    target_include_directories(switchyard_${name} INTERFACE ${CMAKE_SOURCE_DIR})
    _switchyard_link(switchyard_${name} INTERFACE ${ARG_DEPS})
  endif()
endfunction()

function(_switchyard_program target torch)
  if(torch)
    target_link_libraries(${target} PRIVATE -Wl,--start-group ${SWITCHYARD_ABSL_ARCHIVES} -Wl,--end-group)
  else()
    target_link_libraries(${target} PRIVATE ${SWITCHYARD_ABSL_SHARED})
  endif()
endfunction()

function(switchyard_binary name)
  cmake_parse_arguments(ARG "TORCH" "" "SRCS;DEPS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  _switchyard_link(${name} PRIVATE ${ARG_DEPS})
  _switchyard_program(${name} ${ARG_TORCH})
endfunction()

# What every CTest entry has, of a program or of pytest. Empty: 120 s, one processor, label "unit".
function(switchyard_test_properties name timeout processors labels)
  if(NOT timeout)
    set(timeout 120)
  endif()
  if(NOT processors)
    set(processors 1)
  endif()
  if(NOT labels)
    set(labels unit)
  endif()
  set_tests_properties(${name} PROPERTIES TIMEOUT ${timeout} PROCESSORS ${processors} LABELS "${labels}"
    ENVIRONMENT "SWITCHYARD_SOURCE_DIR=${CMAKE_SOURCE_DIR};SWITCHYARD_BINARY_DIR=${CMAKE_BINARY_DIR};SWITCHYARD_VENV=${SWITCHYARD_VENV}")
endfunction()

function(switchyard_test name)
  cmake_parse_arguments(ARG "TORCH" "TIMEOUT;PROCESSORS" "SRCS;DEPS;LABELS" ${ARGN})
  add_executable(${name} ${ARG_SRCS})
  target_include_directories(${name} PRIVATE ${CMAKE_SOURCE_DIR})
  _switchyard_link(${name} PRIVATE ${ARG_DEPS})
  target_link_libraries(${name} PRIVATE GTest::gmock GTest::gtest_main)
  _switchyard_program(${name} ${ARG_TORCH})
  # One CTest entry a program, not a case: starting torch costs more than most cases.
  add_test(NAME ${name} COMMAND ${name})
  switchyard_test_properties(${name} "${ARG_TIMEOUT}" "${ARG_PROCESSORS}" "${ARG_LABELS}")
endfunction()
