// The text of a bearer token, "sy_<id>_<secret>": made, taken apart, hashed.
//
// The id names the token in lists and in the audit log; only the secret's hash is ever stored. The
// secret has 256 random bits, so a plain SHA-256 is enough: there is nothing to guess.
#pragma once

#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace switchyard::security {

struct TokenText {
  std::string id;      // 12 of a-z and 2-7
  std::string secret;  // 43 of A-Z, a-z, 0-9, "-" and "_"

  std::string Text() const { return "sy_" + id + "_" + secret; }
};

// From the system's random source.
TokenText NewToken();
// Empty unless `text` has exactly the form of a token. Any bytes may come in.
std::optional<TokenText> ParseToken(absl::string_view text);
// The credentials of an Authorization header "Bearer CREDENTIALS"; empty when it is none. The
// scheme may be in any case.
std::optional<absl::string_view> BearerOf(absl::string_view header);
// The password of an Authorization header "Basic ...", which is what browsers ask people for; empty
// when it is none.
std::optional<std::string> BasicPasswordOf(absl::string_view header);
// SHA-256 as 64 hexadecimal digits.
std::string Sha256Hex(absl::string_view bytes);
// In time that does not depend on where they differ.
bool EqualSecrets(absl::string_view a, absl::string_view b);
// `size` random bytes from the system's source.
std::string RandomBytes(size_t size);

}  // namespace switchyard::security
