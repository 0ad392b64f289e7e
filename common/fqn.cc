#include "common/fqn.h"

#include "absl/strings/str_cat.h"

namespace shardplane {

std::string JoinFqn(absl::string_view parent, absl::string_view name) {
  return parent.empty() ? std::string(name) : absl::StrCat(parent, ".", name);
}

std::pair<std::string, std::string> SplitFqn(absl::string_view fqn) {
  const size_t dot = fqn.rfind('.');
  if (dot == absl::string_view::npos) return {"", std::string(fqn)};
  return {std::string(fqn.substr(0, dot)), std::string(fqn.substr(dot + 1))};
}

bool IsWithin(absl::string_view module, absl::string_view fqn) {
  if (module.empty() || module == fqn) return true;
  return fqn.size() > module.size() && fqn[module.size()] == '.' &&
         fqn.substr(0, module.size()) == module;
}

std::string CommonModule(const std::vector<std::string>& fqns) {
  if (fqns.empty()) return "";
  std::string common = fqns[0];
  for (const std::string& fqn : fqns) {
    while (!IsWithin(common, fqn)) common = SplitFqn(common).first;
  }
  return common;
}

}  // namespace shardplane
