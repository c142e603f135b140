# Communication between GPUs: NCCL comes with torch's wheel.
file(GLOB SWITCHYARD_NCCL_DIR ${SWITCHYARD_SITE_PACKAGES}/nvidia/nccl)
if(NOT SWITCHYARD_NCCL_DIR)
  message(FATAL_ERROR "NCCL not found beside torch under ${SWITCHYARD_SITE_PACKAGES}: run tools/setup.sh")
endif()
add_library(switchyard_nccl INTERFACE)
add_library(switchyard::nccl ALIAS switchyard_nccl)
target_include_directories(switchyard_nccl SYSTEM INTERFACE ${SWITCHYARD_NCCL_DIR}/include)
target_link_libraries(switchyard_nccl INTERFACE ${SWITCHYARD_NCCL_DIR}/lib/libnccl.so.2)

switchyard_library(trainer_cuda_comm
  SRCS cuda_dispatcher.cc exchange_dispatcher.cc exchange_errors.cc mesh_groups_cuda.cc nccl_communicator.cc nccl_dispatcher.cc
       nccl_session.cc peer_window.cc window_dispatcher.cc
  DEPS trainer_comm kernels common switchyard::torch_cuda switchyard::nccl)
