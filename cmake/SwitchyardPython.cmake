# switchyard_pytest(NAME FILES a_test.py ... [ARGS -k x] [LABELS ...] [TIMEOUT s] [PROCESSORS n])
#
# One CTest entry that runs pytest from the virtual environment on the files of the current directory.
function(switchyard_pytest name)
  cmake_parse_arguments(ARG "" "TIMEOUT;PROCESSORS" "FILES;ARGS;LABELS" ${ARGN})
  list(TRANSFORM ARG_FILES PREPEND "${CMAKE_CURRENT_SOURCE_DIR}/")
  if(NOT ARG_TIMEOUT)
    set(ARG_TIMEOUT 120)
  endif()
  if(NOT ARG_PROCESSORS)
    set(ARG_PROCESSORS 1)
  endif()
  if(NOT ARG_LABELS)
    set(ARG_LABELS unit)
  endif()
  # Exit code 5 is "no test was collected": a mistake here.
  add_test(NAME ${name} COMMAND ${SWITCHYARD_VENV}/bin/python -B -m pytest -q -p no:cacheprovider ${ARG_ARGS} ${ARG_FILES})
  set_tests_properties(${name} PROPERTIES TIMEOUT ${ARG_TIMEOUT} PROCESSORS ${ARG_PROCESSORS} LABELS "${ARG_LABELS}"
    ENVIRONMENT "SWITCHYARD_SOURCE_DIR=${CMAKE_SOURCE_DIR};SWITCHYARD_BINARY_DIR=${CMAKE_BINARY_DIR};SWITCHYARD_VENV=${SWITCHYARD_VENV}")
endfunction()
