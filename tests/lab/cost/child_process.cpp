// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/cost/child_process.h"

#include <signal.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

namespace postern::cost {

Result<ChildProcess> ChildProcess::start(const std::function<void()>& body) {
    const pid_t parent = ::getpid();
    const pid_t pid = ::fork();
    if (pid < 0) {
        const int error = errno;
        return fail_errno(error, "fork");
    }
    if (pid == 0) {
        ::prctl(PR_SET_PDEATHSIG, SIGKILL);
        // It may have gone before that.
        if (::getppid() == parent) body();
        ::_exit(0);
    }
    return ChildProcess(pid);
}

ChildProcess::~ChildProcess() {
    if (pid_ < 0) return;
    ::kill(pid_, SIGKILL);
    while (::waitpid(pid_, nullptr, 0) < 0 && errno == EINTR) continue;
}

}  // namespace postern::cost
