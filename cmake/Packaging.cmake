# Where things go on a host, and Debian packages of them:
#
#   cmake --build BUILD --target package                   BUILD/packages/switchyard-*.deb
#   DESTDIR=ROOT cmake --install BUILD --component agent   one of coordinator, agent, cli, trainer
#
# switchyard-trainer carries the trainer without LibTorch, and the program that installs both
# (deploy/runtime/install_runtime.sh). Needs dpkg-dev and file.
set(_deploy ${CMAKE_SOURCE_DIR}/deploy)
set(_control ${CMAKE_BINARY_DIR}/debian)
set(CPACK_COMPONENTS_ALL "")

function(_switchyard_docs component package)
  install(FILES ${CMAKE_SOURCE_DIR}/docs/operations.md DESTINATION usr/share/doc/${package} COMPONENT ${component})
  install(FILES ${CMAKE_SOURCE_DIR}/LICENSE DESTINATION usr/share/doc/${package} RENAME copyright COMPONENT ${component})
endfunction()

# A daemon: program, unit, user, directories, flags in /etc/default, maintainer scripts.
function(_switchyard_daemon component on_upgrade)
  set(PACKAGE switchyard-${component})
  set(ON_UPGRADE ${on_upgrade})
  install(TARGETS ${PACKAGE} RUNTIME DESTINATION usr/bin COMPONENT ${component})
  install(FILES ${_deploy}/systemd/${PACKAGE}.service DESTINATION usr/lib/systemd/system COMPONENT ${component})
  install(FILES ${_deploy}/systemd/switchyard.sysusers DESTINATION usr/lib/sysusers.d RENAME ${PACKAGE}.conf COMPONENT ${component})
  install(FILES ${_deploy}/systemd/${PACKAGE}.tmpfiles DESTINATION usr/lib/tmpfiles.d RENAME ${PACKAGE}.conf COMPONENT ${component})
  install(FILES ${_deploy}/systemd/${PACKAGE}.default DESTINATION etc/default RENAME ${PACKAGE} COMPONENT ${component})
  _switchyard_docs(${component} ${PACKAGE})
  foreach(script postinst prerm postrm)
    configure_file(${_deploy}/debian/${script}.in ${_control}/${component}/${script} @ONLY
                   FILE_PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ WORLD_EXECUTE)
  endforeach()
  file(WRITE ${_control}/${component}/conffiles "/etc/default/${PACKAGE}\n")
endfunction()

if(TARGET switchyard-coordinator)
  _switchyard_daemon(coordinator "systemctl restart switchyard-coordinator.service  # running jobs go on")
  _switchyard_daemon(agent "echo 'switchyard-agent: the running agent is the old one until: switchyard node drain NODE; systemctl restart switchyard-agent'")
  install(TARGETS switchyard RUNTIME DESTINATION usr/bin COMPONENT cli)
  install(PROGRAMS ${CMAKE_SOURCE_DIR}/tools/prepare_data.py DESTINATION usr/share/switchyard COMPONENT cli)
  install(DIRECTORY ${CMAKE_SOURCE_DIR}/tools/switchyard_data DESTINATION usr/share/switchyard COMPONENT cli
          FILES_MATCHING PATTERN "*.py" PATTERN "__pycache__" EXCLUDE)
  _switchyard_docs(cli switchyard-cli)
  list(APPEND CPACK_COMPONENTS_ALL coordinator agent cli)
endif()

