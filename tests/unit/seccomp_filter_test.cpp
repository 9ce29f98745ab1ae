// SPDX-License-Identifier: Apache-2.0
#include "launcher/seccomp_filter.h"

#include <fmt/format.h>
#include <gmock/gmock.h>
#include <gtest/gtest-spi.h>
#include <gtest/gtest.h>
#include <linux/audit.h>
#include <sys/socket.h>
#include <sys/syscall.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <filesystem>
#include <fstream>
#include <random>
#include <sstream>

#include "tests/unit/bpf_interpreter.h"

namespace postern {
namespace {

constexpr std::uint32_t kAllow = SECCOMP_RET_ALLOW;
constexpr std::uint32_t refused(int errnum) {
    return SECCOMP_RET_ERRNO | static_cast<std::uint32_t>(errnum);
}

std::string read_text(const std::filesystem::path& path) {
    std::ifstream file(path);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

std::vector<sock_filter> compile(const std::string& json) {
    const auto profile = parse_seccomp_profile(json, SeccompConditions{{}, 6, 12});
    EXPECT_TRUE(profile) << (profile ? "" : profile.error().message);
    if (!profile) return {};
    auto program = compile_seccomp_filter(*profile);
    EXPECT_TRUE(program) << (program ? "" : program.error().message);
    return program ? *program : std::vector<sock_filter>{};
}

std::uint32_t verdict(const std::vector<sock_filter>& program, long number,
                      std::initializer_list<std::uint64_t> arguments = {},
                      std::uint32_t arch = AUDIT_ARCH_X86_64) {
    seccomp_data data = {};
    data.nr = static_cast<int>(number);
    data.arch = arch;
    std::copy(arguments.begin(), arguments.end(), data.args);
    return run_bpf(program, data);
}

TEST(SeccompFilter, AllowsWhatIsNamedAndRefusesTheRest) {
    const auto program = compile(R"({ "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38, "syscalls": [
        { "names": ["read", "write", "mseal"], "action": "SCMP_ACT_ALLOW" },
        { "names": ["mount"], "action": "SCMP_ACT_ERRNO", "errnoRet": 1 },
        { "names": ["reboot"], "action": "SCMP_ACT_KILL_PROCESS" },
        { "names": ["kcmp"], "action": "SCMP_ACT_KILL" },
        { "names": ["acct"], "action": "SCMP_ACT_TRAP" },
        { "names": ["sync"], "action": "SCMP_ACT_LOG" } ] })");
    EXPECT_EQ(verdict(program, SYS_read), kAllow);
    EXPECT_EQ(verdict(program, 462), kAllow);
    EXPECT_EQ(verdict(program, SYS_mount), refused(EPERM));
    EXPECT_EQ(verdict(program, SYS_open), refused(ENOSYS));
    EXPECT_EQ(verdict(program, 100000), refused(ENOSYS));
    EXPECT_EQ(verdict(program, SYS_reboot), SECCOMP_RET_KILL_PROCESS);
    EXPECT_EQ(verdict(program, SYS_kcmp), SECCOMP_RET_KILL_THREAD);
    EXPECT_EQ(verdict(program, SYS_acct), SECCOMP_RET_TRAP);
    EXPECT_EQ(verdict(program, SYS_sync), SECCOMP_RET_LOG);
}

TEST(SeccompFilter, KillsOtherAbis) {
    const auto program = compile(R"({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        { "names": ["read"], "action": "SCMP_ACT_ALLOW" } ] })");
    EXPECT_EQ(verdict(program, SYS_read), kAllow);
    EXPECT_EQ(verdict(program, SYS_read, {}, AUDIT_ARCH_I386), SECCOMP_RET_KILL_PROCESS);
    EXPECT_EQ(verdict(program, SYS_read | 0x40000000), SECCOMP_RET_KILL_PROCESS);
    EXPECT_EQ(verdict(program, 500 | 0x40000000), SECCOMP_RET_KILL_PROCESS)
        << "and is not taken for a newer call";
}

TEST(SeccompFilter, NewerCallsThanTheProfileKnowsGetEnosys) {
    const auto program = compile(R"({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
        { "names": ["read", "openat2"], "action": "SCMP_ACT_ALLOW" } ] })");
    EXPECT_EQ(verdict(program, SYS_openat2), kAllow);
    EXPECT_EQ(verdict(program, SYS_ptrace), refused(EPERM))
        << "older than the newest named: the author meant it";
    EXPECT_EQ(verdict(program, SYS_openat2 + 1), refused(ENOSYS));
    const auto killing = compile(R"({ "defaultAction": "SCMP_ACT_KILL_PROCESS", "syscalls": [
        { "names": ["read"], "action": "SCMP_ACT_ALLOW" } ] })");
    EXPECT_EQ(verdict(killing, SYS_read + 1), refused(ENOSYS));
    const auto allowing = compile(R"({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        { "names": ["mount"], "action": "SCMP_ACT_ERRNO" } ] })");
    EXPECT_EQ(verdict(allowing, 500), kAllow);
}

