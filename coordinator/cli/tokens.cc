// token create|list|revoke, and whoami.
#include <cstdio>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/time/clock.h"
#include "common/security/private_file.h"
#include "common/security/roles.h"
#include "common/status_macros.h"
#include "coordinator/cli/api_client.h"
#include "coordinator/cli/commands.h"
#include "coordinator/cli/exit_codes.h"
#include "coordinator/cli/job_names.h"
#include "coordinator/cli/json_text.h"
#include "coordinator/cli/text_table.h"

namespace switchyard::coordinator {
namespace {

using Stub = v1::AccessService::Stub;

struct CreateArguments {
  std::string name;
  std::vector<std::string> roles;
  double days = 90;
  std::string out;
};

std::string GrantsText(const google::protobuf::RepeatedPtrField<v1::Grant>& grants) {
  return absl::StrJoin(grants, ", ", [](std::string* out, const v1::Grant& grant) {
    absl::StrAppend(out, security::RoleName(static_cast<security::Role>(grant.role())), "@",
                    Printable(grant.project()));
  });
}

// "ROLE" in the project of the command, or "ROLE@PROJECT".
absl::StatusOr<v1::Grant> ParseGrant(const std::string& text, const std::string& project) {
  const size_t at = text.find('@');
  const auto role = security::RoleOfName(text.substr(0, at));
  if (!role || (at != std::string::npos && at + 1 == text.size())) {
    return absl::InvalidArgumentError(
        absl::StrCat("--role is \"", text,
                     "\"; give viewer, submitter, operator or admin, and @PROJECT or @* where it "
                     "is not the project of --project"));
  }
  v1::Grant grant;
  grant.set_project(at == std::string::npos ? project : text.substr(at + 1));
  grant.set_role(static_cast<v1::Role>(*role));
  return grant;
}

absl::StatusOr<int> Create(CliContext& context, const CreateArguments& arguments) {
  v1::CreateTokenRequest request;
  request.set_display_name(arguments.name);
  for (const std::string& role : arguments.roles) {
    SWITCHYARD_ASSIGN_OR_RETURN(*request.add_grants(), ParseGrant(role, context.Project()));
  }
  const absl::Time end = absl::Now() + arguments.days * absl::Hours(24);
  request.mutable_expire_time()->set_seconds(absl::ToUnixSeconds(end));
  const ApiClient client(context.options.coordinator);
  SWITCHYARD_ASSIGN_OR_RETURN(const v1::CreateTokenResponse created,
                              client.Call(&Stub::CreateToken, client.access(), request));
  if (!arguments.out.empty()) {
    SWITCHYARD_RETURN_IF_ERROR(security::WriteTokenFile(arguments.out, created.text()));
    context.io.out << "Token " << ShortName(created.token().name()) << " is in " << arguments.out
                   << "\n";
  } else if (context.options.json) {
    context.io.out << JsonText(created);
  } else {
    context.io.err << "Token " << ShortName(created.token().name())
                   << "; its text is shown this once:\n"
                   << std::flush;
    context.io.out << created.text() << "\n";
  }
  return kExitOk;
}

std::string StateText(const v1::Token& token, absl::Time now) {
  if (token.has_revoke_time()) return "revoked";
  if (token.has_expire_time() && token.expire_time().seconds() <= absl::ToUnixSeconds(now))
    return "expired";
  return "good";
}

absl::StatusOr<int> List(CliContext& context) {
  const ApiClient client(context.options.coordinator);
  v1::ListTokensResponse all;
  v1::ListTokensRequest request;
  request.set_page_size(1000);
  do {
    SWITCHYARD_ASSIGN_OR_RETURN(const v1::ListTokensResponse page,
                                client.Call(&Stub::ListTokens, client.access(), request));
    all.mutable_tokens()->MergeFrom(page.tokens());
    request.set_page_token(page.next_page_token());
  } while (!request.page_token().empty());
  if (context.options.json) {
    context.io.out << JsonText(all);
    return kExitOk;
  }
  TextTable table({"ID", "FOR", "MAY", "STATE", "CREATED", "EXPIRES", "BY"});
  for (const v1::Token& token : all.tokens()) {
    const std::string state = StateText(token, absl::Now());
    table.AddRow({ShortName(token.name()), Printable(token.display_name()),
                  GrantsText(token.grants()),
                  Colored(state, "\033[33m", context.io.color && state != "good"),
                  TimeText(token.create_time()),
                  token.has_expire_time() ? TimeText(token.expire_time()) : "never",
                  Printable(token.creator())});
  }
  context.io.out << table.Render();
  return kExitOk;
}

absl::StatusOr<int> Revoke(CliContext& context, const std::string& id) {
  const ApiClient client(context.options.coordinator);
  v1::RevokeTokenRequest request;
  request.set_name(id.rfind("tokens/", 0) == 0 ? id : absl::StrCat("tokens/", id));
  SWITCHYARD_ASSIGN_OR_RETURN(const v1::Token token,
                              client.Call(&Stub::RevokeToken, client.access(), request));
  if (context.options.json) {
    context.io.out << JsonText(token);
  } else {
    context.io.out << "Revoked " << ShortName(token.name()) << " ("
                   << Printable(token.display_name()) << ").\n";
  }
  return kExitOk;
}

absl::StatusOr<int> WhoAmI(CliContext& context) {
  const ApiClient client(context.options.coordinator);
  SWITCHYARD_ASSIGN_OR_RETURN(
      const v1::GetCallerResponse caller,
      client.Call(&Stub::GetCaller, client.access(), v1::GetCallerRequest()));
  if (context.options.json) {
    context.io.out << JsonText(caller);
    return kExitOk;
  }
  context.io.out << Printable(caller.display_name()) << "  " << GrantsText(caller.grants());
  if (!caller.token().empty()) context.io.out << "  " << caller.token();
  if (caller.has_expire_time()) context.io.out << "  until " << TimeText(caller.expire_time());
  context.io.out << "\n";
  return kExitOk;
}

}  // namespace

void AddTokenCommands(CLI::App& app, CommandBody& chosen) {
  CLI::App* token = app.add_subcommand("token", "Make, list and revoke bearer tokens");
  token->require_subcommand(1);
  auto arguments = std::make_shared<CreateArguments>();
  CLI::App* create = token->add_subcommand("create", "A new token; its text is shown once");
  create->add_option("--name", arguments->name, "Who or what it is for")->required();
  create
      ->add_option("--role", arguments->roles,
                   "viewer, submitter, operator or admin, in --project; or ROLE@PROJECT, ROLE@*")
      ->required();
  create->add_option("--days", arguments->days, "Days until it ends")
      ->check(CLI::Range(0.0001, 3652.0))
      ->capture_default_str();
  create->add_option("--out", arguments->out, "File to write it to, mode 0600");
  create->callback([&chosen, arguments] {
    chosen = [arguments](CliContext& context) { return Create(context, *arguments); };
  });
  token->add_subcommand("list", "Tokens of the projects you administer")->callback([&chosen] {
    chosen = List;
  });
  auto id = std::make_shared<std::string>();
  CLI::App* revoke = token->add_subcommand("revoke", "End a token at once");
  revoke->add_option("id", *id, "Its id, as `token list` shows it")->required();
  revoke->callback(
      [&chosen, id] { chosen = [id](CliContext& context) { return Revoke(context, *id); }; });
  app.add_subcommand("whoami", "Who the coordinator takes you for, and what you may do")
      ->callback([&chosen] { chosen = WhoAmI; });
}

}  // namespace switchyard::coordinator
