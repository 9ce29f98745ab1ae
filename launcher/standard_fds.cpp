// SPDX-License-Identifier: Apache-2.0
#include "launcher/standard_fds.h"

#include <fcntl.h>
#include <unistd.h>

#include <initializer_list>

namespace postern {

void hold_standard_fds() {
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) {
        // The lowest number that is free is this one: those below are open by now. A file that leads nowhere,
        // for whoever should ever come by it.
        if (::fcntl(fd, F_GETFD) < 0) (void)::open("/dev/null", O_PATH | O_CLOEXEC);
    }
}

}  // namespace postern
