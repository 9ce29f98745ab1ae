// SPDX-License-Identifier: Apache-2.0
#include "launcher/seccomp_filter.h"

#include <linux/audit.h>
#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstddef>
#include <map>
#include <memory>

#include "broker-core/unique_fd.h"

namespace postern {
namespace {

using Context = std::unique_ptr<void, decltype(&::seccomp_release)>;
using Program = std::vector<sock_filter>;

/// Numbers of the x32 ABI have this bit; what libseccomp's own check behind the prefix kills.
constexpr std::uint32_t kX32Bit = 0x40000000;
/// Stands for "go on with the main program" in the program of specific rules; no profile can ask for it, its
/// TRACE values being errnos.
constexpr std::uint32_t kMarkerAction = SECCOMP_RET_TRACE | 0xfffe;

std::uint32_t scmp_action(const SeccompAction& action) {
    switch (action.kind) {
        case SeccompAction::Kind::Allow:
            return SCMP_ACT_ALLOW;
        case SeccompAction::Kind::Log:
            return SCMP_ACT_LOG;
        case SeccompAction::Kind::Errno:
            return SCMP_ACT_ERRNO(action.value);
        case SeccompAction::Kind::Trace:
            return SCMP_ACT_TRACE(action.value);
        case SeccompAction::Kind::Trap:
            return SCMP_ACT_TRAP;
        case SeccompAction::Kind::KillThread:
            return SCMP_ACT_KILL_THREAD;
        case SeccompAction::Kind::KillProcess:
            break;
    }
    return SCMP_ACT_KILL_PROCESS;
}

scmp_arg_cmp scmp_comparison(const SeccompArgument& argument) {
    scmp_arg_cmp comparison = {};
    comparison.arg = argument.index;
    comparison.datum_a = argument.value;
    switch (argument.op) {
        case SeccompArgument::Op::NotEqual:
            comparison.op = SCMP_CMP_NE;
            break;
        case SeccompArgument::Op::Less:
            comparison.op = SCMP_CMP_LT;
            break;
        case SeccompArgument::Op::LessEqual:
            comparison.op = SCMP_CMP_LE;
            break;
        case SeccompArgument::Op::Equal:
            comparison.op = SCMP_CMP_EQ;
            break;
        case SeccompArgument::Op::GreaterEqual:
            comparison.op = SCMP_CMP_GE;
            break;
        case SeccompArgument::Op::Greater:
            comparison.op = SCMP_CMP_GT;
            break;
        case SeccompArgument::Op::MaskedEqual:
            comparison.op = SCMP_CMP_MASKED_EQ;
            comparison.datum_b = argument.value_two;
            break;
    }
    return comparison;
}

Status seccomp_error(int result, std::string_view what) {
    if (result == 0) return {};
    return fail_errno(-result, "seccomp: {}", what);
}

Result<Context> make_context(std::uint32_t default_action) {
    Context context(::seccomp_init(default_action), &::seccomp_release);
    if (!context) return fail("seccomp: seccomp_init has no memory");
    // 32-bit and x32 calls end the process: their numbers mean other calls than the ones allowed here.
    POSTERN_TRY(
        seccomp_error(::seccomp_attr_set(context.get(), SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS),
                      "bad-arch action"));
    // 2 is the binary tree.
    POSTERN_TRY(
        seccomp_error(::seccomp_attr_set(context.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2), "optimization"));
    return context;
}

Status add_comparisons(void* context, const SeccompRule& rule, const std::vector<scmp_arg_cmp>& comparisons) {
    const int result =
        ::seccomp_rule_add_array(context, scmp_action(rule.action), rule.number,
                                 static_cast<unsigned>(comparisons.size()), comparisons.data());
    // The same rule twice is no mistake: profiles name calls in more than one group.
    return result == -EEXIST ? Status{} : seccomp_error(result, fmt::format("rule for {}", rule.name));
}

/// libseccomp takes one comparison an argument. As runc does, a rule that compares one argument several times
/// stands for as many rules of one comparison each.
Status add_rule(void* context, const SeccompRule& rule) {
    std::array<int, 6> uses = {};
    std::vector<scmp_arg_cmp> comparisons;
    for (const SeccompArgument& argument : rule.arguments) {
        ++uses[argument.index];
        comparisons.push_back(scmp_comparison(argument));
    }
    if (*std::max_element(uses.begin(), uses.end()) <= 1) return add_comparisons(context, rule, comparisons);
    for (const scmp_arg_cmp& comparison : comparisons)
        POSTERN_TRY(add_comparisons(context, rule, {comparison}));
    return {};
}

Result<Program> export_program(void* context) {
    const UniqueFd file(::memfd_create("seccomp", MFD_CLOEXEC));
    if (!file) {
        const int errnum = errno;
        return fail_errno(errnum, "seccomp: memfd_create");
    }
    POSTERN_TRY(seccomp_error(::seccomp_export_bpf(context, file.get()), "compiling the filter"));
    struct stat status = {};
    if (::fstat(file.get(), &status) != 0 || status.st_size % static_cast<off_t>(sizeof(sock_filter)) != 0) {
        return fail("seccomp: the compiled filter has no sensible size");
    }
    Program program(static_cast<std::size_t>(status.st_size) / sizeof(sock_filter));
    if (::pread(file.get(), program.data(), program.size() * sizeof(sock_filter), 0) != status.st_size) {
        return fail("seccomp: the compiled filter cannot be read back");
    }
    return program;
}

/// Rules with comparisons for a call that also has a rule without. libseccomp drops the former silently; here
/// the specific rule is asked first.
std::vector<bool> find_overriding(const std::vector<SeccompRule>& rules) {
    std::map<int, SeccompAction> unconditional;
    for (const SeccompRule& rule : rules) {
        if (rule.arguments.empty()) unconditional.emplace(rule.number, rule.action);
    }
    std::vector<bool> overriding;
    for (const SeccompRule& rule : rules) {
        const auto found = unconditional.find(rule.number);
        overriding.push_back(!rule.arguments.empty() && found != unconditional.end() &&
                             found->second != rule.action);
    }
    return overriding;
}

/// The program of those rules, with every "none of them" turned into a jump to what follows.
Result<Program> compile_overriding(const std::vector<SeccompRule>& rules,
                                   const std::vector<bool>& overriding) {
    POSTERN_ASSIGN(const Context context, make_context(SCMP_ACT_TRACE(kMarkerAction & SECCOMP_RET_DATA)));
    for (std::size_t i = 0; i < rules.size(); ++i) {
        if (overriding[i]) POSTERN_TRY(add_rule(context.get(), rules[i]));
    }
    POSTERN_ASSIGN(Program program, export_program(context.get()));
    for (std::size_t i = 0; i < program.size(); ++i) {
        if (program[i].code != (BPF_RET | BPF_K) || program[i].k != kMarkerAction) continue;
        const auto to_end = static_cast<std::uint32_t>(program.size() - i - 1);
        program[i] = BPF_STMT(BPF_JMP | BPF_JA, to_end);
    }
    return program;
}

/// ENOSYS for calls that are newer than the profile.
Program newer_calls_prefix(int newest) {
    return {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, arch)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 0, 4),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JGE | BPF_K, kX32Bit, 2, 0),
        BPF_JUMP(BPF_JMP | BPF_JGT | BPF_K, static_cast<std::uint32_t>(newest), 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
    };
}

