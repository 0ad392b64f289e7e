// A resource as a row of its kind's table.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_RESOURCE_ROWS_H_
#define SHARDPLANE_CLIENT_SHARDCTL_RESOURCE_ROWS_H_

#include <string>
#include <vector>

#include "absl/time/time.h"
#include "client/shardctl/table.h"
#include "google/protobuf/message.h"
#include "shardplane/v1/coordinator.pb.h"

namespace shardplane {

std::vector<Column> WorkerColumns();
std::vector<Column> ModuleColumns();
std::vector<Column> DeploymentColumns();
std::vector<Column> ProgramColumns();
std::vector<Column> StepColumns();
std::vector<Column> OperationColumns();
std::vector<Column> EventColumns();

// Of a message of that type.
Table::Row WorkerRow(const google::protobuf::Message& message, absl::Time now);
Table::Row ModuleRow(const google::protobuf::Message& message, absl::Time now);
Table::Row DeploymentRow(const google::protobuf::Message& message,
                         absl::Time now);
Table::Row ProgramRow(const google::protobuf::Message& message, absl::Time now);
Table::Row StepRow(const google::protobuf::Message& message, absl::Time now);
Table::Row OperationRow(const google::protobuf::Message& message,
                        absl::Time now);
Table::Row EventRow(const google::protobuf::Message& message, absl::Time now);

// "[dp=2, tp=4]"
std::string MeshText(const v1::DeviceMesh& mesh);
std::string StateText(v1::WorkerNode::State state);
std::string StateText(v1::Deployment::State state);
std::string StateText(v1::Operation::State state);
// What a program takes, or gives: "f32[32, 64], i64[32]".
std::string TypesText(
    const google::protobuf::RepeatedPtrField<v1::OutputSpec>& specs);
std::string LossText(const v1::StepResult& step);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_RESOURCE_ROWS_H_
