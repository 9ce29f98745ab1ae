// SPDX-License-Identifier: Apache-2.0
#include "launcher/seccomp_profile.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <sys/syscall.h>

namespace postern {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

SeccompConditions conditions(std::vector<std::string> capabilities = {}) {
    return SeccompConditions{std::move(capabilities), 6, 12};
}

std::string error_of(std::string_view json) {
    const auto profile = parse_seccomp_profile(json, conditions());
    return profile ? "" : profile.error().message;
}

std::vector<std::string> rule_names(std::string_view json, const SeccompConditions& where = conditions()) {
    const auto profile = parse_seccomp_profile(json, where);
    EXPECT_TRUE(profile) << (profile ? "" : profile.error().message);
    std::vector<std::string> names;
    if (profile) {
        for (const SeccompRule& rule : profile->rules) names.push_back(rule.name);
    }
    return names;
}

TEST(SeccompProfile, ReadsActionsErrnosAndArguments) {
    const auto profile = parse_seccomp_profile(R"({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
        "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X86"],
        "syscalls": [
          { "names": ["read"], "action": "SCMP_ACT_ALLOW" },
          { "name": "mount", "action": "SCMP_ACT_ERRNO", "errnoRet": 13 },
          { "names": ["umount2"], "action": "SCMP_ACT_ERRNO", "errno": "ENOENT" },
          { "names": ["chroot"], "action": "SCMP_ACT_ERRNO" },
          { "names": ["clone"], "action": "SCMP_ACT_ALLOW",
            "args": [ { "index": 0, "value": 2114060288, "valueTwo": 1, "op": "SCMP_CMP_MASKED_EQ" } ] } ] })",
                                               conditions());
    ASSERT_TRUE(profile) << profile.error().message;
    EXPECT_EQ(profile->default_action, (SeccompAction{SeccompAction::Kind::Errno, 38}));
    ASSERT_EQ(profile->rules.size(), 5U);
    EXPECT_EQ(profile->rules[0].number, SYS_read);
    EXPECT_EQ(profile->rules[0].action.kind, SeccompAction::Kind::Allow);
    EXPECT_EQ(profile->rules[1].action.value, 13);
    EXPECT_EQ(profile->rules[2].action.value, 2);
    EXPECT_EQ(profile->rules[3].action.value, 1)
        << "EPERM where nothing is said, as in the OCI specification";
    const SeccompArgument& argument = profile->rules[4].arguments.at(0);
    EXPECT_EQ(argument.op, SeccompArgument::Op::MaskedEqual);
    EXPECT_EQ(argument.value, 0x7E020000U);
    EXPECT_EQ(argument.value_two, 1U);
}

TEST(SeccompProfile, TakesNullForEmptyAsDockerWrites) {
    EXPECT_THAT(rule_names(R"({ "defaultAction": "SCMP_ACT_ERRNO", "architectures": null,
        "archMap": [ { "architecture": "SCMP_ARCH_X86_64", "subArchitectures": null } ],
        "syscalls": [ { "names": ["read"], "action": "SCMP_ACT_ALLOW", "args": null, "comment": "x",
                        "includes": {}, "excludes": { "caps": null } } ] })"),
                ElementsAre("read"));
}

TEST(SeccompProfile, EvaluatesIncludesAndExcludes) {
    constexpr std::string_view json = R"({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        { "names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": { "caps": ["CAP_SYS_ADMIN"] } },
        { "names": ["clone"], "action": "SCMP_ACT_ALLOW", "excludes": { "caps": ["CAP_SYS_ADMIN"] } },
        { "names": ["arch_prctl"], "action": "SCMP_ACT_ALLOW", "includes": { "arches": ["amd64", "x32"] } },
        { "names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": { "arches": ["s390"] } },
        { "names": ["write"], "action": "SCMP_ACT_ALLOW", "excludes": { "arches": ["amd64"] } },
        { "names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": { "minKernel": "4.8" } },
        { "names": ["bpf"], "action": "SCMP_ACT_ALLOW", "includes": { "minKernel": "6.13" } } ] })";
    EXPECT_THAT(rule_names(json), ElementsAre("clone", "arch_prctl", "ptrace"));
    EXPECT_THAT(rule_names(json, conditions({"CAP_SYS_ADMIN"})),
                ElementsAre("mount", "arch_prctl", "ptrace"));
}

TEST(SeccompProfile, SkipsUnknownNamesAndTellsThem) {
    const auto profile = parse_seccomp_profile(R"({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        { "names": ["read", "no_such_call", "chown32"], "action": "SCMP_ACT_ALLOW" } ] })",
                                               conditions());
    ASSERT_TRUE(profile);
    EXPECT_EQ(profile->rules.size(), 1U);
    EXPECT_THAT(profile->unknown_names, ElementsAre("no_such_call")) << "chown32 is one of other machines";
}