if(TARGET switchyard-trainer)
  set(_trainer usr/lib/switchyard/trainer)
  # The build's path to LibTorch gives way to the runtime's: lib/torch and lib/nvidia are links made at installation.
  file(GLOB _nvidia RELATIVE ${SWITCHYARD_SITE_PACKAGES} ${SWITCHYARD_SITE_PACKAGES}/nvidia/*/lib)
  list(TRANSFORM _nvidia PREPEND "$ORIGIN/../lib/")
  list(JOIN _nvidia ":" _nvidia)
  string(REPLACE "$" "\\$" _rpath "$ORIGIN/../lib/torch:${_nvidia}")
  foreach(_program switchyard-trainer switchyard-trainer-cuda)
    if(TARGET ${_program})
      install(PROGRAMS $<TARGET_FILE:${_program}> DESTINATION ${_trainer}/bin COMPONENT trainer)
      install(CODE "file(RPATH_SET FILE \"\$ENV{DESTDIR}\${CMAKE_INSTALL_PREFIX}/${_trainer}/bin/${_program}\"
                         NEW_RPATH \"${_rpath}\")" COMPONENT trainer)
    endif()
  endforeach()
  install(PROGRAMS ${CMAKE_SOURCE_DIR}/tools/prepare_data.py DESTINATION ${_trainer}/tools COMPONENT trainer)
  install(DIRECTORY ${CMAKE_SOURCE_DIR}/tools/switchyard_data DESTINATION ${_trainer}/tools COMPONENT trainer
          FILES_MATCHING PATTERN "*.py" PATTERN "__pycache__" EXCLUDE)
  install(FILES ${CMAKE_SOURCE_DIR}/tools/requirements-runtime.txt DESTINATION ${_trainer} RENAME requirements.txt COMPONENT trainer)
  file(WRITE ${CMAKE_BINARY_DIR}/VERSION "${PROJECT_VERSION}\n")
  install(FILES ${CMAKE_BINARY_DIR}/VERSION DESTINATION ${_trainer} COMPONENT trainer)
  install(PROGRAMS ${_deploy}/runtime/install_runtime.sh DESTINATION usr/sbin RENAME switchyard-install-runtime COMPONENT trainer)
  _switchyard_docs(trainer switchyard-trainer)
  list(APPEND CPACK_COMPONENTS_ALL trainer)
endif()

set(CPACK_GENERATOR DEB)
set(CPACK_PACKAGE_NAME switchyard)
set(CPACK_PACKAGE_VERSION ${PROJECT_VERSION})
set(CPACK_PACKAGE_VENDOR "Switchyard")
set(CPACK_PACKAGE_CONTACT "Switchyard maintainers <switchyard@localhost>")
set(CPACK_PACKAGE_DIRECTORY ${CMAKE_BINARY_DIR}/packages)
set(CPACK_PACKAGING_INSTALL_PREFIX /)
set(CPACK_STRIP_FILES ON)
set(CPACK_DEB_COMPONENT_INSTALL ON)
set(CPACK_COMPONENTS_GROUPING ONE_PER_GROUP)
set(CPACK_DEBIAN_FILE_NAME DEB-DEFAULT)
set(CPACK_DEBIAN_PACKAGE_RELEASE 1)
set(CPACK_DEBIAN_PACKAGE_SECTION science)
set(CPACK_DEBIAN_PACKAGE_CONTROL_STRICT_PERMISSION ON)

set(_sysusers "systemd | systemd-standalone-sysusers, systemd | systemd-standalone-tmpfiles")
foreach(component coordinator agent)
  string(TOUPPER ${component} _upper)
  set(CPACK_DEBIAN_${_upper}_PACKAGE_NAME switchyard-${component})
  set(CPACK_DEBIAN_${_upper}_PACKAGE_SHLIBDEPS ON)
  set(CPACK_DEBIAN_${_upper}_PACKAGE_DEPENDS "${_sysusers}")
  set(CPACK_DEBIAN_${_upper}_PACKAGE_CONTROL_EXTRA "${_control}/${component}/postinst;${_control}/${component}/prerm;${_control}/${component}/postrm;${_control}/${component}/conffiles")
endforeach()
set(CPACK_DEBIAN_AGENT_PACKAGE_RECOMMENDS "switchyard-trainer (= ${PROJECT_VERSION}-1)")
set(CPACK_DEBIAN_CLI_PACKAGE_NAME switchyard-cli)
set(CPACK_DEBIAN_CLI_PACKAGE_SHLIBDEPS ON)
set(CPACK_DEBIAN_CLI_PACKAGE_SUGGESTS "switchyard-trainer")
set(CPACK_DEBIAN_TRAINER_PACKAGE_NAME switchyard-trainer)
# dpkg-shlibdeps knows no package of LibTorch.
set(CPACK_DEBIAN_TRAINER_PACKAGE_DEPENDS "libc6 (>= 2.36), libstdc++6 (>= 12), libgcc-s1, python3 (>= 3.10), python3-venv, ca-certificates")
set(CPACK_COMPONENT_COORDINATOR_DESCRIPTION "Coordinator of the fine-tuning service Switchyard\n Accepts jobs, plans them and runs them on the nodes of its agents.")
set(CPACK_COMPONENT_AGENT_DESCRIPTION "Agent of the fine-tuning service Switchyard\n One on each node: offers its slots and runs training ranks for the coordinator.")
set(CPACK_COMPONENT_CLI_DESCRIPTION "Command line of the fine-tuning service Switchyard\n Submits, watches and inspects jobs.")
set(CPACK_COMPONENT_TRAINER_DESCRIPTION "Trainer of the fine-tuning service Switchyard\n The engine without LibTorch, and switchyard-install-runtime, which installs both\n with the Python of data preparation into a versioned directory.")
include(CPack)
