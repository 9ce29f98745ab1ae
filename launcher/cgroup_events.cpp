// SPDX-License-Identifier: Apache-2.0
#include "launcher/cgroup_events.h"

#include <fcntl.h>
#include <unistd.h>

#include <sstream>
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
    std::istringstream lines(text);
    std::string key;
    for (std::uint64_t value = 0; lines >> key >> value;) {
        if (key == wanted) return value;
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
