// SPDX-License-Identifier: Apache-2.0
#include "broker-core/runtime_dir.h"

#include <sys/stat.h>
#include <unistd.h>

#include "broker-core/file.h"

namespace postern {

Status make_runtime_dir() {
    POSTERN_TRY(make_folder(kRuntimeDir, 0700));
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
