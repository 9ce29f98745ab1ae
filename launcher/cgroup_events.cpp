// SPDX-License-Identifier: Apache-2.0
#include "launcher/cgroup_events.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <string>
#include <string_view>

#include "broker-core/unique_fd.h"

namespace postern {
namespace {

/// A flat keyed file of cgroup v2: lines of "KEY NUMBER".
std::string read_events(int cgroup, const char* name) {
    const UniqueFd file(::openat(cgroup, name, O_RDONLY | O_CLOEXEC));
    char text[512] = {};
    const ssize_t got = file ? ::read(file.get(), text, sizeof text) : 0;
    return got > 0 ? std::string(text, static_cast<std::size_t>(got)) : std::string();
}

std::uint64_t value_of(const std::string& text, std::string_view wanted) {
    for (std::string_view rest = text; !rest.empty();) {
        const std::string_view line = rest.substr(0, rest.find('\n'));
        rest.remove_prefix(std::min(line.size() + 1, rest.size()));
        const std::string_view key = line.substr(0, line.find(' '));
        std::uint64_t value = 0;
        if (key == wanted && key.size() < line.size() &&
            std::from_chars(line.data() + key.size() + 1, line.data() + line.size(), value).ec == std::errc{})
            return value;
    }
    return 0;
}

}  // namespace

CgroupEvents read_cgroup_events(int cgroup) {
    CgroupEvents events;
    if (cgroup < 0) return events;
    const std::string memory = read_events(cgroup, "memory.events");
    events.oom_kills = value_of(memory, "oom_kill");
    events.over_memory = value_of(memory, "oom");
    events.refused_forks = value_of(read_events(cgroup, "pids.events"), "max");
    return events;
}

}  // namespace postern
