# LibTorch from the PyPI wheel, as plain imported targets. Caffe2's own CMake files are not used: they look
# for CUDA parts that the wheel does not carry, and put libtorch_cuda (350 MB resident) into every program.
#   switchyard::torch_cpu    libtorch_cpu + libc10
#   switchyard::torch_cuda   the above + libtorch_cuda + libc10_cuda (only with SWITCHYARD_CUDA)
file(GLOB SWITCHYARD_TORCH_DIR ${SWITCHYARD_VENV}/lib/python3*/site-packages/torch)
if(NOT EXISTS "${SWITCHYARD_TORCH_DIR}/lib/libtorch_cpu.so" AND DEFINED ENV{SWITCHYARD_TORCH_DIR})
  set(SWITCHYARD_TORCH_DIR $ENV{SWITCHYARD_TORCH_DIR})
endif()
if(NOT EXISTS "${SWITCHYARD_TORCH_DIR}/lib/libtorch_cpu.so")
  message(FATAL_ERROR "torch not found under ${SWITCHYARD_VENV}: run tools/setup.sh, set SWITCHYARD_TORCH_DIR, "
                      "or configure with -DSWITCHYARD_TRAINER=OFF")
endif()
get_filename_component(SWITCHYARD_SITE_PACKAGES "${SWITCHYARD_TORCH_DIR}" DIRECTORY)
file(GLOB _nvidia_libs ${SWITCHYARD_SITE_PACKAGES}/nvidia/*/lib)

add_library(switchyard_torch_cpu INTERFACE)
add_library(switchyard::torch_cpu ALIAS switchyard_torch_cpu)
target_include_directories(switchyard_torch_cpu SYSTEM INTERFACE
  ${SWITCHYARD_TORCH_DIR}/include ${SWITCHYARD_TORCH_DIR}/include/torch/csrc/api/include)
target_compile_definitions(switchyard_torch_cpu INTERFACE _GLIBCXX_USE_CXX11_ABI=1)
target_link_libraries(switchyard_torch_cpu INTERFACE
  ${SWITCHYARD_TORCH_DIR}/lib/libtorch_cpu.so ${SWITCHYARD_TORCH_DIR}/lib/libc10.so Threads::Threads)
# libtorch_cpu needs libcudart and friends from the nvidia wheels even on CPU.
set(_rpath ${SWITCHYARD_TORCH_DIR}/lib ${_nvidia_libs})
foreach(dir IN LISTS _rpath)
  target_link_options(switchyard_torch_cpu INTERFACE "LINKER:-rpath,${dir}" "LINKER:-rpath-link,${dir}")
endforeach()

if(SWITCHYARD_CUDA)
  add_library(switchyard_torch_cuda INTERFACE)
  add_library(switchyard::torch_cuda ALIAS switchyard_torch_cuda)
  target_link_libraries(switchyard_torch_cuda INTERFACE switchyard_torch_cpu "-Wl,--no-as-needed"
    ${SWITCHYARD_TORCH_DIR}/lib/libtorch_cuda.so ${SWITCHYARD_TORCH_DIR}/lib/libc10_cuda.so)
endif()
