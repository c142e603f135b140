// A profiler as NVTX loads it (NVTX_INJECTION64_PATH): it remembers the ranges of the process.
#include <nvtx3/nvToolsExt.h>

#include <string>
#include <vector>

namespace {

std::vector<std::string>& Ranges() {
  static std::vector<std::string> ranges;
  return ranges;
}

int NVTX_API Push(const char* name) {
  Ranges().emplace_back(std::string("begin ") + name);
  return 0;
}

int NVTX_API Pop() {
  Ranges().emplace_back("end");
  return 0;
}

}  // namespace

extern "C" {

int InitializeInjectionNvtx2(NvtxGetExportTableFunc_t get_export_table) {
  const auto* callbacks =
      static_cast<const NvtxExportTableCallbacks*>(get_export_table(NVTX_ETID_CALLBACKS));
  NvtxFunctionTable table = nullptr;
  unsigned int size = 0;
  if (callbacks == nullptr ||
      callbacks->GetModuleFunctionTable(NVTX_CB_MODULE_CORE, &table, &size) == 0) {
    return 0;
  }
  *table[NVTX_CBID_CORE_RangePushA] = reinterpret_cast<NvtxFunctionPointer>(&Push);
  *table[NVTX_CBID_CORE_RangePop] = reinterpret_cast<NvtxFunctionPointer>(&Pop);
  return 1;
}

// The ranges so far, one begin or end a line. Valid until the next call.
const char* NvtxToolRanges() {
  static std::string lines;
  lines.clear();
  for (const std::string& range : Ranges()) lines += range + "\n";
  return lines.c_str();
}
}
