#include "client/shardctl/spec_diff.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "client/shardctl/line_diff.h"
#include "client/shardctl/manifest.h"
#include "client/shardctl/yaml_json.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

std::string Diff(const std::string& name,
                 const google::protobuf::Message& running,
                 const google::protobuf::Message& file) {
  return LineDiff(YamlText(running), YamlText(file),
                  absl::StrCat(name, " (running)"),
                  absl::StrCat(name, " (file)"));
}

}  // namespace

std::string DeploymentDiff(const pb::Deployment& running,
                           const pb::Deployment& planned,
                           const pb::Deployment& file) {
  pb::Deployment from = SpecOf(running);
  pb::Deployment to = SpecOf(planned);
  if (file.has_module()) {
    *to.mutable_module() = file.module();
    if (from.has_module()) {
      *from.mutable_module() =
          MaskedBy(file.module(), std::move(*from.mutable_module()));
    }
  }
  return Diff(running.name(), from, to);
}

std::string ModuleDiff(const pb::ModuleResource& running,
                       const pb::ModuleResource& file) {
  pb::ModuleResource from = SpecOf(running);
  *from.mutable_module() =
      MaskedBy(file.module(), std::move(*from.mutable_module()));
  return Diff(running.name(), from, SpecOf(file));
}

std::string NewDiff(const std::string& name,
                    const google::protobuf::Message& spec) {
  return LineDiff("", YamlText(spec), "/dev/null",
                  absl::StrCat(name, " (file)"));
}

}  // namespace shardplane
