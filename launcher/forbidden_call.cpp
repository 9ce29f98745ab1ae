// SPDX-License-Identifier: Apache-2.0
#include "launcher/forbidden_call.h"

#include <fcntl.h>
#include <linux/audit.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <charconv>
#include <cstdint>

#include "broker-core/unique_fd.h"
#include "launcher/system_call_name.h"

namespace postern {
namespace {

using std::chrono::milliseconds;
using std::chrono::system_clock;

/// inode number of the first pid namespace, PROC_PID_INIT_INO of include/linux/proc_ns.h: the one whose pids
/// the kernel's log has.
constexpr ino_t kFirstPidNamespace = 0xEFFFFFFC;
/// Numbers of the x32 ABI have this bit.
constexpr std::uint32_t kX32Bit = 0x40000000;
/// The log's clock ticks (CONFIG_HZ), the launcher's does not.
constexpr milliseconds kCoarseClock{20};

/// The number behind `key`, up to the next character that is no digit of `base`.
std::optional<std::uint64_t> number_after(std::string_view text, std::string_view key, int base = 10) {
    const std::size_t at = text.find(key);
    if (at == std::string_view::npos) return std::nullopt;
    text.remove_prefix(at + key.size());
    std::uint64_t value = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, base);
    if (error != std::errc{}) return std::nullopt;
    return value;
}

/// "audit(SECONDS.MILLISECONDS:SERIAL)"
std::optional<system_clock::time_point> stamp_of(std::string_view record) {
    const auto seconds = number_after(record, " audit(");
    if (!seconds) return std::nullopt;
    const auto thousandths = number_after(record.substr(record.find(" audit(")), ".");
    if (!thousandths) return std::nullopt;
    return system_clock::time_point(std::chrono::seconds(*seconds) + milliseconds(*thousandths));
}

ForbiddenCall name_call(std::uint32_t arch, std::uint32_t number) {
    const auto call = [](std::uint32_t plain, SystemCallAbi abi, const char* abi_name) {
        const auto signed_number = static_cast<int>(plain);
        return ForbiddenCall{signed_number, std::string(system_call_name(signed_number, abi)), abi_name};
    };
    if (arch == AUDIT_ARCH_I386) return call(number, SystemCallAbi::I386, "i386");
    if ((number & kX32Bit) != 0) return call(number & ~kX32Bit, SystemCallAbi::X32, "x32");
    return call(number, SystemCallAbi::X86_64, "x86_64");
}

bool pids_are_the_kernels() {
    struct stat status = {};
    return ::stat("/proc/self/ns/pid", &status) == 0 && status.st_ino == kFirstPidNamespace;
}

}  // namespace

std::optional<ForbiddenCall> read_seccomp_record(std::string_view record, pid_t pid,
                                                 system_clock::time_point since) {
    // "PRIORITY,SEQUENCE,TIME,FLAGS;text". What user space writes has a facility, from 8 on.
    const auto priority = number_after(record, "");
    const std::size_t text = record.find(';');
    if (!priority || *priority >= 8 || text == std::string_view::npos) return std::nullopt;
    record = record.substr(text + 1);
    if (!record.starts_with("audit: type=1326 ")) return std::nullopt;
    // Fields in the kernel's order. Those that a program chooses, its name and its path, come in hexadecimal
    // if they hold a blank or a quote, so that none of them can pass for another field.
    const auto stamp = stamp_of(record);
    if (!stamp || *stamp + kCoarseClock < since) return std::nullopt;
    if (number_after(record, " pid=") != static_cast<std::uint64_t>(pid)) return std::nullopt;
    if (number_after(record, " sig=") != std::uint64_t{31}) return std::nullopt;
    const auto arch = number_after(record, " arch=", 16);
    const auto number = number_after(record, " syscall=");
    if (!arch || !number) return std::nullopt;
    return name_call(static_cast<std::uint32_t>(*arch), static_cast<std::uint32_t>(*number));
}

std::optional<ForbiddenCall> find_forbidden_call(pid_t pid, system_clock::time_point since,
                                                 milliseconds patience) {
    if (pid <= 0 || !pids_are_the_kernels()) return std::nullopt;
    const UniqueFd log(::open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC));
    if (!log) return std::nullopt;
    const auto end = std::chrono::steady_clock::now() + patience;
    // CONSOLE_EXT_LOG_MAX of the kernels that had it: no record is longer.
    char record[8192];
    while (true) {
        const ssize_t got = ::read(log.get(), record, sizeof record);
        if (got > 0) {
            const std::string_view text(record, static_cast<std::size_t>(got));
            if (auto call = read_seccomp_record(text, pid, since)) return call;
            continue;
        }
        // Records that were overwritten while we read; the next read goes on behind them.
        if (got < 0 && (errno == EPIPE || errno == EINTR)) continue;
        if (got == 0 || errno != EAGAIN) return std::nullopt;
        const auto left = std::chrono::ceil<milliseconds>(end - std::chrono::steady_clock::now());
        if (left <= milliseconds::zero()) return std::nullopt;
        pollfd more = {log.get(), POLLIN, 0};
        if (::poll(&more, 1, static_cast<int>(left.count())) == 0) return std::nullopt;
    }
}

}  // namespace postern
