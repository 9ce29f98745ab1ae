// SPDX-License-Identifier: Apache-2.0
#include "launcher/id_map.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

namespace postern {
namespace {

/// The one id that is none: (uid_t)-1.
constexpr std::uint64_t kEnd = 0xffffffff;
/// UID_GID_MAP_MAX_EXTENTS of include/linux/user_namespace.h.
constexpr std::size_t kMaxLines = 340;

std::optional<std::uint32_t> number(std::string_view text) {
    std::uint32_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
    if (text.empty() || error != std::errc() || end != text.data() + text.size()) return std::nullopt;
    return value;
}

bool overlap(std::uint64_t a, std::uint64_t a_count, std::uint64_t b, std::uint64_t b_count) {
    return a < b + b_count && b < a + a_count;
}

}  // namespace

std::vector<SubordinateIds> subordinate_ids(std::string_view text, const std::string& name,
                                            std::uint32_t uid) {
    std::vector<SubordinateIds> found;
    while (!text.empty()) {
        const std::string_view line = text.substr(0, text.find('\n'));
        text.remove_prefix(std::min(text.size(), line.size() + 1));
        const std::size_t first_colon = line.find(':');
        const std::size_t second_colon =
            line.find(':', first_colon == std::string_view::npos ? first_colon : first_colon + 1);
        if (second_colon == std::string_view::npos) continue;
        const std::string_view owner = line.substr(0, first_colon);
        if (owner.empty() || (owner != name && owner != std::to_string(uid))) continue;
        const auto first = number(line.substr(first_colon + 1, second_colon - first_colon - 1));
        const auto count = number(line.substr(second_colon + 1));
        if (!first || !count || *count == 0 || std::uint64_t{*first} + *count > kEnd) continue;
        const SubordinateIds ids{*first, *count};
        // By name and by number, or twice by a careless script.
        if (std::find(found.begin(), found.end(), ids) == found.end()) found.push_back(ids);
    }
    return found;
}

IdMap map_subordinate_ids(const std::vector<SubordinateIds>& ids, std::optional<IdRange> own) {
    IdMap map;
    std::uint64_t next = 0;
    for (SubordinateIds rest : ids) {
        while (rest.count > 0) {
            if (own && next == own->inside) ++next;
            std::uint64_t count = std::min<std::uint64_t>(rest.count, kEnd - std::min(next, kEnd));
            if (own && next < own->inside) count = std::min<std::uint64_t>(count, own->inside - next);
            if (count == 0) break;
            map.push_back({static_cast<std::uint32_t>(next), rest.first, static_cast<std::uint32_t>(count)});
            next += count;
            rest.first += static_cast<std::uint32_t>(count);
            rest.count -= static_cast<std::uint32_t>(count);
        }
    }
    if (own) map.push_back(*own);
    return map;
}

Status check_id_map(const IdMap& map, std::string_view name) {
    if (map.size() > kMaxLines)
        return fail("{}: has {} ranges; the kernel takes {}", name, map.size(), kMaxLines);
    for (auto range = map.begin(); range != map.end(); ++range) {
        const auto text = [](const IdRange& each) {
            return fmt::format("[{}, {}, {}]", each.inside, each.outside, each.count);
        };
        if (range->count == 0 || std::uint64_t{range->inside} + range->count > kEnd ||
            std::uint64_t{range->outside} + range->count > kEnd)
            return fail("{}: {} is not [first inside, first outside, count] of ids that there are", name,
                        text(*range));
        for (auto other = map.begin(); other != range; ++other) {
            if (overlap(range->inside, range->count, other->inside, other->count) ||
                overlap(range->outside, range->count, other->outside, other->count))
                return fail("{}: {} and {} have ids in common", name, text(*other), text(*range));
        }
    }
    return {};
}

std::optional<std::uint32_t> outside_id(const IdMap& map, std::uint32_t inside) {
    for (const IdRange& range : map) {
        if (inside >= range.inside && inside - range.inside < range.count)
            return range.outside + (inside - range.inside);
    }
    return std::nullopt;
}

std::string id_map_text(const IdMap& map) {
    std::string text;
    for (const IdRange& range : map)
        text += fmt::format("{}{} {} {}", text.empty() ? "" : "\n", range.inside, range.outside, range.count);
    return text;
}

}  // namespace postern