struct Comparison {
    const char* op;
    std::uint64_t value;
    std::uint64_t two;
    std::uint64_t fits;
    std::uint64_t differs;
};

class SeccompComparison : public ::testing::TestWithParam<Comparison> {};

TEST_P(SeccompComparison, LooksAtAll64Bits) {
    const Comparison& each = GetParam();
    std::ostringstream json;
    json
        << R"({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [ { "names": ["read"], "action": "SCMP_ACT_ALLOW", "args": [ )"
        << "{ \"index\": 2, \"value\": " << each.value << ", \"valueTwo\": " << each.two << ", \"op\": \""
        << each.op << "\" } ] } ] }";
    const auto program = compile(json.str());
    EXPECT_EQ(verdict(program, SYS_read, {0, 0, each.fits}), kAllow);
    EXPECT_EQ(verdict(program, SYS_read, {0, 0, each.differs}), refused(EPERM));
}

INSTANTIATE_TEST_SUITE_P(
    All, SeccompComparison,
    ::testing::Values(Comparison{"SCMP_CMP_EQ", 5, 0, 5, 0x100000005},
                      Comparison{"SCMP_CMP_NE", 5, 0, 0x100000005, 5},
                      Comparison{"SCMP_CMP_LT", 0x100000000, 0, 0xffffffff, 0x100000000},
                      Comparison{"SCMP_CMP_LE", 0x100000000, 0, 0x100000000, 0x100000001},
                      Comparison{"SCMP_CMP_GE", 0x100000000, 0, 0x100000000, 0xffffffff},
                      Comparison{"SCMP_CMP_GT", 0x100000000, 0, 0x100000001, 0x100000000},
                      Comparison{"SCMP_CMP_MASKED_EQ", 0xffff0000, 0x10000, 0x700010002, 0x20002}));

TEST(SeccompFilter, AnArgumentComparedTwiceMeansEither) {
    const auto program = compile(
        R"({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [ { "names": ["read"], "action": "SCMP_ACT_ALLOW",
        "args": [ { "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }, { "index": 0, "value": 2, "op": "SCMP_CMP_EQ" } ] } ] })");
    EXPECT_EQ(verdict(program, SYS_read, {1}), kAllow);
    EXPECT_EQ(verdict(program, SYS_read, {2}), kAllow);
    EXPECT_EQ(verdict(program, SYS_read, {3}), refused(EPERM));
}

TEST(SeccompFilter, DifferentArgumentsMeanBoth) {
    const auto program = compile(
        R"({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [ { "names": ["read"], "action": "SCMP_ACT_ALLOW",
        "args": [ { "index": 0, "value": 1, "op": "SCMP_CMP_EQ" }, { "index": 1, "value": 2, "op": "SCMP_CMP_EQ" } ] } ] })");
    EXPECT_EQ(verdict(program, SYS_read, {1, 2}), kAllow);
    EXPECT_EQ(verdict(program, SYS_read, {1, 3}), refused(EPERM));
    EXPECT_EQ(verdict(program, SYS_read, {3, 2}), refused(EPERM));
}

