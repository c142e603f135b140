# switchyard_pytest(NAME FILES a_test.py ... [ARGS -k x] [LABELS ...] [TIMEOUT s] [PROCESSORS n])
#
# One CTest entry that runs pytest from the virtual environment on the files of the current directory.
function(switchyard_pytest name)
  cmake_parse_arguments(ARG "" "TIMEOUT;PROCESSORS" "FILES;ARGS;LABELS" ${ARGN})
  list(TRANSFORM ARG_FILES PREPEND "${CMAKE_CURRENT_SOURCE_DIR}/")
  # Exit code 5 is "no test was collected": a mistake here.
  add_test(NAME ${name} COMMAND ${SWITCHYARD_VENV}/bin/python -B -m pytest -q -p no:cacheprovider ${ARG_ARGS} ${ARG_FILES})
  switchyard_test_properties(${name} "${ARG_TIMEOUT}" "${ARG_PROCESSORS}" "${ARG_LABELS}")
endfunction()
