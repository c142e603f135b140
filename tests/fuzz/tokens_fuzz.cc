#include "absl/strings/str_cat.h"
#include "common/check.h"
#include "common/security/certificates.h"
#include "common/security/token.h"
#include "common/security/token_store.h"
#include "coordinator/service/tokens.h"
#include "tests/fuzz/fuzz_targets.h"

namespace switchyard::fuzz {

void Tokens(absl::string_view bytes) {
  if (const auto bearer = security::BearerOf(bytes)) {
    const auto token = security::ParseToken(*bearer);
    SWITCHYARD_CHECK(!token || token->Text() == *bearer, "a token is read back as it was");
  }
  if (const auto token = security::ParseToken(bytes))
    SWITCHYARD_CHECK(token->Text() == bytes, "a token is read back as it was");
  const auto file = security::ParseTokenFile(bytes);
  if (file.ok()) {
    for (const auto& [id, record] : *file)
      SWITCHYARD_CHECK(id == record.id && record.secret_hash.size() == 64, "records are whole");
  }
  const auto certificate = security::ParseCertificate(bytes);
  if (certificate.ok()) {
    for (const std::string& uri : certificate->uris) (void)security::NodeOfAgentUri(uri);
  }
  const std::string text(bytes);
  (void)coordinator::ReadToken("jobs", "projects/p", text, 1, "page_token");
  const auto again = coordinator::ReadToken(
      "jobs", "projects/p", coordinator::MakeToken("jobs", "projects/p", {text}), 1, "page_token");
  SWITCHYARD_CHECK(!again.ok() || again->front() == text, "a paging token is read back as it was");
}

}  // namespace switchyard::fuzz