TEST(SeccompFilter, TheSpecificRuleWinsOverTheGeneral) {
    for (const bool general_first : {true, false}) {
        const std::string general = R"({ "names": ["ioctl"], "action": "SCMP_ACT_ALLOW" })";
        const std::string specific = R"({ "names": ["ioctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13,
            "args": [ { "index": 1, "value": 4294967295, "valueTwo": 21522, "op": "SCMP_CMP_MASKED_EQ" } ] })";
        const auto program = compile(R"({ "defaultAction": "SCMP_ACT_ERRNO", "syscalls": [ )" +
                                     (general_first ? general + "," + specific : specific + "," + general) +
                                     R"(, { "names": ["read"], "action": "SCMP_ACT_ALLOW" } ] })");
        EXPECT_EQ(verdict(program, SYS_ioctl, {0, 0x5412}), refused(EACCES));
        EXPECT_EQ(verdict(program, SYS_ioctl, {0, 0xdead00005412}), refused(EACCES));
        EXPECT_EQ(verdict(program, SYS_ioctl, {0, 0x5413}), kAllow);
        EXPECT_EQ(verdict(program, SYS_read), kAllow);
        EXPECT_EQ(verdict(program, SYS_open), refused(EPERM));
        EXPECT_EQ(verdict(program, SYS_ioctl, {0, 0x5413}, AUDIT_ARCH_I386), SECCOMP_RET_KILL_PROCESS);
    }
}

class DefaultProfile : public ::testing::Test {
  protected:
    static void SetUpTestSuite() {
        const auto root = std::filesystem::path(__FILE__).parent_path().parent_path().parent_path();
        program_ = compile(read_text(root / "profiles/seccomp/default.json"));
    }
    static std::vector<sock_filter> program_;
};
std::vector<sock_filter> DefaultProfile::program_;

TEST_F(DefaultProfile, AllowsOrdinaryPrograms) {
    for (const long number :
         {SYS_read,           SYS_write,        SYS_openat,       SYS_mmap,       SYS_mprotect,
          SYS_execve,         SYS_futex,        SYS_epoll_wait,   SYS_eventfd2,   SYS_signalfd4,
          SYS_timerfd_create, SYS_memfd_create, SYS_rt_sigreturn, SYS_exit_group, SYS_getrandom,
          SYS_rseq,           SYS_statx,        SYS_wait4,        SYS_pread64,    462 /* mseal */}) {
        EXPECT_EQ(verdict(program_, number), kAllow) << number;
    }
    constexpr std::uint64_t thread = 0x3d0f00;  // what glibc's pthread_create passes
    EXPECT_EQ(verdict(program_, SYS_clone, {thread}), kAllow);
    EXPECT_EQ(verdict(program_, SYS_clone, {17}), kAllow) << "fork";
    EXPECT_EQ(verdict(program_, SYS_socket, {AF_UNIX}), kAllow);
    EXPECT_EQ(verdict(program_, SYS_socket, {AF_INET}), kAllow);
}

TEST_F(DefaultProfile, AllowsSealedArgumentBlocks) {
    // What postern_ioctl() of client/postern.h does.
    EXPECT_EQ(verdict(program_, SYS_memfd_create, {0, 0xb}), kAllow);
    EXPECT_EQ(verdict(program_, SYS_ftruncate, {3, 4096}), kAllow);
    EXPECT_EQ(verdict(program_, SYS_pwrite64), kAllow);
    EXPECT_EQ(verdict(program_, SYS_fcntl, {3, 1033 /* F_ADD_SEALS */, 0xf}), kAllow);
    EXPECT_EQ(verdict(program_, SYS_mmap, {0, 4096, 1, 0x8001, 3, 0}), kAllow);
    EXPECT_EQ(verdict(program_, 462 /* mseal */, {0, 4096, 0}), kAllow);
    EXPECT_EQ(verdict(program_, SYS_sched_yield), kAllow);
    for (const std::uint64_t command : {0x3b6eULL, 0xf950ULL}) {  // VFIO_DEVICE_SET_IRQS, giving up rights
        EXPECT_EQ(verdict(program_, SYS_ioctl, {3, command}), kAllow) << command;
    }
}

