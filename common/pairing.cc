#include "common/pairing.h"

#include <algorithm>
#include <optional>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/container/btree_map.h"
#include "absl/container/btree_set.h"
#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/string_view.h"
#include "common/style_cuts.h"

namespace shardplane {
namespace {

bool IsLinear(const ModuleNode& node) {
  return IsA(node, "Linear") || IsA(node, kConv1D);
}

std::optional<PairwiseParallel> AsPairwise(const ParallelStyle& style) {
  if (const auto* pairwise = std::get_if<PairwiseParallel>(&style.kind)) {
    return *pairwise;
  }
  const auto* sequence = std::get_if<PairwiseSequenceParallel>(&style.kind);
  if (sequence == nullptr) return std::nullopt;
  const Placement cut = Shard{sequence->sequence_dim};
  return PairwiseParallel{cut, cut};
}

// The linears of one module, by index, and who reads whom.
struct Pairs {
  struct Row {
    std::vector<int> columns;  // colwise, in the order of their calls
    bool last = true;
  };
  absl::btree_map<int, bool> columns;  // colwise ones, whether among the first
  std::vector<std::pair<int, Row>> rows;  // in the order of their calls
  bool registered = false;                // by the order of registration
};

// Follows the values of a graph from linear to linear.
class Tracer {
 public:
  // `linears`: to be paired; `whole`: modules that have pairs of their own.
  Tracer(const GraphModule& module, const std::vector<int>& linears,
         const absl::flat_hash_set<int>& whole)
      : module_(module),
        linears_(linears.begin(), linears.end()),
        whole_(whole) {}

  Pairs Trace(const Graph& graph) && {
    for (const Node& node : graph.nodes) Visit(node);
    Pairs pairs;
    for (const int linear : order_) {
      const auto row = rows_.find(linear);
      if (row == rows_.end()) continue;
      for (const int column : row->second) AddColumn(column, &pairs);
      pairs.rows.push_back({linear, {row->second, true}});
    }
    for (auto& [linear, row] : pairs.rows) row.last = !read_.contains(linear);
    return pairs;
  }

 private:
  // What a value is made of: colwise linears' results that no linear has read,
  // and the rowwise linears before them.
  struct Origin {
    absl::btree_set<int> columns;
    absl::btree_set<int> rows;
  };

  void AddColumn(int column, Pairs* pairs) {
    const absl::btree_set<int>& before = before_[column];
    pairs->columns[column] = before.empty();
    read_.insert(before.begin(), before.end());
  }

  void Visit(const Node& node) {
    Origin origin;
    for (const Argument& argument : node.args) Read(argument, &origin);
    for (const auto& [name, argument] : node.kwargs) Read(argument, &origin);
    if (node.op == NodeOp::kCallModule) {
      Call(module_.ModuleIndex(node.target), &origin);
    }
    if (!origin.columns.empty() || !origin.rows.empty()) {
      origins_[node.name] = std::move(origin);
    }
  }

  void Read(const Argument& argument, Origin* origin) const {
    if (const auto* list = std::get_if<ArgumentList>(&argument.value)) {
      for (const Argument& item : *list) Read(item, origin);
    }
    const auto* ref = std::get_if<NodeRef>(&argument.value);
    if (ref == nullptr) return;
    const auto found = origins_.find(ref->name);
    if (found == origins_.end()) return;
    const Origin& read = found->second;
    origin->columns.insert(read.columns.begin(), read.columns.end());
    origin->rows.insert(read.rows.begin(), read.rows.end());
  }

  // The origin of its input becomes that of its result.
  void Call(int callee, Origin* origin) {
    if (whole_.contains(callee)) origin->columns.clear();
    if (!linears_.contains(callee)) return;
    const bool known = before_.contains(callee) || rows_.contains(callee);
    if (!known) {
      order_.push_back(callee);
      if (origin->columns.empty()) {
        before_[callee] = origin->rows;
      } else {
        rows_[callee].assign(origin->columns.begin(), origin->columns.end());
      }
    }
    if (rows_.contains(callee)) {
      *origin = {{}, {callee}};
    } else {
      *origin = {{callee}, {}};
    }
  }

