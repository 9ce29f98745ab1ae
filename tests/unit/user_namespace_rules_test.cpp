// SPDX-License-Identifier: Apache-2.0
#include "launcher/user_namespace_rules.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cerrno>

#include "launcher/launch_error.h"

namespace postern {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

TEST(UserNamespaceRules, NameTheSwitchThatIsSet) {
    EXPECT_THAT(user_namespace_hint(ENOSPC, {"", "0", ""}), HasSubstr("user.max_user_namespaces"));
    EXPECT_EQ(user_namespace_hint(ENOSPC, {"", "100", ""}), "");
    EXPECT_EQ(user_namespace_hint(EPERM, {"", "0", ""}), "") << "that one gives ENOSPC";
    EXPECT_THAT(user_namespace_hint(EPERM, {"0", "100", ""}), HasSubstr("kernel.unprivileged_userns_clone"));
    EXPECT_EQ(user_namespace_hint(EPERM, {"1", "100", ""}), "");
    for (const int errnum : {EPERM, EACCES}) {
        EXPECT_THAT(user_namespace_hint(errnum, {"1", "100", "1"}),
                    HasSubstr("kernel.apparmor_restrict_unprivileged_userns=0"));
        EXPECT_EQ(user_namespace_hint(errnum, {"1", "100", "0"}), "");
    }
    EXPECT_EQ(user_namespace_hint(EINVAL, {"0", "0", "1"}), "");
}

TEST(UserNamespaceRules, AreNamedWhereverTheyAreMet) {
    const UserNamespaceRules apparmor{"1", "100", "1"};
    EXPECT_THAT(explain_clone_error(EPERM, {}, -1, apparmor).error.message, HasSubstr("AppArmor"));
    EXPECT_THAT(explain_map_error(Error{"uid_map: Permission denied", EACCES}, apparmor).message,
                HasSubstr("AppArmor"));
    ChildReport report;
    report.step = ChildStep::CgroupNamespace;
    report.errnum = EPERM;
    ChildPlan plan;
    EXPECT_THAT(explain_report(report, plan, "true", apparmor).error.message, HasSubstr("AppArmor"));
    EXPECT_THAT(explain_report(report, plan, "true").error.message, Not(HasSubstr("AppArmor")));
    plan.namespaces.user = false;
    EXPECT_THAT(explain_report(report, plan, "true", apparmor).error.message, Not(HasSubstr("AppArmor")))
        << "no user namespace is at fault where none is made";
}

}  // namespace
}  // namespace postern
