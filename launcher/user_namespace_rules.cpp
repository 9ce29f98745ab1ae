// SPDX-License-Identifier: Apache-2.0
#include "launcher/user_namespace_rules.h"

#include <cerrno>

#include "broker-core/file.h"

namespace postern {
namespace {

/// Empty where this kernel has no such rule.
std::string first_line(const char* path) {
    const auto text = read_file(path, 4096);
    return text ? text->substr(0, text->find('\n')) : "";
}

}  // namespace

UserNamespaceRules read_user_namespace_rules() {
    return {first_line("/proc/sys/kernel/unprivileged_userns_clone"),
            first_line("/proc/sys/user/max_user_namespaces"),
            first_line("/proc/sys/kernel/apparmor_restrict_unprivileged_userns")};
}

std::string user_namespace_hint(int errnum, const UserNamespaceRules& rules) {
    if ((errnum == ENOSPC || errnum == EUSERS) && rules.max_namespaces == "0")
        return "; user namespaces are switched off: sysctl user.max_user_namespaces=10000";
    if (errnum == EPERM && rules.unprivileged_clone == "0")
        return "; user namespaces are for root only here: sysctl kernel.unprivileged_userns_clone=1";
    // The namespace itself may be had, but AppArmor takes all capabilities in it away: what fails is the
    // first step that needs one.
    if ((errnum == EPERM || errnum == EACCES) && rules.apparmor_restriction == "1") {
        return "; AppArmor keeps programs without a profile of their own from using user namespaces here: "
               "sysctl kernel.apparmor_restrict_unprivileged_userns=0, or a profile in /etc/apparmor.d for "
               "postern's path with the rule \"userns,\"";
    }
    return "";
}

}  // namespace postern
