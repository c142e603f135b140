#include "common/security/token.h"

#include <openssl/crypto.h>
#include <openssl/rand.h>
#include <openssl/sha.h>

#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/match.h"
#include "common/check.h"

namespace switchyard::security {
namespace {

constexpr size_t kIdSize = 12;
constexpr size_t kSecretBytes = 32;
constexpr size_t kSecretSize = 43;  // of 32 bytes in unpadded base64
constexpr absl::string_view kPrefix = "sy_";

bool IsIdCharacter(char c) { return (c >= 'a' && c <= 'z') || (c >= '2' && c <= '7'); }

bool IsSecretCharacter(char c) { return absl::ascii_isalnum(c) || c == '-' || c == '_'; }

}  // namespace

std::string RandomBytes(size_t size) {
  std::string bytes(size, '\0');
  const bool filled =
      RAND_bytes(reinterpret_cast<unsigned char*>(bytes.data()), static_cast<int>(size)) == 1;
  SWITCHYARD_CHECK(filled, "the system's random source failed");
  return bytes;
}

TokenText NewToken() {
  TokenText token;
  for (const unsigned char byte : RandomBytes(kIdSize))
    token.id.push_back("abcdefghijklmnopqrstuvwxyz234567"[byte % 32]);
  token.secret = absl::WebSafeBase64Escape(RandomBytes(kSecretBytes));
  return token;
}

std::optional<TokenText> ParseToken(absl::string_view text) {
  if (text.size() != kPrefix.size() + kIdSize + 1 + kSecretSize) return std::nullopt;
  if (!absl::StartsWith(text, kPrefix)) return std::nullopt;
  text.remove_prefix(kPrefix.size());
  const absl::string_view id = text.substr(0, kIdSize);
  const absl::string_view secret = text.substr(kIdSize + 1);
  if (text[kIdSize] != '_' || !std::all_of(id.begin(), id.end(), IsIdCharacter) ||
      !std::all_of(secret.begin(), secret.end(), IsSecretCharacter)) {
    return std::nullopt;
  }
  return TokenText{std::string(id), std::string(secret)};
}

std::optional<absl::string_view> BearerOf(absl::string_view header) {
  constexpr absl::string_view kScheme = "bearer ";
  if (!absl::StartsWithIgnoreCase(header, kScheme)) return std::nullopt;
  return absl::StripAsciiWhitespace(header.substr(kScheme.size()));
}

std::optional<std::string> BasicPasswordOf(absl::string_view header) {
  constexpr absl::string_view kScheme = "basic ";
  std::string text;
  if (!absl::StartsWithIgnoreCase(header, kScheme) ||
      !absl::Base64Unescape(absl::StripAsciiWhitespace(header.substr(kScheme.size())), &text)) {
    return std::nullopt;
  }
  const size_t colon = text.find(':');
  if (colon == std::string::npos) return std::nullopt;
  return text.substr(colon + 1);
}

std::string Sha256Hex(absl::string_view bytes) {
  std::string digest(SHA256_DIGEST_LENGTH, '\0');
  SHA256(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size(),
         reinterpret_cast<unsigned char*>(digest.data()));
  return absl::BytesToHexString(digest);
}

bool EqualSecrets(absl::string_view a, absl::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace switchyard::security
