// Explanations: common -> wire.
#ifndef SHARDPLANE_PROTO_CONVERT_EXPLANATION_H_
#define SHARDPLANE_PROTO_CONVERT_EXPLANATION_H_

#include "common/explain.h"
#include "shardplane/v1/types.pb.h"

namespace shardplane {

v1::Explanation ToProto(const Explanation& explanation);

}  // namespace shardplane

#endif  // SHARDPLANE_PROTO_CONVERT_EXPLANATION_H_
