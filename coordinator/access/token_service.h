// Creating, listing and revoking tokens, behind the gate.
#pragma once

#include "coordinator/access/access_gate.h"
#include "switchyard/v1/access.grpc.pb.h"

namespace switchyard::coordinator {

class TokenService {
 public:
  // `gate` says who calls and holds the tokens.
  explicit TokenService(const AccessGate& gate) : gate_(gate) {}

  using Context = grpc::CallbackServerContext;
  using Unary = grpc::ServerUnaryReactor;
  Unary* CreateToken(Context*, const v1::CreateTokenRequest*, v1::CreateTokenResponse*);
  Unary* ListTokens(Context*, const v1::ListTokensRequest*, v1::ListTokensResponse*);
  Unary* RevokeToken(Context*, const v1::RevokeTokenRequest*, v1::Token*);
  Unary* GetCaller(Context*, const v1::GetCallerRequest*, v1::GetCallerResponse*);

 private:
  absl::Status Create(const security::Caller& caller, const v1::CreateTokenRequest& request,
                      v1::CreateTokenResponse& response) const;
  absl::Status List(const security::Caller& caller, const v1::ListTokensRequest& request,
                    v1::ListTokensResponse& response) const;
  absl::Status Revoke(const security::Caller& caller, const v1::RevokeTokenRequest& request,
                      v1::Token& response) const;
  absl::Status Describe(const security::Caller& caller, v1::GetCallerResponse& response) const;

  const AccessGate& gate_;
};

}  // namespace switchyard::coordinator
