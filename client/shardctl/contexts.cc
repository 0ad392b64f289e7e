#include "client/shardctl/contexts.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/shardctl/failure.h"
#include "client/shardctl/suggest.h"
#include "client/shardctl/yaml_json.h"

namespace shardplane {
namespace {

constexpr char kCurrent[] = "current-context";
constexpr char kContexts[] = "contexts";

absl::StatusOr<std::string> TextOf(const Document& object, const char* key) {
  if (!object.is_object() || !object.contains(key) ||
      !object[key].is_string()) {
    return UsageError(
        absl::StrCat("expected \"", key, ": TEXT\", got: ", object.dump()));
  }
  return object[key].get<std::string>();
}

absl::StatusOr<Context> ContextOf(const Document& document) {
  absl::StatusOr<std::string> name = TextOf(document, "name");
  if (!name.ok()) return name.status();
  absl::StatusOr<std::string> address = TextOf(document, "address");
  if (!address.ok()) return address.status();
  return Context{*std::move(name), *std::move(address)};
}

absl::Status InFile(const std::string& path, const absl::Status& status) {
  return UsageError(absl::StrCat(path, ": ", std::string(status.message())),
                    "--config or SHARDPLANE_CONFIG name another file");
}

}  // namespace

const Context* Contexts::Find(const std::string& name) const {
  const auto it = std::find_if(
      all.begin(), all.end(),
      [&](const Context& context) { return context.name == name; });
  return it == all.end() ? nullptr : &*it;
}

void Contexts::Set(const Context& context) {
  if (const Context* found = Find(context.name); found != nullptr) {
    all[found - all.data()] = context;
  } else {
    all.push_back(context);
  }
}

bool Contexts::Delete(const std::string& name) {
  if (current == name) current.clear();
  return std::erase_if(all, [&](const Context& context) {
           return context.name == name;
         }) > 0;
}

std::vector<std::string> Contexts::Names() const {
  std::vector<std::string> names;
  for (const Context& context : all) {
    names.push_back(context.name);
  }
  return names;
}

absl::StatusOr<Contexts> ParseContexts(const std::string& yaml) {
  absl::StatusOr<std::vector<Document>> documents = ParseDocuments(yaml);
  if (!documents.ok()) return documents.status();
  Contexts contexts;
  if (documents->empty()) return contexts;
  const Document& document = documents->front();
  if (!document.is_object()) {
    return UsageError("expected contexts, got: something else");
  }
  if (document.contains(kCurrent)) {
    absl::StatusOr<std::string> current = TextOf(document, kCurrent);
    if (!current.ok()) return current.status();
    contexts.current = *std::move(current);
  }
  if (!document.contains(kContexts)) return contexts;
  for (const Document& item : document[kContexts]) {
    absl::StatusOr<Context> context = ContextOf(item);
    if (!context.ok()) return context.status();
    contexts.Set(*context);
  }
  return contexts;
}

std::string ContextsText(const Contexts& contexts) {
  Document document = Document::object();
  if (!contexts.current.empty()) {
    document[kCurrent] = contexts.current;
  }
  document[kContexts] = Document::array();
  for (const Context& context : contexts.all) {
    document[kContexts].push_back(
        {{"name", context.name}, {"address", context.address}});
  }
  return YamlText(document);
}

absl::StatusOr<Contexts> ReadContexts(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::exists(path, error)) {
    return Contexts();
  }
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  if (!file.good()) {
    return InFile(path, absl::UnknownError("expected a file to read"));
  }
  absl::StatusOr<Contexts> contexts = ParseContexts(text.str());
  return contexts.ok() ? contexts : InFile(path, contexts.status());
}

absl::Status WriteContexts(const std::string& path, const Contexts& contexts) {
  std::error_code error;
  const std::filesystem::path folder =
      std::filesystem::path(path).parent_path();
  if (!folder.empty()) {
    std::filesystem::create_directories(folder, error);
  }
  const std::string beside = absl::StrCat(path, ".new");
  std::ofstream file(beside, std::ios::trunc);
  file << ContextsText(contexts);
  file.close();
  if (!file.good()) {
    return InFile(path, absl::UnknownError("expected a file to write"));
  }
  std::filesystem::rename(beside, path, error);
  return error ? InFile(path, absl::UnknownError(error.message()))
               : absl::OkStatus();
}

std::string ContextsPath(const std::string& flag, const Getenv& getenv) {
  if (!flag.empty()) return flag;
  if (std::string path = getenv("SHARDPLANE_CONFIG"); !path.empty()) {
    return path;
  }
  std::string folder = getenv("XDG_CONFIG_HOME");
  if (folder.empty()) {
    folder = absl::StrCat(getenv("HOME"), "/.config");
  }
  return absl::StrCat(folder, "/shardplane/config.yaml");
}

absl::StatusOr<std::string> AddressOf(const std::string& address,
                                      const std::string& context,
                                      const Contexts& contexts,
                                      const Getenv& getenv) {
  if (!address.empty()) return address;
  const std::string from_environment = getenv("SHARDPLANE_ADDRESS");
  if (context.empty() && !from_environment.empty()) return from_environment;
  const std::string& name = context.empty() ? contexts.current : context;
  if (name.empty()) {
    return UsageError("expected the address of a coordinator, got: none",
                      "--address HOST:PORT, SHARDPLANE_ADDRESS, or `shardctl "
                      "config set-context NAME --address HOST:PORT`");
  }
  const Context* found = contexts.Find(name);
  if (found == nullptr) {
    return UsageError(absl::StrCat("no context \"", name, "\".",
                                   DidYouMean(name, contexts.Names())),
                      "`shardctl config get-contexts` lists them");
  }
  return found->address;
}

}  // namespace shardplane
