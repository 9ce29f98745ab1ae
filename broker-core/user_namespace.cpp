// SPDX-License-Identifier: Apache-2.0
#include "broker-core/user_namespace.h"

#include <unistd.h>

#include <cstdint>
#include <sstream>

#include "broker-core/file.h"

namespace postern {

bool is_machines_root() {
    if (::geteuid() != 0) return false;
    constexpr size_t kMostOfMap = 1 << 16;
    const auto map = read_file("/proc/self/uid_map", kMostOfMap);
    // The first user namespace has all numbers but the last, as they are (user_namespaces(7)).
    std::istringstream numbers(map ? *map : "");
    int64_t inside = -1;
    int64_t outside = -1;
    int64_t count = -1;
    numbers >> inside >> outside >> count;
    return inside == 0 && outside == 0 && count == UINT32_MAX;
}

Status refuse_root_of_a_namespace() {
    if (::geteuid() != 0 || is_machines_root()) return {};
    return fail(
        "this is a container of an ordinary user, whose root is not the machine's (podman without root): it "
        "gets no slice; start it as root");
}

}  // namespace postern
