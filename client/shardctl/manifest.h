// What a file asks for.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_MANIFEST_H_
#define SHARDPLANE_CLIENT_SHARDCTL_MANIFEST_H_

#include <iosfwd>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "client/shardctl/command.h"
#include "client/shardctl/yaml_json.h"
#include "shardplane/v1/coordinator.pb.h"

namespace shardplane {

using Manifest =
    std::variant<v1::CreateDeploymentRequest, v1::CreateModuleRequest>;

// By its fields, a document is
//   a CreateDeploymentRequest   "deployment", "signature", "deployment_id"
//   a Deployment                "mesh" among them, as `get -o yaml` shows one
//   a CreateModuleRequest       "module_id" among them
//   a ModuleResource            "module" among them
// Output-only fields of a resource are left out, its name becomes the id.
absl::StatusOr<Manifest> ManifestOf(const Document& document);

// The documents of a text, of the files of the flag --filename ("-": stdin).
// Usage error, naming file and document.
absl::StatusOr<std::vector<Manifest>> ParseManifests(const std::string& text);
absl::StatusOr<std::vector<Manifest>> ReadManifests(
    const Invocation& invocation);
// The whole of a file, or of stdin where it is "-".
absl::StatusOr<std::string> ReadText(const std::string& path, std::istream* in);
// The only CreateDeploymentRequest of the files.
absl::StatusOr<v1::CreateDeploymentRequest> ReadDeployment(
    const Invocation& invocation);

// deployments/{id} or modules/{id}; "" where it has no id.
std::string NameOf(const Manifest& manifest);

// A deployment or a module as it was asked for: nothing that is output only.
v1::Deployment SpecOf(v1::Deployment deployment);
v1::ModuleResource SpecOf(v1::ModuleResource module);

// What of `running` the file speaks about: implied parameters, attributes,
// graphs and initializers that it leaves to the coordinator are left out.
v1::Module MaskedBy(const v1::Module& file, v1::Module running);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_MANIFEST_H_
