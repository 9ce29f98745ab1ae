// SPDX-License-Identifier: Apache-2.0
#include "broker-core/runtime_dir.h"

#include <sys/stat.h>
#include <unistd.h>

namespace postern {

Status make_runtime_dir() {
    if (::mkdir(kRuntimeDir, 0700) != 0 && errno != EEXIST) {
        const int error = errno;
        return fail_errno(error, "cannot make {}", kRuntimeDir);
    }
    struct stat found {};
    if (::lstat(kRuntimeDir, &found) != 0) {
        const int error = errno;
        return fail_errno(error, "cannot look at {}", kRuntimeDir);
    }
    if (!S_ISDIR(found.st_mode) || found.st_uid != ::geteuid() || (found.st_mode & 022) != 0) {
        return fail("{} is not a folder that only its owner, uid {}, may write; remove it", kRuntimeDir,
                    ::geteuid());
    }
    return {};
}

}  // namespace postern