bool refuses(const SeccompAction& action) {
    return action.kind != SeccompAction::Kind::Allow && action.kind != SeccompAction::Kind::Log &&
           action.kind != SeccompAction::Kind::Trace;
}

}  // namespace

Result<std::vector<sock_filter>> compile_seccomp_filter(const SeccompProfile& profile) {
    const std::vector<bool> overriding = find_overriding(profile.rules);
    POSTERN_ASSIGN(const Context context, make_context(scmp_action(profile.default_action)));
    for (std::size_t i = 0; i < profile.rules.size(); ++i) {
        // libseccomp refuses a rule that does what the default does.
        if (overriding[i] || profile.rules[i].action == profile.default_action) continue;
        POSTERN_TRY(add_rule(context.get(), profile.rules[i]));
    }
    Program program;
    const SeccompAction enosys{SeccompAction::Kind::Errno, ENOSYS};
    if (refuses(profile.default_action) && profile.default_action != enosys && profile.newest_number >= 0) {
        program = newer_calls_prefix(profile.newest_number);
    }
    if (std::find(overriding.begin(), overriding.end(), true) != overriding.end()) {
        POSTERN_ASSIGN(const Program specific, compile_overriding(profile.rules, overriding));
        program.insert(program.end(), specific.begin(), specific.end());
    }
    POSTERN_ASSIGN(const Program main, export_program(context.get()));
    program.insert(program.end(), main.begin(), main.end());
    if (program.size() > BPF_MAXINSNS) {
        return fail(
            "seccomp: the filter has {} instructions, more than the kernel takes ({}); use fewer rules",
            program.size(), BPF_MAXINSNS);
    }
    return program;
}

}  // namespace postern