TEST_F(DefaultProfile, RefusesWhatIsKnownAndDangerous) {
    for (const int number : {SYS_bpf,
                             SYS_perf_event_open,
                             SYS_mount,
                             SYS_umount2,
                             SYS_fsopen,
                             SYS_move_mount,
                             SYS_open_tree,
                             SYS_mount_setattr,
                             SYS_pivot_root,
                             SYS_chroot,
                             SYS_setns,
                             SYS_unshare,
                             SYS_ptrace,
                             SYS_process_vm_readv,
                             SYS_process_vm_writev,
                             SYS_kcmp,
                             SYS_pidfd_getfd,
                             SYS_keyctl,
                             SYS_add_key,
                             SYS_request_key,
                             SYS_io_uring_setup,
                             SYS_io_uring_enter,
                             SYS_userfaultfd,
                             SYS_kexec_load,
                             SYS_init_module,
                             SYS_finit_module,
                             SYS_swapon,
                             SYS_reboot,
                             SYS_open_by_handle_at,
                             SYS_name_to_handle_at,
                             SYS_quotactl,
                             SYS_acct,
                             SYS_clock_settime,
                             SYS_remap_file_pages,
                             467 /* open_tree_attr */}) {
        EXPECT_EQ(verdict(program_, number), refused(EPERM)) << number;
    }
    for (int bit : {17, 25, 26, 27, 28, 29, 30}) {
        EXPECT_EQ(verdict(program_, SYS_clone, {17 | std::uint64_t{1} << bit}), refused(EPERM)) << bit;
    }
    EXPECT_EQ(verdict(program_, SYS_clone, {0x7E020000}), refused(EPERM));
    EXPECT_EQ(verdict(program_, SYS_clone3), refused(ENOSYS)) << "so that C libraries use clone";
    EXPECT_EQ(verdict(program_, SYS_ioctl, {0, 0x5412}), refused(EPERM)) << "TIOCSTI";
    EXPECT_EQ(verdict(program_, SYS_ioctl, {0, 0xffffffff0000541c}), refused(EPERM))
        << "TIOCLINUX, high bits set";
    EXPECT_EQ(verdict(program_, SYS_ioctl, {0, 0x5413}), kAllow) << "TIOCGWINSZ";
    EXPECT_EQ(verdict(program_, SYS_socket, {AF_VSOCK}), refused(EAFNOSUPPORT));
    EXPECT_EQ(verdict(program_, SYS_socket, {AF_ALG}), refused(EAFNOSUPPORT));
    EXPECT_EQ(verdict(program_, SYS_personality, {0xffffffff}), kAllow);
    EXPECT_EQ(verdict(program_, SYS_personality, {0x0400000}), refused(ENOSYS)) << "READ_IMPLIES_EXEC";
}

TEST_F(DefaultProfile, UnknownCallsDoNotExist) {
    EXPECT_EQ(verdict(program_, 471), refused(ENOSYS));
    EXPECT_EQ(verdict(program_, 5000), refused(ENOSYS));
    EXPECT_EQ(verdict(program_, SYS_read | 0x40000000), SECCOMP_RET_KILL_PROCESS);
    EXPECT_EQ(verdict(program_, 3, {}, AUDIT_ARCH_I386), SECCOMP_RET_KILL_PROCESS);
}

/// What a profile says, read from it call by call: the model that filters are compared with.
class Model {
  public:
    explicit Model(SeccompProfile profile) : profile_(std::move(profile)) {}

    [[nodiscard]] std::uint32_t verdict(const seccomp_data& data) const {
        const auto number = static_cast<std::uint32_t>(data.nr);
        if (data.arch != AUDIT_ARCH_X86_64) return SECCOMP_RET_KILL_PROCESS;
        if (number >= 0x40000000 && data.nr != -1) return SECCOMP_RET_KILL_PROCESS;
        if (data.nr > profile_.newest_number && profile_.newest_number >= 0 &&
            profile_.default_action.kind != SeccompAction::Kind::Allow &&
            profile_.default_action.kind != SeccompAction::Kind::Log &&
            profile_.default_action.kind != SeccompAction::Kind::Trace)
            return refused(ENOSYS);
        const SeccompRule* general = nullptr;
        for (const SeccompRule& rule : profile_.rules) {
            if (rule.number == data.nr && rule.arguments.empty() && general == nullptr) general = &rule;
        }
        const SeccompAction& otherwise = general != nullptr ? general->action : profile_.default_action;
        for (const SeccompRule& rule : profile_.rules) {
            if (rule.number == data.nr && !rule.arguments.empty() && rule.action != otherwise &&
                fits(rule, data))
                return word(rule.action);
        }
        return word(otherwise);
    }