  const GraphModule& module_;
  const absl::btree_set<int> linears_;
  const absl::flat_hash_set<int>& whole_;
  absl::flat_hash_map<absl::string_view, Origin> origins_;  // by node
  std::vector<int> order_;                                  // of first calls
  // Colwise ones, with the rowwise ones before them; rowwise ones, with the
  // colwise ones that they read.
  absl::btree_map<int, absl::btree_set<int>> before_;
  absl::btree_map<int, std::vector<int>> rows_;
  absl::btree_set<int> read_;  // rowwise ones that a pair comes after
};

Pairs ByRegistration(const std::vector<int>& linears) {
  Pairs pairs;
  pairs.registered = true;
  for (size_t i = 0; i + 1 < linears.size(); i += 2) {
    pairs.columns[linears[i]] = i == 0;
    pairs.rows.push_back(
        {linears[i + 1], {{linears[i]}, i + 3 >= linears.size()}});
  }
  return pairs;
}

// Expands one match.
class Expansion {
 public:
  Expansion(const GraphModule& module, const PlanMatch& match,
            const PairwiseParallel& style, PlanMatches* out)
      : module_(module), match_(match), style_(style), out_(out) {}

  // The matches that take its place.
  std::vector<PlanMatch> Run() && {
    const std::vector<int> within = Within();
    // Children come after their parents, and are looked at before them.
    for (auto it = within.rbegin(); it != within.rend(); ++it) Look(*it);
    for (const int index : within) Emit(index);
    if (result_.empty()) Warn();
    std::sort(result_.begin(), result_.end(),
              [](const PlanMatch& a, const PlanMatch& b) {
                return a.module < b.module;
              });
    return std::move(result_);
  }

 private:
  const ModuleNode& NodeAt(int index) const { return module_.modules()[index]; }

  bool IsAttention(int index) const { return IsA(NodeAt(index), kAttention); }

  int Parent(int index) const {
    if (index == 0) return -1;
    return module_.ModuleIndex(SplitFqn(NodeAt(index).fqn).first);
  }

  // The modules that are looked at: not what a linear or an attention hides.
  std::vector<int> Within() const {
    std::vector<int> within = {match_.module};
    for (size_t next = 0; next < within.size(); ++next) {
      const int index = within[next];
      if (IsLinear(NodeAt(index)) || IsAttention(index)) continue;
      for (const auto& [name, child] : module_.Children(index)) {
        within.push_back(child);
      }
    }
    std::sort(within.begin(), within.end());
    return within;
  }

  void Look(int index) {
    if (IsAttention(index)) {
      whole_.insert(index);
    } else if (!IsLinear(NodeAt(index))) {
      Pairs pairs = PairsOf(index);
      if (!pairs.rows.empty()) {
        whole_.insert(index);
        pairs_[index] = std::move(pairs);
      }
    }
    if (whole_.contains(index)) whole_.insert(Parent(index));
  }

  Pairs PairsOf(int index) const {
    std::vector<int> linears;
    for (const auto& [name, child] : module_.Children(index)) {
      if (IsLinear(NodeAt(child))) linears.push_back(child);
    }
    if (linears.size() < 2) return {};
    bool exported = false;
    for (int at = index; at >= 0; at = Parent(at)) {
      exported |= NodeAt(at).graph.has_value();
      // Written where the core knows the type; a list has none.
      const absl::StatusOr<Graph> graph = GraphOf(module_, at);
      if (!graph.ok() || (at != index && !Calls(*graph, linears))) continue;
      return Tracer(module_, linears, whole_).Trace(*graph);
    }
    return exported ? Pairs{} : ByRegistration(linears);
  }

  bool Calls(const Graph& graph, const std::vector<int>& linears) const {
    return std::any_of(
        graph.nodes.begin(), graph.nodes.end(), [&](const Node& node) {
          return node.op == NodeOp::kCallModule &&
                 std::find(linears.begin(), linears.end(),
                           module_.ModuleIndex(node.target)) != linears.end();
        });
  }

