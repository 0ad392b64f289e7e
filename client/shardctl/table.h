// Tables of text.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_TABLE_H_
#define SHARDPLANE_CLIENT_SHARDCTL_TABLE_H_

#include <cstddef>
#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace shardplane {

struct Column {
  enum class Align { kLeft, kRight };
  enum class Shown { kAlways, kWide };
  std::string title;
  Align align = Align::kLeft;
  Shown shown = Shown::kAlways;
};

struct TableLayout {
  bool wide = false;  // with the columns that are for that
  bool headers = true;
  // Of the terminal; lines that are longer are cut, with "…". 0: none.
  size_t width = 0;
};

// How many columns of a terminal the UTF-8 takes, a code point each.
size_t DisplayWidth(absl::string_view text);

// Rows under titles, columns as wide as what is in them, three blanks between
// them. A value.
//
//   NAME   STATE      RANK
//   mlp    READY         0
class Table {
 public:
  using Row = std::vector<std::string>;

  explicit Table(std::vector<Column> columns);

  // A cell a column, those for wide tables included.
  void Add(Row row);
  bool empty() const { return rows_.empty(); }
  size_t size() const { return rows_.size(); }

  // Lines, each with its end.
  std::string Text(const TableLayout& layout) const;
  // The last row alone, in columns as wide as Text has them now: for tables
  // that grow.
  std::string LastLine(const TableLayout& layout) const;

 private:
  std::vector<size_t> Widths(const TableLayout& layout) const;
  std::string Line(const Row& row, const std::vector<size_t>& widths,
                   const TableLayout& layout) const;
  bool IsShown(size_t column, const TableLayout& layout) const;

  std::vector<Column> columns_;
  std::vector<Row> rows_;
};

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_TABLE_H_