    [[nodiscard]] const SeccompProfile& profile() const { return profile_; }

  private:
    static std::uint32_t word(const SeccompAction& action) {
        switch (action.kind) {
            case SeccompAction::Kind::Allow:
                return kAllow;
            case SeccompAction::Kind::Log:
                return SECCOMP_RET_LOG;
            case SeccompAction::Kind::Errno:
                return refused(action.value);
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

    static bool compares(const SeccompArgument& argument, std::uint64_t value) {
        switch (argument.op) {
            case SeccompArgument::Op::NotEqual:
                return value != argument.value;
            case SeccompArgument::Op::Less:
                return value < argument.value;
            case SeccompArgument::Op::LessEqual:
                return value <= argument.value;
            case SeccompArgument::Op::Equal:
                return value == argument.value;
            case SeccompArgument::Op::GreaterEqual:
                return value >= argument.value;
            case SeccompArgument::Op::Greater:
                return value > argument.value;
            case SeccompArgument::Op::MaskedEqual:
                break;
        }
        return (value & argument.value) == argument.value_two;
    }

    /// Comparisons of one argument are alternatives, as runc has it, if any argument is compared twice.
    static bool fits(const SeccompRule& rule, const seccomp_data& data) {
        std::array<int, 6> uses = {};
        for (const SeccompArgument& argument : rule.arguments) ++uses[argument.index];
        const bool either = std::any_of(uses.begin(), uses.end(), [](int count) { return count > 1; });
        const auto one = [&](const SeccompArgument& argument) {
            return compares(argument, data.args[argument.index]);
        };
        return either ? std::any_of(rule.arguments.begin(), rule.arguments.end(), one)
                      : std::all_of(rule.arguments.begin(), rule.arguments.end(), one);
    }

    SeccompProfile profile_;
};

/// What is worth asking of a filter's arguments: what its rules name, what lies beside it, what has other
/// high bits.
std::vector<std::uint64_t> telling_values(const SeccompProfile& profile, int number) {
    std::vector<std::uint64_t> values{0, ~std::uint64_t{0}};
    for (const SeccompRule& rule : profile.rules) {
        if (rule.number != number) continue;
        for (const SeccompArgument& argument : rule.arguments) {
            for (const std::uint64_t value : {argument.value, argument.value_two}) {
                for (const std::uint64_t each :
                     {value, value - 1, value + 1, value ^ (std::uint64_t{1} << 33)})
                    values.push_back(each);
            }
        }
    }
    return values;
}

/// Each number up to beyond the newest, and those at the borders of other ABIs, with each telling value in
/// each argument. The number of questions.
std::size_t compare_with_model(const Model& model, const std::vector<sock_filter>& program) {
    std::vector<std::uint32_t> numbers{0x3fffffff, 0x40000000, 0x40000001, 0x7fffffff,
                                       0x80000000, 0xfffffffe, 0xffffffff, 5000};
    for (std::uint32_t number = 0; number < 600; ++number) numbers.push_back(number);
    std::size_t questions = 0;
    for (const std::uint32_t number : numbers) {
        const auto values = telling_values(model.profile(), static_cast<int>(number));
        for (const std::uint32_t arch :
             std::array<std::uint32_t, 3>{AUDIT_ARCH_X86_64, AUDIT_ARCH_I386, AUDIT_ARCH_AARCH64}) {
            for (std::size_t index = 0; index < 6; ++index) {
                for (const std::uint64_t value : values) {
                    for (const std::uint64_t rest :
                         {std::uint64_t{0}, value, values[questions % values.size()]}) {
                        seccomp_data data = {};
                        data.nr = static_cast<int>(number);
                        data.arch = arch;
                        std::fill(std::begin(data.args), std::end(data.args), rest);
                        data.args[index] = value;
                        ++questions;
                        const auto wanted = model.verdict(data);
                        const auto got = run_bpf(program, data);
                        if (wanted == got) continue;
                        ADD_FAILURE()
                            << "call " << data.nr << " of " << std::hex << arch << ", argument " << index
                            << " " << value << ", the others " << rest << ": " << got << ", not " << wanted;
                        return questions;
                    }
                }
            }
        }
    }
    return questions;
}

Model model_of(const std::string& json) {
    auto profile = parse_seccomp_profile(json, SeccompConditions{{}, 6, 12});
    if (!profile) throw std::runtime_error(profile.error().message);
    return Model(std::move(*profile));
}

TEST(SeccompFilter, SaysOfEachCallWhatItsProfileSays) {
    const auto root = std::filesystem::path(__FILE__).parent_path().parent_path().parent_path();
    for (const std::string& file : {(root / "profiles/seccomp/default.json").string(),
                                    std::string("/usr/share/containers/seccomp.json")}) {
        SCOPED_TRACE(file);
        const Model model = model_of(read_text(file));
        auto program = compile_seccomp_filter(model.profile());
        ASSERT_TRUE(program);
        EXPECT_GT(compare_with_model(model, *program), 50000U);
        // The comparison is one: a changed number is found.
        for (sock_filter& instruction : *program) {
            if (instruction.code == (BPF_JMP | BPF_JGE | BPF_K)) ++instruction.k;
        }
        EXPECT_NONFATAL_FAILURE(compare_with_model(model, *program), "not");
        EXPECT_LT(program->size(), 400U);
    }
}

/// Profiles of all shapes, with what tells trees apart: runs and single calls, few actions and many, more
/// ranges than a conditional jump can skip.
TEST(SeccompFilter, SaysWhatAnyProfileSays) {
    std::mt19937 random(4711);
    const auto below = [&](int bound) { return static_cast<int>(random() % static_cast<unsigned>(bound)); };
    const std::vector<SeccompAction> actions{
        {SeccompAction::Kind::Allow, 0},       {SeccompAction::Kind::Errno, EPERM},
        {SeccompAction::Kind::Errno, EACCES},  {SeccompAction::Kind::Log, 0},
        {SeccompAction::Kind::KillProcess, 0}, {SeccompAction::Kind::Trap, 0},
        {SeccompAction::Kind::Trace, 7},       {SeccompAction::Kind::KillThread, 0}};
    const auto any_action = [&](std::size_t kinds) { return actions[random() % kinds]; };
    std::size_t longest = 0;
    for (int round = 0; round < 60; ++round) {
        SCOPED_TRACE(round);
        SeccompProfile profile;
        const std::size_t kinds = 2 + random() % (actions.size() - 1);
        profile.default_action = any_action(kinds);
        const int density = 1 + below(20);
        for (int number = 0; number < 470; ++number) {
            if (below(20) >= density) continue;
            SeccompRule rule{fmt::format("call {}", number), number, any_action(kinds), {}};
            const bool specific = below(12) == 0;
            if (!specific || below(2) == 0) profile.rules.push_back(rule);
            if (specific) {
                rule.action = any_action(kinds);
                for (unsigned index = 0; index < 6; ++index) {
                    if (below(3) != 0) continue;
                    SeccompArgument argument{index, static_cast<SeccompArgument::Op>(below(7)), random() % 64,
                                             0};
                    if (argument.op == SeccompArgument::Op::MaskedEqual)
                        argument.value_two = argument.value & random();
                    if (argument.value == 0) argument.value = 1;
                    rule.arguments.push_back(argument);
                }
                if (!rule.arguments.empty()) profile.rules.push_back(rule);
            }
            profile.newest_number = number;
        }
        const Model model(profile);
        const auto program = compile_seccomp_filter(profile);
        ASSERT_TRUE(program) << program.error().message;
        longest = std::max(longest, program->size());
        compare_with_model(model, *program);
    }
    EXPECT_GT(longest, 600U);
}

/// Of Debian's golang-github-containers-common.
TEST(SeccompFilter, PodmansDefaultLoadsAsItIs) {
    const std::string json = read_text("/usr/share/containers/seccomp.json");
    ASSERT_FALSE(json.empty())
        << "no /usr/share/containers/seccomp.json: apt-get install golang-github-containers-common";
    const auto program = compile(json);
    EXPECT_EQ(verdict(program, SYS_read), kAllow);
    EXPECT_EQ(verdict(program, SYS_bpf), refused(EPERM));
    EXPECT_EQ(verdict(program, 5000), refused(ENOSYS));
}

}  // namespace
}  // namespace postern