  void Emit(int index) {
    if (IsAttention(index)) {
      Add(index, style_);
      const int projection =
          module_.ModuleIndex(JoinFqn(NodeAt(index).fqn, "out_proj"));
      if (projection >= 0) Add(projection, RowwiseParallel{});
      Note(index, "is a MultiheadAttention, cut by its heads");
      return;
    }
    const auto found = pairs_.find(index);
    if (found == pairs_.end()) return;
    const Pairs& pairs = found->second;
    for (const auto& [column, first] : pairs.columns) {
      ColwiseParallel style;
      if (first) style.input_layouts = style_.input_layouts;
      Add(column, style);
    }
    for (const auto& [linear, row] : pairs.rows) {
      RowwiseParallel style;
      if (row.last) style.output_layouts = style_.output_layouts;
      Add(linear, style);
    }
    Note(index, absl::StrCat("pairs ", Text(pairs)));
  }

  void Add(int module, decltype(ParallelStyle::kind) kind) {
    out_->styles.push_back({std::move(kind), match_.style->mesh_dim});
    result_.push_back({module, &out_->styles.back(), match_.pattern});
  }

  // "net1 (colwise) -> net2 (rowwise)"
  std::string Text(const Pairs& pairs) const {
    const auto name = [this](std::string* out, int index) {
      absl::StrAppend(out, SplitFqn(NodeAt(index).fqn).second);
    };
    std::vector<std::string> texts;
    for (const auto& [linear, row] : pairs.rows) {
      texts.push_back(absl::StrJoin(row.columns, ", ", name));
      absl::StrAppend(&texts.back(), " (colwise) -> ");
      name(&texts.back(), linear);
      absl::StrAppend(&texts.back(), " (rowwise)");
    }
    return absl::StrCat(
        absl::StrJoin(texts, "; "),
        pairs.registered
            ? ", in the order of registration, as no graph says which reads "
              "which; example inputs would"
            : "");
  }

  void Note(int index, absl::string_view what) {
    out_->notes.push_back({Severity::kNote, "PAIRED",
                           absl::StrCat(StyleName(*match_.style), ": module \"",
                                        NodeAt(index).fqn, "\" ", what, "."),
                           NodeAt(index).fqn, std::string(match_.pattern)});
  }

  void Warn() {
    const ModuleNode& node = NodeAt(match_.module);
    out_->warnings.push_back(
        {{Severity::kWarning, "NOTHING_PAIRED",
          absl::StrCat(StyleName(*match_.style), " on module \"", node.fqn,
                       "\" (", node.type,
                       ") found nothing to pair: it takes two Linears of one "
                       "module, the second of which reads what the first one "
                       "makes, or an nn.MultiheadAttention. Nothing is sharded "
                       "there."),
          node.fqn, std::string(match_.pattern)},
         ""});
  }

  const GraphModule& module_;
  const PlanMatch& match_;
  const PairwiseParallel style_;
  PlanMatches* out_;
  std::vector<PlanMatch> result_;
  absl::flat_hash_set<int> whole_;         // modules that have pairs in them
  absl::flat_hash_map<int, Pairs> pairs_;  // by module
};

}  // namespace

void ExpandPairs(const GraphModule& module, PlanMatches* matches) {
  std::vector<PlanMatch> expanded;
  for (const PlanMatch& match : matches->matches) {
    const std::optional<PairwiseParallel> style = AsPairwise(*match.style);
    const ModuleNode& node = module.modules()[match.module];
    if (!style.has_value() || IsLinear(node) || IsA(node, "Embedding")) {
      expanded.push_back(match);
      continue;
    }
    const std::vector<PlanMatch> paired =
        Expansion(module, match, *style, matches).Run();
    expanded.insert(expanded.end(), paired.begin(), paired.end());
  }
  matches->matches = std::move(expanded);
}

}  // namespace shardplane