TEST(SeccompProfile, KnowsCallsThatLibseccompDoesNot) {
    EXPECT_EQ(system_call_number("mseal"), 462);
    EXPECT_EQ(system_call_number("listns"), 470);
    EXPECT_EQ(system_call_number("read"), SYS_read);
    EXPECT_EQ(system_call_number("chown32"), std::nullopt);
    EXPECT_EQ(system_call_number("nothing"), std::nullopt);
}

TEST(SeccompProfile, NamesThePlaceOfAMistake) {
    EXPECT_THAT(error_of("{"), HasSubstr("JSON syntax error at line 1, column 2"));
    // A number that no type holds is not a syntax error to the library.
    EXPECT_THAT(error_of(R"({ "defaultErrnoRet": 2E411 })"), HasSubstr("number overflow"));
    EXPECT_THAT(error_of(R"({ "flags": [], "flags": [] })"), HasSubstr("\"flags\" stands twice"));
    EXPECT_THAT(error_of("[]"), HasSubstr("top level: is not an object"));
    EXPECT_THAT(error_of("{}"), HasSubstr("defaultAction: is missing"));
    EXPECT_THAT(error_of(R"({ "defaultAction": "SCMP_ACT_ALOW" })"),
                HasSubstr("defaultAction: unknown action \"SCMP_ACT_ALOW\""));
    EXPECT_THAT(error_of(R"({ "defaultAction": "SCMP_ACT_NOTIFY" })"), HasSubstr("listener"));
    EXPECT_THAT(error_of(R"({ "defaultAction": "SCMP_ACT_ALLOW", "sysalls": [] })"),
                HasSubstr("unknown key \"sysalls\""));
    EXPECT_THAT(error_of(R"({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": {} })"),
                HasSubstr("syscalls: is not a list"));
    EXPECT_THAT(error_of(R"({ "defaultAction": "SCMP_ACT_ALLOW", "defaultErrnoRet": 5000 })"),
                HasSubstr("defaultErrnoRet: 5000 is above 4095"));
    EXPECT_THAT(error_of(R"({ "defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_ARM"] })"),
                HasSubstr("SCMP_ARCH_X86_64"));
    EXPECT_THAT(
        error_of(R"({ "defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_NEW_LISTENER"] })"),
        HasSubstr("flags[0]"));
    const auto with_rule = [](const std::string& rule) {
        return error_of(
            R"({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [ { "names": ["read"], "action": "SCMP_ACT_ALLOW" }, )" +
            rule + "] }");
    };
    EXPECT_THAT(with_rule(R"({ "action": "SCMP_ACT_ALLOW" })"),
                HasSubstr("syscalls[1]: names no system call"));
    EXPECT_THAT(with_rule(R"({ "names": ["read"] })"), HasSubstr("syscalls[1].action: is missing"));
    EXPECT_THAT(with_rule(R"({ "names": ["read", 3], "action": "SCMP_ACT_ALLOW" })"),
                HasSubstr("syscalls[1].names[1]: is not a string"));
    EXPECT_THAT(with_rule(R"({ "names": ["read"], "action": "SCMP_ACT_ERRNO", "errno": "ENOSUCH" })"),
                HasSubstr("syscalls[1].errno: \"ENOSUCH\""));
    EXPECT_THAT(
        with_rule(R"({ "names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": { "arch": ["amd64"] } })"),
        HasSubstr("syscalls[1].includes: unknown key \"arch\""));
    EXPECT_THAT(
        with_rule(R"({ "names": ["read"], "action": "SCMP_ACT_ALLOW", "includes": { "minKernel": "new" } })"),
        HasSubstr("syscalls[1].includes.minKernel"));
    const auto with_argument = [&](const std::string& argument) {
        return with_rule(R"({ "names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [ )" + argument + "] }");
    };
    EXPECT_THAT(with_argument(R"({ "index": 6, "value": 1, "op": "SCMP_CMP_EQ" })"),
                HasSubstr("syscalls[1].args[0].index: 6 is above 5"));
    EXPECT_THAT(with_argument(R"({ "index": 0, "value": 1, "op": "SCMP_CMP_IS" })"),
                HasSubstr("syscalls[1].args[0].op: unknown"));
    EXPECT_THAT(with_argument(R"({ "index": 0, "value": -1, "op": "SCMP_CMP_EQ" })"),
                HasSubstr("syscalls[1].args[0].value"));
    EXPECT_THAT(with_argument(R"({ "index": 0, "op": "SCMP_CMP_EQ" })"),
                HasSubstr("syscalls[1].args[0].value: is missing"));
    EXPECT_THAT(with_argument(R"({ "index": 0, "value": 1, "op": "SCMP_CMP_EQ" })"), IsEmpty());
}

}  // namespace
}  // namespace postern
