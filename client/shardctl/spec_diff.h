// What a file asks for beside what there is.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_SPEC_DIFF_H_
#define SHARDPLANE_CLIENT_SHARDCTL_SPEC_DIFF_H_

#include <string>

#include "shardplane/v1/coordinator.pb.h"

namespace shardplane {

// As LineDiff; "" where they ask for the same. `planned` is what the
// coordinator answers to the file's request as a dry run: it has filled in what
// the file leaves to it.
std::string DeploymentDiff(const v1::Deployment& running,
                           const v1::Deployment& planned,
                           const v1::Deployment& file);
std::string ModuleDiff(const v1::ModuleResource& running,
                       const v1::ModuleResource& file);
// Of something that there is not.
std::string NewDiff(const std::string& name,
                    const google::protobuf::Message& spec);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_SPEC_DIFF_H_
