// Where in a request a value stands, for errors.
#ifndef SHARDPLANE_PROTO_CONVERT_FIELD_PATH_H_
#define SHARDPLANE_PROTO_CONVERT_FIELD_PATH_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace shardplane {

// A path like `deployment.plan.entries[2].pattern`, made of links that lie on
// the stack of the converters and written out only when something is wrong. A
// link borrows its parent and its names: never keep one beyond the call.
//
//   FromProto(request.deployment().mesh(), "deployment.mesh")
//   FromProto(m.type(), field.Member("type"))
//   FromProto(m.dims(i), field.Element("dims", i))
class FieldPath {
 public:
  // A root; "" leaves its members without a prefix.
  FieldPath(const char* root) : name_(root) {}         // NOLINT: implicit
  FieldPath(const std::string& root) : name_(root) {}  // NOLINT: implicit
  FieldPath(absl::string_view root) : name_(root) {}   // NOLINT: implicit

  FieldPath Member(absl::string_view name) const {
    return FieldPath(this, name, kMember, -1, "");
  }
  FieldPath Element(absl::string_view name, int index) const {
    return FieldPath(this, name, kElement, index, "");
  }
  FieldPath Entry(absl::string_view name, absl::string_view key) const {
    return FieldPath(this, name, kEntry, -1, key);
  }

  std::string ToString() const;  // `kwargs["dim"]` for an entry

 private:
  enum Kind { kMember, kElement, kEntry };
  FieldPath(const FieldPath* parent, absl::string_view name, Kind kind,
            int index, absl::string_view key)
      : parent_(parent), name_(name), kind_(kind), index_(index), key_(key) {}

  const FieldPath* parent_ = nullptr;
  absl::string_view name_;
  Kind kind_ = kMember;
  int index_ = -1;
  absl::string_view key_;
};

// InvalidArgument, reason FIELD_INVALID: "<field>: <message>".
absl::Status InvalidField(const FieldPath& field, absl::string_view message);
// InvalidArgument, reason FIELD_MISSING: "<field>: is required, got: nothing".
absl::Status MissingField(const FieldPath& field);
// The same for a oneof: "<field>: expected one of <members>, got: nothing".
absl::Status MissingOneof(const FieldPath& field, absl::string_view members);
// InvalidArgument, reason ENUM_INVALID.
absl::Status InvalidEnum(const FieldPath& field, absl::string_view expected,
                         int got);

// An error that the core found in what was converted, with the place in the
// request as its field. OK stays OK.
absl::Status InField(const absl::Status& status, const FieldPath& field);

// InvalidField if there are more than `limit`.
absl::Status CheckCount(const FieldPath& field, int64_t count, int64_t limit);

}  // namespace shardplane

#endif  // SHARDPLANE_PROTO_CONVERT_FIELD_PATH_H_
