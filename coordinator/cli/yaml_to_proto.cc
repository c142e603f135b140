#include "coordinator/cli/yaml_to_proto.h"

#include <google/protobuf/descriptor.h>
#include <yaml-cpp/yaml.h>

#include <cmath>
#include <limits>
#include <set>
#include <string>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "common/utf8.h"
#include "coordinator/cli/suggest.h"

namespace switchyard::coordinator {
namespace {

using google::protobuf::Descriptor;
using google::protobuf::FieldDescriptor;
using google::protobuf::Message;

std::string KindOf(const YAML::Node& node) {
  if (node.IsSequence()) return "a list";
  if (node.IsMap()) return "a mapping";
  if (node.IsNull()) return "null";
  const std::string& text = node.Scalar();
  return absl::StrCat("\"", text.size() <= 60 ? text : Utf8Prefix(text, 57) + "...", "\"");
}

const char* Wanted(const FieldDescriptor& field) {
  switch (field.cpp_type()) {
    case FieldDescriptor::CPPTYPE_BOOL:
      return "true or false";
    case FieldDescriptor::CPPTYPE_STRING:
      return "text";
    case FieldDescriptor::CPPTYPE_DOUBLE:
    case FieldDescriptor::CPPTYPE_FLOAT:
      return "a finite number";
    case FieldDescriptor::CPPTYPE_ENUM:
      return "one of the names of the enumeration";
    case FieldDescriptor::CPPTYPE_MESSAGE:
      return "a mapping";
    default:
      return "a whole number";
  }
}

// Whole numbers may be written as 64, 6.4e1 or 64.0, as protobuf's JSON allows.
bool ReadInteger(const std::string& text, int64_t& value) {
  if (absl::SimpleAtoi(text, &value)) return true;
  double number = 0;
  if (!absl::SimpleAtod(text, &number) || number != std::floor(number) || std::abs(number) > 9e15) {
    return false;
  }
  value = static_cast<int64_t>(number);
  return true;
}

class Reader {
 public:
  explicit Reader(std::vector<rpc::Violation>& violations) : violations_(violations) {}

  void ReadMessage(const YAML::Node& node, const std::string& path, Message& message) {
    if (node.IsNull()) return;
    if (!node.IsMap()) {
      Report(path.empty() ? "spec" : path, node,
             absl::StrCat("is ", KindOf(node), "; must be a mapping"));
      return;
    }
    const Descriptor& type = *message.GetDescriptor();
    std::set<const FieldDescriptor*> seen;
    for (const auto& entry : node) {
      if (!entry.first.IsScalar()) {
        Report(path.empty() ? "spec" : path, entry.first, "has a key that is not text");
        continue;
      }
      const std::string key = entry.first.Scalar();
      const std::string field_path = path.empty() ? key : absl::StrCat(path, ".", key);
      const FieldDescriptor* field = type.FindFieldByName(key);
      if (field == nullptr) field = type.FindFieldByCamelcaseName(key);
      if (field == nullptr) {
        ReportUnknown(field_path, key, type, entry.first);
      } else if (!seen.insert(field).second) {
        Report(field_path, entry.first, "is given twice; keep one");
      } else {
        ReadField(entry.second, field_path, *field, message);
      }
    }
  }

  void set_root(const Descriptor& root) { root_ = &root; }

 private:
  void Report(const std::string& path, const YAML::Node& node, const std::string& text) {
    const int line = node.Mark().line;
    violations_.push_back({path, line < 0 ? text : absl::StrCat(text, " (line ", line + 1, ")")});
  }

  void ReportUnknown(const std::string& path, const std::string& key, const Descriptor& type,
                     const YAML::Node& node) {
    std::vector<std::string> names;
    for (int i = 0; i < type.field_count(); ++i) names.push_back(type.field(i)->name());
    std::string nearest = NearestName(key, names);
    // The right name at the wrong level is the commonest mistake of all.
    for (const std::string& known : FieldPaths(*root_)) {
      const size_t dot = known.rfind('.');
      if ((dot == std::string::npos ? known : known.substr(dot + 1)) == key) nearest = known;
    }
    std::string text = "unknown field";
    if (!nearest.empty()) absl::StrAppend(&text, "; did you mean \"", nearest, "\"?");
    Report(path, node, text);
  }

  void ReadField(const YAML::Node& node, const std::string& path, const FieldDescriptor& field,
                 Message& message) {
    if (node.IsNull()) return;
    if (field.is_map()) {
      ReadMap(node, path, field, message);
    } else if (field.is_repeated()) {
      if (!node.IsSequence()) {
        Report(path, node, absl::StrCat("is ", KindOf(node), "; must be a list"));
        return;
      }
      for (size_t i = 0; i < node.size(); ++i) {
        ReadValue(node[i], absl::StrCat(path, "[", i, "]"), field, message);
      }
    } else {
      ReadValue(node, path, field, message);
    }
  }

