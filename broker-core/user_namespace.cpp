// SPDX-License-Identifier: Apache-2.0
#include "broker-core/user_namespace.h"

#include <sys/stat.h>
#include <unistd.h>

namespace postern {

bool is_machines_root() {
    // That of the first user namespace on every boot: PROC_USER_INIT_INO in the kernel's linux/proc_ns.h,
    // USER_NS_INIT_INO in linux/nsfs.h since it is promised to user space.
    constexpr ino_t kFirst = 0xEFFFFFFDU;
    struct stat found {};
    return ::geteuid() == 0 && ::stat("/proc/self/ns/user", &found) == 0 && found.st_ino == kFirst;
}

Status refuse_root_of_a_namespace() {
    if (::geteuid() != 0 || is_machines_root()) return {};
    return fail(
        "this is a container of an ordinary user, whose root is not the machine's (podman without root): it "
        "gets no slice; start it as root");
}

}  // namespace postern
