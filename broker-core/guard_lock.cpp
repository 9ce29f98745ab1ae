// SPDX-License-Identifier: Apache-2.0
#include "broker-core/guard_lock.h"

#include <fcntl.h>
#include <sys/file.h>

#include "broker-core/runtime_dir.h"

namespace postern {
namespace {

Result<UniqueFd> open_lock_file(const std::string& path) {
    POSTERN_TRY(make_runtime_dir());
    UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
    if (!file) {
        const int error = errno;
        return fail_errno(error, "cannot open the guard's lock {}", path);
    }
    return file;
}

/// False if `operation` has LOCK_NB and somebody else holds the lock.
Result<bool> lock(int file, int operation) {
    while (::flock(file, operation) != 0) {
        const int error = errno;
        if (error == EWOULDBLOCK) return false;
        if (error != EINTR) return fail_errno(error, "cannot lock the guard's lock in {}", kRuntimeDir);
    }
    return true;
}

}  // namespace

Result<GuardLock> GuardLock::take() {
    POSTERN_ASSIGN(UniqueFd file, open_lock_file(std::string(kRuntimeDir) + "/guard.lock"));
    POSTERN_TRY(lock(file.get(), LOCK_EX));
    return GuardLock(std::move(file));
}

Result<GuardUse> GuardUse::begin() {
    POSTERN_ASSIGN(UniqueFd file, open_lock_file(std::string(kRuntimeDir) + "/guard.users"));
    POSTERN_TRY(lock(file.get(), LOCK_SH));
    return GuardUse(std::move(file));
}

Result<bool> GuardUse::is_only_one() {
    POSTERN_ASSIGN(const bool alone, lock(file_.get(), LOCK_EX | LOCK_NB));
    // A failed conversion drops the shared lock, see flock(2); GuardLock keeps others from looking meanwhile,
    // and nobody but a holder of GuardLock ever has the exclusive lock, so this does not wait.
    POSTERN_TRY(lock(file_.get(), LOCK_SH));
    return alone;
}

void GuardUse::end() {
    (void)::flock(file_.get(), LOCK_UN);
    file_.reset();
}

}  // namespace postern