  void ReadMap(const YAML::Node& node, const std::string& path, const FieldDescriptor& field,
               Message& message) {
    if (!node.IsMap()) {
      Report(path, node, absl::StrCat("is ", KindOf(node), "; must be a mapping"));
      return;
    }
    std::set<std::string> seen;
    for (const auto& pair : node) {
      if (!pair.first.IsScalar()) {
        Report(path, pair.first, "has a key that is not text");
        continue;
      }
      const std::string key = pair.first.Scalar();
      const std::string entry_path = absl::StrCat(path, ".", key);
      if (!seen.insert(key).second) {
        Report(entry_path, pair.first, "is given twice; keep one");
        continue;
      }
      Message& entry = *message.GetReflection()->AddMessage(&message, &field);
      const Descriptor& type = *entry.GetDescriptor();
      ReadValue(pair.first, entry_path, *type.FindFieldByNumber(1), entry);
      ReadValue(pair.second, entry_path, *type.FindFieldByNumber(2), entry);
    }
  }

  void ReadValue(const YAML::Node& node, const std::string& path, const FieldDescriptor& field,
                 Message& message) {
    const auto& reflection = *message.GetReflection();
    if (field.cpp_type() == FieldDescriptor::CPPTYPE_MESSAGE) {
      ReadMessage(node, path,
                  field.is_repeated() ? *reflection.AddMessage(&message, &field)
                                      : *reflection.MutableMessage(&message, &field));
      return;
    }
    if (!node.IsScalar() || !SetScalar(node.Scalar(), field, message)) {
      int64_t beyond = 0;  // the type's range; its own the field tells when it is checked
      const bool whole = field.cpp_type() == FieldDescriptor::CPPTYPE_INT32 && node.IsScalar() &&
                         ReadInteger(node.Scalar(), beyond);
      Report(path, node,
             absl::StrCat("is ", KindOf(node), "; must be ",
                          whole ? "a whole number of 32 bits" : Wanted(field)));
    }
  }

  // False when `text` does not fit the field's type.
  static bool SetScalar(const std::string& text, const FieldDescriptor& field, Message& message) {
    const auto& reflection = *message.GetReflection();
    const bool add = field.is_repeated();
    switch (field.cpp_type()) {
      case FieldDescriptor::CPPTYPE_STRING:
        add ? reflection.AddString(&message, &field, text)
            : reflection.SetString(&message, &field, text);
        return true;
      case FieldDescriptor::CPPTYPE_BOOL: {
        const bool yes = text == "true" || text == "True" || text == "TRUE";
        if (!yes && text != "false" && text != "False" && text != "FALSE") return false;
        add ? reflection.AddBool(&message, &field, yes) : reflection.SetBool(&message, &field, yes);
        return true;
      }
      case FieldDescriptor::CPPTYPE_DOUBLE: {
        double value = 0;
        if (!absl::SimpleAtod(text, &value) || !std::isfinite(value)) return false;
        add ? reflection.AddDouble(&message, &field, value)
            : reflection.SetDouble(&message, &field, value);
        return true;
      }
      case FieldDescriptor::CPPTYPE_INT64: {
        int64_t value = 0;
        if (!ReadInteger(text, value)) return false;
        add ? reflection.AddInt64(&message, &field, value)
            : reflection.SetInt64(&message, &field, value);
        return true;
      }
      case FieldDescriptor::CPPTYPE_INT32: {
        int64_t value = 0;
        if (!ReadInteger(text, value) || value < std::numeric_limits<int32_t>::min() ||
            value > std::numeric_limits<int32_t>::max()) {
          return false;
        }
        const auto narrow = static_cast<int32_t>(value);
        add ? reflection.AddInt32(&message, &field, narrow)
            : reflection.SetInt32(&message, &field, narrow);
        return true;
      }
      case FieldDescriptor::CPPTYPE_ENUM: {
        const auto* value = field.enum_type()->FindValueByName(text);
        if (value == nullptr) return false;
        add ? reflection.AddEnum(&message, &field, value)
            : reflection.SetEnum(&message, &field, value);
        return true;
      }
      default:
        return false;  // unsigned and float fields: no message of ours has one
    }
  }

  std::vector<rpc::Violation>& violations_;
  const Descriptor* root_ = nullptr;
};

void AppendPaths(const Descriptor& type, const std::string& prefix, int depth,
                 std::vector<std::string>& paths) {
  for (int i = 0; i < type.field_count(); ++i) {
    const FieldDescriptor& field = *type.field(i);
    const std::string path = absl::StrCat(prefix, field.name());
    paths.push_back(path);
    if (field.message_type() != nullptr && !field.is_map() && depth < 8) {
      AppendPaths(*field.message_type(), path + ".", depth + 1, paths);
    }
  }
}

}  // namespace

void YamlToProto(const YAML::Node& node, Message& message,
                 std::vector<rpc::Violation>& violations) {
  Reader reader(violations);
  reader.set_root(*message.GetDescriptor());
  reader.ReadMessage(node, "", message);
}

std::vector<std::string> FieldPaths(const Descriptor& type) {
  std::vector<std::string> paths;
  AppendPaths(type, "", 0, paths);
  return paths;
}

}  // namespace switchyard::coordinator
