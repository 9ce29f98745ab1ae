// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/cost/cost_table.h"

#include <algorithm>
#include <array>
#include <nlohmann/json.hpp>

namespace postern::cost {
namespace {

using Line = std::array<std::string, 6>;

std::string number(std::optional<long> value, bool sign) {
    if (!value) return "";
    return sign ? fmt::format("{:+}", *value) : fmt::format("{}", *value);
}

Line line_of(const CostRow& row) {
    return {row.call,
            row.state,
            fmt::format("{}", row.instructions),
            row.against,
            number(row.more, true),
            number(row.at_most, false)};
}

}  // namespace

void CostTable::add(const std::string& call, const std::string& state, long instructions) {
    rows_.push_back({call, state, instructions, "", std::nullopt, std::nullopt});
}

Status CostTable::add(const std::string& call, const std::string& state, long instructions,
                      const std::string& against, std::optional<long> at_most) {
    const auto base = std::find_if(rows_.begin(), rows_.end(), [&](const CostRow& row) {
        return row.call == call && row.state == against;
    });
    if (base == rows_.end()) return fail("the table has no row \"{}\", \"{}\"", call, against);
    const long more = instructions - base->instructions;
    rows_.push_back({call, state, instructions, against, more, at_most});
    return {};
}

std::string CostTable::text() const {
    std::vector<Line> lines = {
        {"call", "state", "instructions", "against", "more", "at most"},
        {"---", "---", "---:", "---", "---:", "---:"},
    };
    for (const CostRow& row : rows_) lines.push_back(line_of(row));
    std::array<size_t, 6> width{};
    for (const Line& line : lines) {
        for (size_t i = 0; i < line.size(); i++) width[i] = std::max(width[i], line[i].size());
    }
    std::string text;
    for (const Line& line : lines) {
        const auto& w = width;
        text += fmt::format("| {:{}} | {:{}} | {:>{}} | {:{}} | {:>{}} | {:>{}} |\n", line[0], w[0], line[1],
                            w[1], line[2], w[2], line[3], w[3], line[4], w[4], line[5], w[5]);
    }
    return text;
}

std::string CostTable::json(const std::string& kernel) const {
    nlohmann::ordered_json rows = nlohmann::ordered_json::array();
    for (const CostRow& row : rows_) {
        nlohmann::ordered_json each = {
            {"call", row.call}, {"state", row.state}, {"instructions", row.instructions}};
        if (row.more) {
            each["against"] = row.against;
            each["more"] = *row.more;
        }
        if (row.at_most) {
            each["at_most"] = *row.at_most;
            each["met"] = !row.is_missed();
        }
        rows.push_back(std::move(each));
    }
    return nlohmann::ordered_json{{"kernel", kernel}, {"rows", std::move(rows)}}.dump(2) + "\n";
}

std::vector<std::string> CostTable::missed() const {
    std::vector<std::string> lines;
    for (const CostRow& row : rows_) {
        if (!row.is_missed()) continue;
        lines.push_back(
            fmt::format("{}, {}: {} instructions, {} more than with \"{}\"; expected are at most {} more",
                        row.call, row.state, row.instructions, *row.more, row.against, *row.at_most));
    }
    return lines;
}

}  // namespace postern::cost
