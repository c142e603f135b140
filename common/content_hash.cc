#include "common/content_hash.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "absl/strings/str_format.h"

namespace switchyard {

struct ContentHasher::State {
  XXH3_state_t xxh3;  // asks for 64-byte alignment, which operator new honours
};

uint64_t ContentHash(const void* data, size_t size) { return XXH3_64bits(data, size); }

ContentHasher::ContentHasher() : state_(std::make_unique<State>()) { Reset(); }
ContentHasher::~ContentHasher() = default;
ContentHasher::ContentHasher(ContentHasher&&) noexcept = default;
ContentHasher& ContentHasher::operator=(ContentHasher&&) noexcept = default;

void ContentHasher::Add(const void* data, size_t size) {
  XXH3_64bits_update(&state_->xxh3, data, size);
}
uint64_t ContentHasher::Digest() const { return XXH3_64bits_digest(&state_->xxh3); }
void ContentHasher::Reset() { XXH3_64bits_reset(&state_->xxh3); }

std::string HashText(uint64_t hash) { return absl::StrFormat("%016x", hash); }

}  // namespace switchyard
