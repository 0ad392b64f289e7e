#include "coordinator/service_calls.h"

#include <cstddef>

#include "absl/strings/ascii.h"
#include "absl/strings/string_view.h"

namespace shardplane {
namespace {

// Version 00: two, thirty-two, sixteen and two digits, in lower case.
bool IsTraceparent(absl::string_view text) {
  constexpr absl::string_view kForm =
      "00-xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx-xxxxxxxxxxxxxxxx-xx";
  if (text.size() != kForm.size()) return false;
  for (size_t i = 0; i < text.size(); ++i) {
    const bool digit =
        absl::ascii_isdigit(text[i]) || (text[i] >= 'a' && text[i] <= 'f');
    if (kForm[i] == 'x' ? !digit : text[i] != kForm[i]) return false;
  }
  const auto all_zero = [](absl::string_view id) {
    return id.find_first_not_of('0') == absl::string_view::npos;
  };
  return !all_zero(text.substr(3, 32)) && !all_zero(text.substr(36, 16));
}

}  // namespace

std::string TraceparentOf(const grpc::ServerContextBase& context) {
  const auto found = context.client_metadata().find("traceparent");
  if (found == context.client_metadata().end()) return "";
  const std::string text(found->second.data(), found->second.size());
  return IsTraceparent(text) ? text : "";
}

}  // namespace shardplane
