// SPDX-License-Identifier: Apache-2.0
#include "broker-core/duplicate_fd.h"

#include <fcntl.h>

#include <cerrno>

namespace postern {

Result<UniqueFd> duplicate_fd(int fd, std::string_view what) {
    UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
    if (!copy) {
        const int error = errno;
        return fail_errno(error, "cannot duplicate {}", what);
    }
    return copy;
}

}  // namespace postern
