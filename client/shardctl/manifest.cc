#include "client/shardctl/manifest.h"

#include <fstream>
#include <istream>
#include <map>
#include <set>
#include <sstream>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/shardctl/failure.h"
#include "client/shardctl/text_values.h"

namespace shardplane {
namespace {

namespace pb = ::shardplane::v1;

constexpr char kFileHint[] =
    "docs/shardctl.md shows a file; fields are those of coordinator.proto";

bool HasAny(const Document& document, std::initializer_list<const char*> keys) {
  for (const char* key : keys) {
    if (document.contains(key)) return true;
  }
  return false;
}

template <typename Request>
absl::StatusOr<Manifest> Parsed(const Document& document) {
  Request request;
  if (absl::Status status = ParseMessage(document, &request); !status.ok()) {
    return status;
  }
  return request;
}

absl::StatusOr<Manifest> OfDeployment(const Document& document) {
  pb::Deployment deployment;
  if (absl::Status status = ParseMessage(document, &deployment); !status.ok()) {
    return status;
  }
  pb::CreateDeploymentRequest request;
  request.set_deployment_id(LastPart(deployment.name()));
  *request.mutable_deployment() = SpecOf(std::move(deployment));
  return request;
}

absl::StatusOr<Manifest> OfModule(const Document& document) {
  pb::ModuleResource module;
  if (absl::Status status = ParseMessage(document, &module); !status.ok()) {
    return status;
  }
  pb::CreateModuleRequest request;
  request.set_module_id(LastPart(module.name()));
  *request.mutable_module() = SpecOf(std::move(module));
  return request;
}

std::string OwnerOf(const std::string& fqn) {
  const size_t dot = fqn.rfind('.');
  return dot == std::string::npos ? "" : fqn.substr(0, dot);
}

void MaskNode(const pb::ModuleNode& file, pb::ModuleNode* running) {
  if (!file.has_graph()) running->clear_graph();
  if (file.bases().empty()) running->clear_bases();
  std::vector<std::string> implied;
  for (const auto& [key, value] : running->attributes()) {
    if (!file.attributes().contains(key)) implied.push_back(key);
  }
  for (const std::string& key : implied) {
    running->mutable_attributes()->erase(key);
  }
}

// Of a parameter as the coordinator completed it, what a file says, too.
void MaskParameter(const pb::Parameter& said, pb::Parameter* running) {
  if (!said.has_type()) running->clear_type();
  if (!said.has_initializer()) {
    running->clear_initializer();
  } else if (running->initializer().has_files() &&
             said.initializer().files().names().empty()) {
    running->mutable_initializer()->mutable_files()->clear_names();
  }
}

// Whether Module.weights is where it is read from. `said`: null, if the file
// does not list it.
bool StartsFromModuleFiles(const pb::Parameter* said,
                           const pb::Parameter& running) {
  return running.initializer().has_files() && running.alias_of().empty() &&
         (said == nullptr || !said->has_initializer());
}

}  // namespace

absl::StatusOr<Manifest> ManifestOf(const Document& document) {
  if (!document.is_object()) {
    return UsageError("expected a deployment or a module, got: no object",
                      kFileHint);
  }
  if (HasAny(document, {"deployment"})) {
    return Parsed<pb::CreateDeploymentRequest>(document);
  }
  if (HasAny(document, {"mesh"})) return OfDeployment(document);
  if (HasAny(document, {"module_id", "moduleId"})) {
    return Parsed<pb::CreateModuleRequest>(document);
  }
  if (HasAny(document, {"module"})) return OfModule(document);
  return UsageError(
      "expected \"deployment\", \"mesh\" or \"module\" among the fields, got: "
      "none of them",
      kFileHint);
}

absl::StatusOr<std::vector<Manifest>> ParseManifests(const std::string& text) {
  absl::StatusOr<std::vector<Document>> documents = ParseDocuments(text);
  if (!documents.ok()) return documents.status();
  std::vector<Manifest> manifests;
  for (const Document& document : *documents) {
    absl::StatusOr<Manifest> manifest = ManifestOf(document);
    if (!manifest.ok()) {
      return UsageError(absl::StrCat("document ", manifests.size() + 1, ": ",
                                     std::string(manifest.status().message())),
                        kFileHint);
    }
    manifests.push_back(*std::move(manifest));
  }
  return manifests;
}

absl::StatusOr<std::string> ReadText(const std::string& path,
                                     std::istream* in) {
  std::ifstream file;
  if (path != "-") {
    file.open(path);
    if (!file.is_open()) {
      return UsageError(absl::StrCat(path, ": expected a file to read"));
    }
  }
  std::stringstream text;
  text << (path == "-" ? in : &file)->rdbuf();
  return text.str();
}

absl::StatusOr<std::vector<Manifest>> ReadManifests(
    const Invocation& invocation) {
  std::vector<Manifest> all;
  for (const std::string& path : invocation.Values("filename")) {
    absl::StatusOr<std::string> text =
        ReadText(path, invocation.environment().in);
    if (!text.ok()) return text.status();
    absl::StatusOr<std::vector<Manifest>> manifests = ParseManifests(*text);
    if (!manifests.ok()) {
      return UsageError(
          absl::StrCat(path, ": ", std::string(manifests.status().message())),
          kFileHint);
    }
    all.insert(all.end(), manifests->begin(), manifests->end());
  }
  if (all.empty()) {
    return UsageError("expected a file that says what, got: none", "-f FILE");
  }
  return all;
}

absl::StatusOr<pb::CreateDeploymentRequest> ReadDeployment(
    const Invocation& invocation) {
  absl::StatusOr<std::vector<Manifest>> manifests = ReadManifests(invocation);
  if (!manifests.ok()) return manifests.status();
  const auto* request =
      std::get_if<pb::CreateDeploymentRequest>(&manifests->front());
  if (request == nullptr || manifests->size() != 1) {
    return UsageError("expected a file with one deployment");
  }
  return *request;
}

std::string NameOf(const Manifest& manifest) {
  if (const auto* request =
          std::get_if<pb::CreateDeploymentRequest>(&manifest)) {
    return request->deployment_id().empty()
               ? ""
               : absl::StrCat("deployments/", request->deployment_id());
  }
  const auto& request = std::get<pb::CreateModuleRequest>(manifest);
  return request.module_id().empty()
             ? ""
             : absl::StrCat("modules/", request.module_id());
}

pb::Deployment SpecOf(pb::Deployment deployment) {
  pb::Deployment spec;
  spec.Swap(&deployment);
  for (const int number :
       {pb::Deployment::kNameFieldNumber, pb::Deployment::kUidFieldNumber,
        pb::Deployment::kCreateTimeFieldNumber,
        pb::Deployment::kUpdateTimeFieldNumber,
        pb::Deployment::kEtagFieldNumber, pb::Deployment::kStateFieldNumber,
        pb::Deployment::kStateReasonFieldNumber,
        pb::Deployment::kReportFieldNumber,
        pb::Deployment::kLastStepFieldNumber, pb::Deployment::kEpochFieldNumber,
        pb::Deployment::kWorkersFieldNumber,
        pb::Deployment::kProgramsFieldNumber,
        pb::Deployment::kOperationFieldNumber}) {
    spec.GetReflection()->ClearField(
        &spec, spec.GetDescriptor()->FindFieldByNumber(number));
  }
  // The deployment keeps a copy of what it was made from.
  if (!spec.module_name().empty()) spec.clear_module();
  return spec;
}

pb::ModuleResource SpecOf(pb::ModuleResource module) {
  pb::ModuleResource spec;
  spec.mutable_labels()->swap(*module.mutable_labels());
  spec.mutable_module()->Swap(module.mutable_module());
  return spec;
}

pb::Module MaskedBy(const pb::Module& file, pb::Module running) {
  std::map<std::string, const pb::ModuleNode*> nodes;
  for (const pb::ModuleNode& node : file.modules()) {
    nodes[node.fqn()] = &node;
  }
  for (pb::ModuleNode& node : *running.mutable_modules()) {
    if (const auto it = nodes.find(node.fqn()); it != nodes.end()) {
      MaskNode(*it->second, &node);
    }
  }
  std::map<std::string, const pb::Parameter*> parameters;
  std::set<std::string> owners;
  for (const pb::Parameter& parameter : file.parameters()) {
    parameters[parameter.fqn()] = &parameter;
    owners.insert(OwnerOf(parameter.fqn()));
  }
  pb::Module masked;
  masked.mutable_modules()->Swap(running.mutable_modules());
  for (pb::Parameter& parameter : *running.mutable_parameters()) {
    const auto it = parameters.find(parameter.fqn());
    const pb::Parameter* said = it == parameters.end() ? nullptr : it->second;
    if (StartsFromModuleFiles(said, parameter)) {
      masked.set_weights(parameter.initializer().files().path());
    }
    if (!owners.contains(OwnerOf(parameter.fqn()))) continue;
    if (said != nullptr) MaskParameter(*said, &parameter);
    *masked.add_parameters() = std::move(parameter);
  }
  return masked;
}

}  // namespace shardplane
