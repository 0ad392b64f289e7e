// What planning has found out, as tables.
#ifndef SHARDPLANE_CLIENT_SHARDCTL_REPORT_TEXT_H_
#define SHARDPLANE_CLIENT_SHARDCTL_REPORT_TEXT_H_

#include <string>

#include "client/shardctl/table.h"
#include "shardplane/v1/coordinator.pb.h"

namespace shardplane {

// Assignments, collectives, memory, warnings; wide: what each module
// communicates, and the program, too.
std::string ReportText(const v1::Report& report, const TableLayout& layout);

// Why a module, parameter or buffer lies as it does.
std::string ExplanationText(const v1::Explanation& explanation,
                            const TableLayout& layout);

// A table under a title, with a line before it; "" where it is empty.
std::string Titled(const std::string& title, const Table& table,
                   const TableLayout& layout);

}  // namespace shardplane

#endif  // SHARDPLANE_CLIENT_SHARDCTL_REPORT_TEXT_H_
