#include "client/shardctl/table.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace shardplane {
namespace {

constexpr size_t kGap = 3;

bool BeginsCodePoint(char byte) {
  return (static_cast<unsigned char>(byte) & 0xC0) != 0x80;
}

std::string Cut(absl::string_view line, size_t width) {
  if (width == 0 || DisplayWidth(line) <= width) {
    return std::string(line);
  }
  size_t end = 0;
  for (size_t seen = 0; end < line.size(); ++end) {
    if (BeginsCodePoint(line[end]) && seen++ == width - 1) {
      break;
    }
  }
  return absl::StrCat(line.substr(0, end), "…");
}

}  // namespace

size_t DisplayWidth(absl::string_view text) {
  return static_cast<size_t>(
      std::count_if(text.begin(), text.end(), BeginsCodePoint));
}

Table::Table(std::vector<Column> columns) : columns_(std::move(columns)) {}

void Table::Add(Row row) {
  row.resize(columns_.size());
  rows_.push_back(std::move(row));
}

bool Table::IsShown(size_t column, const TableLayout& layout) const {
  return layout.wide || columns_[column].shown == Column::Shown::kAlways;
}

std::vector<size_t> Table::Widths(const TableLayout& layout) const {
  std::vector<size_t> widths(columns_.size(), 0);
  for (size_t i = 0; i < columns_.size(); ++i) {
    widths[i] = layout.headers ? DisplayWidth(columns_[i].title) : 0;
    for (const Row& row : rows_) {
      widths[i] = std::max(widths[i], DisplayWidth(row[i]));
    }
  }
  return widths;
}

std::string Table::Line(const Row& row, const std::vector<size_t>& widths,
                        const TableLayout& layout) const {
  std::string line;
  for (size_t i = 0; i < row.size(); ++i) {
    if (!IsShown(i, layout)) continue;
    const std::string padding(
        widths[i] - std::min(widths[i], DisplayWidth(row[i])), ' ');
    const bool right = columns_[i].align == Column::Align::kRight;
    absl::StrAppend(&line, right ? padding : "", row[i], right ? "" : padding,
                    std::string(kGap, ' '));
  }
  line.erase(line.find_last_not_of(' ') + 1);
  return absl::StrCat(Cut(line, layout.width), "\n");
}

std::string Table::Text(const TableLayout& layout) const {
  const std::vector<size_t> widths = Widths(layout);
  std::string text;
  if (layout.headers) {
    Row titles;
    for (const Column& column : columns_) {
      titles.push_back(column.title);
    }
    text = Line(titles, widths, layout);
  }
  for (const Row& row : rows_) {
    absl::StrAppend(&text, Line(row, widths, layout));
  }
  return text;
}

std::string Table::LastLine(const TableLayout& layout) const {
  return rows_.empty() ? "" : Line(rows_.back(), Widths(layout), layout);
}

}  // namespace shardplane
