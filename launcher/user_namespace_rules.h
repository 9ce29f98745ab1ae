// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <string>

namespace postern {

/// The switches of this machine that keep ordinary users from user namespaces; empty where it has no such.
struct UserNamespaceRules {
    std::string unprivileged_clone;    ///< kernel.unprivileged_userns_clone (Debian's)
    std::string max_namespaces;        ///< user.max_user_namespaces
    std::string apparmor_restriction;  ///< kernel.apparmor_restrict_unprivileged_userns (Ubuntu's)
};

[[nodiscard]] UserNamespaceRules read_user_namespace_rules();

/// Which switch a launcher without privileges fails by, and what to do: "; …", to be put behind an error with
/// `errnum`. Empty where none of them is set against it. Pure.
[[nodiscard]] std::string user_namespace_hint(int errnum, const UserNamespaceRules& rules);

}  // namespace postern
