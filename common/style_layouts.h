// The layouts that styles ask for at the edges of modules, applied to the
// values that flow there. Used by compile.cc.
#ifndef SHARDPLANE_COMMON_STYLE_LAYOUTS_H_
#define SHARDPLANE_COMMON_STYLE_LAYOUTS_H_

#include <cstddef>
#include <map>
#include <string>
#include <variant>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"
#include "common/parallelize_plan.h"
#include "common/program_builder.h"

namespace shardplane {

// What flows along an edge of a graph: nothing, a tensor, a constant, or a
// tuple of these.
struct Flow {
  std::variant<std::monostate, ValueId, Argument, std::vector<Flow>> v;
};
using KeywordFlows = std::map<std::string, Flow>;

// The tensors of a flow, in order.
void Flatten(const Flow& flow, std::vector<ValueId>* out);

// InvalidArgument (reason MODULE_INVALID) that names the module.
absl::Status InvalidModule(absl::string_view message, absl::string_view fqn);

class StyleLayouts {
 public:
  // All must outlive this.
  StyleLayouts(const GraphModule& module, const ResolvedPlan& plan,
               ProgramBuilder* builder, std::vector<Diagnostic>* diagnostics);

  // Before and after a call of module `index`, in the plan's order of styles:
  // a claim decides where an open input lies (elsewhere one that differs is a
  // note), a wish redistributes. InvalidArgument: another number of values
  // than the style names, a value that is no tensor, a dim that is not there.
  absl::Status ApplyInputs(int index, std::vector<Flow>* args,
                           KeywordFlows* kwargs);
  absl::Status ApplyOutputs(int index, Flow* output);

  // Whether a style of the module gives a layout to the input by its name.
  bool NamesInput(int index, const std::string& name) const;

 private:
  absl::Status Inputs(const Assignment& a, std::vector<Flow>* args,
                      KeywordFlows* kwargs);
  absl::Status Outputs(const Assignment& a, Flow* output);
  absl::Status First(const Assignment& a, const LayoutChange& change,
                     std::vector<Flow>* args, KeywordFlows* kwargs);
  absl::Status FirstOnes(const Assignment& a, const LayoutChange& change,
                         size_t count, std::vector<Flow>* args);
  absl::Status Prepare(const Assignment& a, const PrepareModuleInput& p,
                       std::vector<Flow>* args, KeywordFlows* kwargs);
  absl::Status Changes(const Assignment& a, const PrepareModuleOutput& p,
                       Flow* output);
  absl::Status Change(const Assignment& a, const LayoutChange& change,
                      const std::string& what, Flow* flow);
  void NoteClaim(const Assignment& a, const Placement& claimed,
                 const DTensorSpec& spec, const std::string& what);

  const GraphModule& module_;
  ProgramBuilder* builder_;
  std::vector<Diagnostic>* diagnostics_;
  std::vector<std::vector<const Assignment*>> styles_;  // by module
};

}  // namespace shardplane

#endif  // SHARDPLANE_COMMON_STYLE_LAYOUTS_H_
