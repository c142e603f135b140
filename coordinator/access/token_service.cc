#include "coordinator/access/token_service.h"

#include <algorithm>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "common/rpc/violations.h"
#include "common/status_macros.h"
#include "coordinator/service/tokens.h"
#include "coordinator/service/unary.h"

namespace switchyard::coordinator {
namespace {

using security::Role;

constexpr absl::Duration kStandardLife = absl::Hours(24 * 90);
constexpr absl::Duration kLongestLife = absl::Hours(24 * 3653);
constexpr char kPrefix[] = "tokens/";

absl::Status CheckStore(const security::TokenStore* tokens) {
  if (tokens != nullptr) return absl::OkStatus();
  return rpc::Error(absl::StatusCode::kFailedPrecondition, "NO_TOKENS",
                    "this coordinator asks nobody for a token: it serves plain text. Start it with "
                    "--security-dir DIR, made by switchyard-coordinator init");
}

absl::StatusOr<absl::Time> TimeOf(const google::protobuf::Timestamp& time) {
  if (time.seconds() < 0 || time.seconds() > 253402300799 || time.nanos() < 0 ||
      time.nanos() > 999999999) {
    return rpc::InvalidArgument({{"expire_time", "is no time between the years 1970 and 9999"}});
  }
  return absl::FromUnixSeconds(time.seconds()) + absl::Nanoseconds(time.nanos());
}

void SetTime(absl::Time time, google::protobuf::Timestamp* out) {
  out->set_seconds(absl::ToUnixSeconds(time));
  out->set_nanos(
      static_cast<int32_t>(absl::ToInt64Nanoseconds(time - absl::FromUnixSeconds(out->seconds()))));
}

void AddGrants(const std::vector<security::Grant>& grants,
               google::protobuf::RepeatedPtrField<v1::Grant>* out) {
  for (const security::Grant& grant : grants) {
    v1::Grant& added = *out->Add();
    added.set_project(grant.project);
    added.set_role(static_cast<v1::Role>(grant.role));
  }
}

v1::Token View(const security::TokenRecord& record) {
  v1::Token token;
  token.set_name(absl::StrCat(kPrefix, record.id));
  token.set_display_name(record.name);
  AddGrants(record.grants, token.mutable_grants());
  token.set_creator(record.creator);
  SetTime(record.create_time, token.mutable_create_time());
  if (record.expire_time != absl::InfiniteFuture())
    SetTime(record.expire_time, token.mutable_expire_time());
  if (record.revoke_time != absl::InfiniteFuture())
    SetTime(record.revoke_time, token.mutable_revoke_time());
  return token;
}

// The first grant that `caller` is no administrator for; null when there is none.
const security::Grant* FirstForeign(const security::Caller& caller,
                                    const std::vector<security::Grant>& grants) {
  const auto it = std::find_if(grants.begin(), grants.end(), [&](const security::Grant& grant) {
    return caller.RoleIn(grant.project) < Role::kAdmin;
  });
  return it == grants.end() ? nullptr : &*it;
}

absl::Status NeedsAdmin(const security::Caller& caller, const security::Grant& grant) {
  return rpc::Error(absl::StatusCode::kPermissionDenied, "PERMISSION_DENIED",
                    absl::StrCat("token ", caller.id, " is not admin of project \"", grant.project,
                                 "\", in which that token has a role; ask an administrator of it"));
}

// What the store says of a request, as an error of the API.
absl::Status FromStore(const absl::Status& status) {
  if (!absl::IsInvalidArgument(status)) return status;
  const std::string text(status.message());
  const size_t colon = text.find(": ");
  return rpc::InvalidArgument({{text.substr(0, colon), text.substr(colon + 2)}});
}

}  // namespace

absl::Status TokenService::Create(const security::Caller& caller,
                                  const v1::CreateTokenRequest& request,
                                  v1::CreateTokenResponse& response) const {
  SWITCHYARD_RETURN_IF_ERROR(CheckStore(gate_.tokens()));
  const absl::Time now = absl::Now();
  security::NewTokenRequest wanted;
  wanted.name = request.display_name();
  wanted.creator = caller.id;
  wanted.expire_time = now + kStandardLife;
  if (request.has_expire_time()) {
    SWITCHYARD_ASSIGN_OR_RETURN(wanted.expire_time, TimeOf(request.expire_time()));
  }
  if (wanted.expire_time > now + kLongestLife)
    return rpc::InvalidArgument({{"expire_time", "is more than ten years away"}});
  for (const v1::Grant& grant : request.grants()) {
    const bool known = v1::Role_IsValid(grant.role());
    wanted.grants.push_back(
        {grant.project(), known ? static_cast<Role>(grant.role()) : Role::kNone});
  }
  if (const auto* foreign = FirstForeign(caller, wanted.grants))
    return NeedsAdmin(caller, *foreign);
  const auto created = gate_.tokens()->Create(wanted, now);
  if (!created.ok()) return FromStore(created.status());
  *response.mutable_token() = View(created->record);
  response.set_text(created->text);
  return absl::OkStatus();
}

absl::Status TokenService::List(const security::Caller& caller,
                                const v1::ListTokensRequest& request,
                                v1::ListTokensResponse& response) const {
  SWITCHYARD_RETURN_IF_ERROR(CheckStore(gate_.tokens()));
  int size;
  SWITCHYARD_ASSIGN_OR_RETURN(size, PageSize(request.page_size(), 50));
  std::string after;
  if (!request.page_token().empty()) {
    std::vector<std::string> fields;
    SWITCHYARD_ASSIGN_OR_RETURN(fields,
                                ReadToken("tokens", "", request.page_token(), 1, "page_token"));
    after = fields[0];
  }
  std::vector<security::TokenRecord> records;
  SWITCHYARD_ASSIGN_OR_RETURN(records, gate_.tokens()->List());
  bool begun = after.empty();
  for (const security::TokenRecord& record : records) {
    if (begun && FirstForeign(caller, record.grants) == nullptr) {
      if (response.tokens_size() == size) {
        const std::string& last = response.tokens(size - 1).name();
        response.set_next_page_token(MakeToken("tokens", "", {last.substr(sizeof(kPrefix) - 1)}));
        break;
      }
      *response.add_tokens() = View(record);
    }
    begun = begun || record.id == after;
  }
  return absl::OkStatus();
}

absl::Status TokenService::Revoke(const security::Caller& caller,
                                  const v1::RevokeTokenRequest& request,
                                  v1::Token& response) const {
  SWITCHYARD_RETURN_IF_ERROR(CheckStore(gate_.tokens()));
  if (!absl::StartsWith(request.name(), kPrefix))
    return rpc::InvalidArgument({{"name", "give \"tokens/{id}\""}});
  const std::string id = request.name().substr(sizeof(kPrefix) - 1);
  std::vector<security::TokenRecord> records;
  SWITCHYARD_ASSIGN_OR_RETURN(records, gate_.tokens()->List());
  const auto record = std::find_if(records.begin(), records.end(),
                                   [&](const security::TokenRecord& r) { return r.id == id; });
  if (record == records.end()) return rpc::NotFound("switchyard.v1.Token", request.name());
  if (const auto* foreign = FirstForeign(caller, record->grants))
    return NeedsAdmin(caller, *foreign);
  const auto revoked = gate_.tokens()->Revoke(id, absl::Now());
  if (!revoked.ok()) return revoked.status();
  response = View(*revoked);
  return absl::OkStatus();
}

absl::Status TokenService::Describe(const security::Caller& caller,
                                    v1::GetCallerResponse& response) const {
  response.set_display_name(caller.name);
  AddGrants(caller.grants, response.mutable_grants());
  if (gate_.tokens() == nullptr) return absl::OkStatus();
  response.set_token(absl::StrCat(kPrefix, caller.id));
  std::vector<security::TokenRecord> records;
  SWITCHYARD_ASSIGN_OR_RETURN(records, gate_.tokens()->List());
  for (const security::TokenRecord& record : records) {
    if (record.id == caller.id && record.expire_time != absl::InfiniteFuture())
      SetTime(record.expire_time, response.mutable_expire_time());
  }
  return absl::OkStatus();
}

TokenService::Unary* TokenService::CreateToken(Context* context,
                                               const v1::CreateTokenRequest* request,
                                               v1::CreateTokenResponse* response) {
  return Reply(context, Create(gate_.CallerOf(context), *request, *response));
}

TokenService::Unary* TokenService::ListTokens(Context* context,
                                              const v1::ListTokensRequest* request,
                                              v1::ListTokensResponse* response) {
  return Reply(context, List(gate_.CallerOf(context), *request, *response));
}

TokenService::Unary* TokenService::RevokeToken(Context* context,
                                               const v1::RevokeTokenRequest* request,
                                               v1::Token* response) {
  return Reply(context, Revoke(gate_.CallerOf(context), *request, *response));
}

TokenService::Unary* TokenService::GetCaller(Context* context, const v1::GetCallerRequest*,
                                             v1::GetCallerResponse* response) {
  return Reply(context, Describe(gate_.CallerOf(context), *response));
}

}  // namespace switchyard::coordinator
