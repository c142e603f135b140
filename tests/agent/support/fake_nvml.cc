// Stands in for the driver's libnvidia-ml.so.1 on machines without one: two healthy GPUs and one
// that answers nothing but its handle.
#include <cstdint>
#include <cstdio>

namespace {
struct Memory {
  unsigned long long total, free, used;
};
constexpr int kGpuIsLost = 15;
int64_t Index(void* device) { return reinterpret_cast<int64_t>(device) - 1; }
}  // namespace

extern "C" {
int nvmlInit_v2() { return 0; }
int nvmlShutdown() { return 0; }
int nvmlDeviceGetCount_v2(unsigned* count) {
  *count = 3;
  return 0;
}
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void** device) {
  *device = reinterpret_cast<void*>(static_cast<int64_t>(index) + 1);
  return 0;
}
int nvmlDeviceGetUUID(void* device, char* text, unsigned size) {
  if (Index(device) == 1) return kGpuIsLost;
  std::snprintf(text, size, "GPU-0000-%d", static_cast<int>(Index(device)));
  return 0;
}
int nvmlDeviceGetName(void*, char* text, unsigned size) {
  std::snprintf(text, size, "NVIDIA Test 80GB");
  return 0;
}
int nvmlSystemGetDriverVersion(char* text, unsigned size) {
  std::snprintf(text, size, "580.1");
  return 0;
}
int nvmlDeviceGetTemperature(void*, int, unsigned* celsius) {
  *celsius = 41;
  return 0;
}
// The last one has memory errors.
int nvmlDeviceGetTotalEccErrors(void* device, int, int, unsigned long long* count) {
  *count = Index(device) == 2 ? 3 : 0;
  return 0;
}
int nvmlDeviceGetNvLinkState(void*, unsigned link, int* active) {
  *active = 1;
  return link < 18 ? 0 : 2;
}
// NVLink between neighbours only; every other way works for all.
int nvmlDeviceGetP2PStatus(void* from, void* to, int how, int* status) {
  const int64_t distance = Index(from) - Index(to);
  *status = how == 2 && distance * distance > 1 ? 5 : 0;
  return 0;
}
int nvmlDeviceGetMemoryInfo(void*, Memory* memory) {
  *memory = {80ull << 30, 79ull << 30, 1ull << 30};
  return 0;
}
}
