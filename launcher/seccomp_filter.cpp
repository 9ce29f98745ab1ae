// SPDX-License-Identifier: Apache-2.0
#include "launcher/seccomp_filter.h"

#include <linux/seccomp.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <map>
#include <memory>
#include <optional>

#include "broker-core/unique_fd.h"
#include "launcher/seccomp_tree.h"

namespace postern {
namespace {

using Context = std::unique_ptr<void, decltype(&::seccomp_release)>;
using Program = std::vector<sock_filter>;

/// Numbers of the x32 ABI have this bit.
constexpr std::uint32_t kX32Bit = 0x40000000;
constexpr std::uint32_t kSkippedCall = ~0U;

// libseccomp's words for what the kernel is told are the kernel's.
static_assert(SCMP_ACT_ALLOW == SECCOMP_RET_ALLOW && SCMP_ACT_LOG == SECCOMP_RET_LOG &&
              SCMP_ACT_ERRNO(7) == (SECCOMP_RET_ERRNO | 7) && SCMP_ACT_TRACE(7) == (SECCOMP_RET_TRACE | 7) &&
              SCMP_ACT_TRAP == SECCOMP_RET_TRAP && SCMP_ACT_KILL_THREAD == SECCOMP_RET_KILL_THREAD &&
              SCMP_ACT_KILL_PROCESS == SECCOMP_RET_KILL_PROCESS);

std::uint32_t verdict_of(const SeccompAction& action) {
    switch (action.kind) {
        case SeccompAction::Kind::Allow:
            return SECCOMP_RET_ALLOW;
        case SeccompAction::Kind::Log:
            return SECCOMP_RET_LOG;
        case SeccompAction::Kind::Errno:
            return SECCOMP_RET_ERRNO | action.value;
        case SeccompAction::Kind::Trace:
            return SECCOMP_RET_TRACE | action.value;
        case SeccompAction::Kind::Trap:
            return SECCOMP_RET_TRAP;
        case SeccompAction::Kind::KillThread:
            return SECCOMP_RET_KILL_THREAD;
        case SeccompAction::Kind::KillProcess:
            break;
    }
    return SECCOMP_RET_KILL_PROCESS;
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
        ::seccomp_rule_add_array(context, verdict_of(rule.action), rule.number,
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

bool refuses(const SeccompAction& action) {
    return action.kind != SeccompAction::Kind::Allow && action.kind != SeccompAction::Kind::Log &&
           action.kind != SeccompAction::Kind::Trace;
}

/// What a profile says of one call.
struct CallRules {
    std::optional<SeccompAction> general;
    std::vector<const SeccompRule*> specific;  ///< those that compare arguments
};

std::map<int, CallRules> rules_by_call(const std::vector<SeccompRule>& rules) {
    std::map<int, CallRules> calls;
    for (const SeccompRule& rule : rules) {
        CallRules& call = calls[rule.number];
        if (!rule.arguments.empty()) {
            call.specific.push_back(&rule);
        } else if (!call.general) {
            call.general = rule.action;
        }
    }
    return calls;
}

/// The program of one call whose arguments count; empty if they do not after all. The specific rules are
/// asked first, where libseccomp would drop them silently beside a general one.
Result<Program> compile_specific(const CallRules& call, const SeccompAction& otherwise) {
    POSTERN_ASSIGN(const Context context, make_context(verdict_of(otherwise)));
    bool has_one = false;
    for (const SeccompRule* rule : call.specific) {
        // libseccomp refuses a rule that does what the default does.
        if (rule->action == otherwise) continue;
        POSTERN_TRY(add_rule(context.get(), *rule));
        has_one = true;
    }
    if (!has_one) return Program{};
    return export_program(context.get());
}

/// Calls that are newer than the profile do not exist for it, so that programs fall back.
SeccompAction action_of_newer(const SeccompProfile& profile) {
    if (!refuses(profile.default_action) || profile.newest_number < 0) return profile.default_action;
    return {SeccompAction::Kind::Errno, ENOSYS};
}

}  // namespace

Result<std::vector<sock_filter>> compile_seccomp_filter(const SeccompProfile& profile) {
    // By the first call of each. One that begins where another did takes its place.
    std::map<std::uint32_t, CallRange> ranges;
    const auto begin = [&](std::uint32_t first, const SeccompAction& action) -> CallRange& {
        return ranges[first] = {first, verdict_of(action), -1};
    };
    begin(0, profile.default_action);
    std::vector<Program> programs;
    for (const auto& [number, call] : rules_by_call(profile.rules)) {
        const SeccompAction action = call.general.value_or(profile.default_action);
        const auto first = static_cast<std::uint32_t>(number);
        POSTERN_ASSIGN(Program specific, compile_specific(call, action));
        CallRange& range = begin(first, action);
        if (!specific.empty()) {
            range.program = static_cast<int>(programs.size());
            programs.push_back(std::move(specific));
        }
        begin(first + 1, profile.default_action);
    }
    begin(static_cast<std::uint32_t>(profile.newest_number + 1), action_of_newer(profile));
    // Their numbers mean other calls than the ones allowed here.
    begin(kX32Bit, {SeccompAction::Kind::KillProcess});
    // What a tracer has made of a call that is to be skipped.
    begin(kSkippedCall, profile.default_action);
    std::vector<CallRange> ascending;
    ascending.reserve(ranges.size());
    for (const auto& [first, range] : ranges) ascending.push_back(range);
    Program program = make_call_tree(ascending, programs);
    if (program.size() > BPF_MAXINSNS) {
        return fail(
            "seccomp: the filter has {} instructions, more than the kernel takes ({}); use fewer rules",
            program.size(), BPF_MAXINSNS);
    }
    return program;
}

}  // namespace postern
