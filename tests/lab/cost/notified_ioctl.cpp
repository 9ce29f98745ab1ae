// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/cost/notified_ioctl.h"

#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cstddef>

#include "broker-core/unique_fd.h"
#include "tests/lab/cost/answer.h"
#include "tests/lab/cost/child_process.h"
#include "tests/lab/cost/device_ioctl.h"
#include "tests/lab/cost/pipe.h"

namespace postern::cost {
namespace {

/// Returns the fd that notifications are received from.
Result<int> ask_about_every_ioctl() {
    std::array<sock_filter, 4> filter = {
        sock_filter BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(seccomp_data, nr)),
        sock_filter BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_ioctl, 0, 1),
        sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
        sock_filter BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog program{filter.size(), filter.data()};
    if (::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0) return fail("no_new_privs is refused");
    const long listener =
        ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
    if (listener >= 0) return static_cast<int>(listener);
    const int error = errno;
    return fail_errno(error, "seccomp: no listener for notifications");
}

/// Lets every call go on, until there is nobody left who makes any or this process is killed.
void say_yes(int listener) {
    while (true) {
        seccomp_notif request{};
        if (::ioctl(listener, SECCOMP_IOCTL_NOTIF_RECV, &request) != 0) {
            if (errno == EINTR) continue;
            return;
        }
        seccomp_notif_resp response{};
        response.id = request.id;
        response.flags = SECCOMP_USER_NOTIF_FLAG_CONTINUE;
        if (::ioctl(listener, SECCOMP_IOCTL_NOTIF_SEND, &response) != 0) return;
    }
}

/// The child's fd as one of ours.
Result<UniqueFd> fd_of(pid_t pid, int number) {
    const UniqueFd process(static_cast<int>(::syscall(SYS_pidfd_open, pid, 0)));
    UniqueFd fd(static_cast<int>(::syscall(SYS_pidfd_getfd, process.get(), number, 0)));
    if (fd) return fd;
    const int error = errno;
    return fail_errno(error, "pidfd_getfd");
}

}  // namespace

Result<long> cost_of_notified_ioctl(int device) {
    POSTERN_ASSIGN(Pipe listeners, Pipe::make());
    POSTERN_ASSIGN(Pipe costs, Pipe::make());
    POSTERN_ASSIGN(const ChildProcess client, ChildProcess::start([&] {
                       const Result<int> listener = ask_about_every_ioctl();
                       send_answer(listeners.writer.get(), listener);
                       if (listener)
                           send_answer(costs.writer.get(), cost_of_allowed_ioctl(device, kFewCalls));
                   }));
    listeners.writer.reset();
    costs.writer.reset();
    POSTERN_ASSIGN(const int number, receive_answer<int>(listeners.reader.get()));
    POSTERN_ASSIGN(const UniqueFd listener, fd_of(client.pid(), number));
    POSTERN_ASSIGN(const ChildProcess supervisor, ChildProcess::start([&] { say_yes(listener.get()); }));
    return receive_answer<long>(costs.reader.get());
}

}  // namespace postern::cost
