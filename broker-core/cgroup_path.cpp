// SPDX-License-Identifier: Apache-2.0
#include "broker-core/cgroup_path.h"

#include <algorithm>
#include <optional>
#include <vector>

namespace postern {
namespace {

std::string_view next_line(std::string_view& text) {
    const std::size_t end = text.find('\n');
    const std::string_view line = text.substr(0, end);
    text.remove_prefix(end == std::string_view::npos ? text.size() : end + 1);
    return line;
}

std::vector<std::string_view> words(std::string_view line) {
    std::vector<std::string_view> result;
    while (!line.empty()) {
        const std::size_t end = line.find(' ');
        result.push_back(line.substr(0, end));
        line.remove_prefix(end == std::string_view::npos ? line.size() : end + 1);
    }
    return result;
}

/// proc(5): space, tab, newline and backslash are written as \ooo.
std::string unescape(std::string_view text) {
    std::string result;
    for (std::size_t i = 0; i < text.size(); ++i) {
        if (text[i] == '\\' && i + 3 < text.size()) {
            result +=
                static_cast<char>((text[i + 1] - '0') * 64 + (text[i + 2] - '0') * 8 + (text[i + 3] - '0'));
            i += 3;
        } else {
            result += text[i];
        }
    }
    return result;
}

struct V2Mount {
    std::string root;  ///< which part of the hierarchy is mounted
    std::string point;
};

/// Line: id parent major:minor root mount-point options [optional fields] - type source super-options
std::optional<V2Mount> find_v2_mount(std::string_view mountinfo) {
    while (!mountinfo.empty()) {
        const std::vector<std::string_view> fields = words(next_line(mountinfo));
        const auto dash = std::find(fields.begin(), fields.end(), "-");
        if (fields.size() < 6 || fields.end() - dash < 2 || *(dash + 1) != "cgroup2") continue;
        return V2Mount{unescape(fields[3]), unescape(fields[4])};
    }
    return std::nullopt;
}

/// The v2 line is "0::/path".
std::optional<std::string> find_v2_membership(std::string_view membership) {
    while (!membership.empty()) {
        const std::string_view line = next_line(membership);
        if (line.starts_with("0::/")) return std::string(line.substr(3));
    }
    return std::nullopt;
}

}  // namespace

Result<CgroupPath> own_cgroup(std::string_view mountinfo, std::string_view membership) {
    const std::optional<V2Mount> mount = find_v2_mount(mountinfo);
    const std::optional<std::string> path = find_v2_membership(membership);
    if (!mount || !path) {
        return fail(
            "cgroup: no cgroup v2 hierarchy is mounted; mount -t cgroup2 none /sys/fs/cgroup (or …/unified)");
    }
    // A bind of part of the hierarchy: the path counts from its root.
    std::string below = *path;
    if (mount->root != "/") {
        if (below != mount->root && !below.starts_with(mount->root + "/")) {
            return fail("cgroup: {} is mounted from {}, which the launcher's own cgroup {} is not in",
                        mount->point, mount->root, below);
        }
        below.erase(0, mount->root.size());
    }
    if (below == "/") below.clear();
    if (below.find("/..") != std::string::npos) {
        return fail("cgroup: the launcher's own cgroup {} is outside of its cgroup namespace", *path);
    }
    const std::string& whole = *path;
    CgroupPath result;
    result.folder = mount->point + below;
    result.depth = whole == "/" ? 0U : static_cast<unsigned>(std::count(whole.begin(), whole.end(), '/'));
    return result;
}

}  // namespace postern
