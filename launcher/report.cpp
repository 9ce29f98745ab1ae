// SPDX-License-Identifier: Apache-2.0
#include "launcher/report.h"

#include <pthread.h>
#include <unistd.h>

#include <csignal>
#include <ctime>

namespace postern {

int write_out(int fd, std::string_view text) {
    sigset_t pipe_signal;
    sigset_t before;
    ::sigemptyset(&pipe_signal);
    ::sigaddset(&pipe_signal, SIGPIPE);
    ::pthread_sigmask(SIG_BLOCK, &pipe_signal, &before);
    int errnum = 0;
    while (!text.empty() && errnum == 0) {
        const ssize_t written = ::write(fd, text.data(), text.size());
        if (written >= 0) {
            text.remove_prefix(static_cast<std::size_t>(written));
        } else if (errno != EINTR) {
            errnum = errno;
        }
    }
    if (errnum == EPIPE) {
        const timespec now = {0, 0};
        ::sigtimedwait(&pipe_signal, nullptr, &now);
    }
    ::pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return errnum;
}

int report(const Error& error, int status) {
    tell("postern: {}\n", error.message);
    return status;
}

}  // namespace postern
