# Every package but CUDA and LibTorch.
find_package(Threads REQUIRED)
find_package(absl CONFIG REQUIRED)
find_package(nlohmann_json CONFIG REQUIRED)
find_package(CLI11 CONFIG REQUIRED)
if(SWITCHYARD_SERVICE)
  find_package(Protobuf REQUIRED)  # Debian has no ProtobufConfig.cmake: module mode
  find_package(gRPC CONFIG REQUIRED)
  find_package(prometheus-cpp CONFIG REQUIRED)
  find_package(PkgConfig REQUIRED)
  pkg_check_modules(HTTPLIB REQUIRED IMPORTED_TARGET cpp-httplib)  # Debian's has no CMake package
  find_package(SQLite3 REQUIRED)
  find_package(SQLiteCpp CONFIG REQUIRED)
  find_package(yaml-cpp REQUIRED)
  if(NOT TARGET yaml-cpp::yaml-cpp)  # before 0.8
    add_library(yaml-cpp::yaml-cpp ALIAS yaml-cpp)
  endif()
  find_package(OpenSSL 3.0 REQUIRED)
  find_package(CURL 7.85 REQUIRED)
endif()
if(SWITCHYARD_TESTS)
  find_package(GTest CONFIG REQUIRED)
endif()
