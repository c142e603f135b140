#include "worker/trainer/checkpoint/element_convert.h"

#include <c10/util/Half.h>

#include <cmath>
#include <cstring>

#include "absl/strings/str_format.h"
#include "common/check.h"

namespace switchyard::trainer {
namespace {

uint32_t Bits(float value) {
  uint32_t bits;
  std::memcpy(&bits, &value, sizeof(bits));
  return bits;
}

float Value(uint32_t bits) {
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

uint16_t RoundedWeight(uint32_t bits) {
  // A NaN or infinity keeps its upper half: rounding up could carry it into the sign.
  if ((bits & 0x7f800000u) == 0x7f800000u) {
    return static_cast<uint16_t>((bits >> 16) | ((bits & 0x007fffffu) != 0 ? 0x40u : 0u));
  }
  return static_cast<uint16_t>((bits + 0x8000u) >> 16);
}

}  // namespace

void ToFloat(DataType type, const void* source, float* out, int64_t count) {
  const char* from = static_cast<const char*>(source);
  switch (type) {
    case DataType::kF32:
      std::memcpy(out, from, static_cast<size_t>(count) * sizeof(float));
      return;
    case DataType::kBF16:
    case DataType::kF16:
      for (int64_t i = 0; i < count; ++i) {
        uint16_t bits;
        std::memcpy(&bits, from + 2 * i, sizeof(bits));
        out[i] = type == DataType::kBF16
                     ? Value(static_cast<uint32_t>(bits) << 16)
                     : static_cast<float>(c10::Half(bits, c10::Half::from_bits()));
      }
      return;
    default:
      SWITCHYARD_CHECK(false, "the checkpoint map lets only F32, BF16 and F16 through");
  }
}

absl::Status FromFloat(const float* source, DataType type, void* out, int64_t count) {
  auto* to = static_cast<uint16_t*>(out);
  switch (type) {
    case DataType::kF32:
      std::memcpy(out, source, static_cast<size_t>(count) * sizeof(float));
      return absl::OkStatus();
    case DataType::kBF16:
      for (int64_t i = 0; i < count; ++i) to[i] = RoundedWeight(Bits(source[i]));
      return absl::OkStatus();
    case DataType::kF16:
      for (int64_t i = 0; i < count; ++i) {
        const c10::Half half(source[i]);
        if (std::isinf(static_cast<float>(half)) && !std::isinf(source[i])) {
          return absl::OutOfRangeError(absl::StrFormat("value %g does not fit in F16", source[i]));
        }
        to[i] = half.x;
      }
      return absl::OkStatus();
    default:
      SWITCHYARD_CHECK(false, "the checkpoint map lets only F32, BF16 and F16 through");
  }
  return absl::OkStatus();
}

void SplitMaster(const float* master, uint16_t* weight, int16_t* remainder, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    const uint32_t bits = Bits(master[i]);
    weight[i] = RoundedWeight(bits);
    remainder[i] = static_cast<int16_t>(bits - (static_cast<uint32_t>(weight[i]) << 16));
  }
}

void JoinMaster(const uint16_t* weight, const int16_t* remainder, float* master, int64_t count) {
  for (int64_t i = 0; i < count; ++i) {
    master[i] = Value((static_cast<uint32_t>(weight[i]) << 16) +
                      static_cast<uint32_t>(static_cast<int32_t>(remainder[i])));
  }
}

}  // namespace switchyard::trainer
