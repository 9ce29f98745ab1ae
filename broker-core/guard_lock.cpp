// SPDX-License-Identifier: Apache-2.0
#include "broker-core/guard_lock.h"

#include <fcntl.h>
#include <sys/file.h>

#include <algorithm>
#include <sstream>

#include "broker-core/file.h"
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

/// A lock as /proc/locks and fdinfo show it: "1: FLOCK  ADVISORY  READ 812 00:19:1234 0 EOF".
struct ShownLock {
    pid_t pid = 0;
    std::string file;  ///< device and inode
};

std::optional<ShownLock> parse_lock(const std::string& line) {
    const size_t at = line.find("FLOCK");
    if (at == std::string::npos) return std::nullopt;
    std::istringstream words(line.substr(at));
    std::string kind;
    std::string advisory;
    std::string mode;
    ShownLock lock;
    if (!(words >> kind >> advisory >> mode >> lock.pid >> lock.file)) return std::nullopt;
    return lock;
}

std::vector<ShownLock> parse_locks(const std::string& text) {
    std::vector<ShownLock> found;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        if (auto lock = parse_lock(line)) found.push_back(std::move(*lock));
    }
    return found;
}

}  // namespace

Result<GuardLock> GuardLock::take() {
    POSTERN_ASSIGN(UniqueFd file, open_lock_file(fmt::format("{}/guard.lock", kRuntimeDir)));
    POSTERN_TRY(lock(file.get(), LOCK_EX));
    return GuardLock(std::move(file));
}

Result<GuardUse> GuardUse::begin() {
    POSTERN_ASSIGN(UniqueFd file, open_lock_file(fmt::format("{}/guard.users", kRuntimeDir)));
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

Result<std::vector<pid_t>> GuardUse::others() const {
    // How the kernel names the file in /proc/locks is not what stat(2) says on every file system: our own
    // lock on it tells.
    POSTERN_ASSIGN(const std::string own,
                   read_file(fmt::format("/proc/self/fdinfo/{}", file_.get()), 1 << 16));
    POSTERN_ASSIGN(const std::string all, read_file("/proc/locks", 16 << 20));
    const std::vector<ShownLock> mine = parse_locks(own);
    if (mine.empty()) return fail("the guard: /proc does not show the lock on {}/guard.users", kRuntimeDir);
    std::vector<pid_t> found;
    for (const ShownLock& lock : parse_locks(all)) {
        if (lock.file == mine[0].file && lock.pid != mine[0].pid) found.push_back(lock.pid);
    }
    std::sort(found.begin(), found.end());
    return found;
}

Result<std::optional<GuardSlot>> GuardSlot::try_take(unsigned number) {
    POSTERN_ASSIGN(UniqueFd file, open_lock_file(fmt::format("{}/listener.{}", kRuntimeDir, number)));
    POSTERN_ASSIGN(const bool taken, lock(file.get(), LOCK_EX | LOCK_NB));
    if (!taken) return std::optional<GuardSlot>();
    return std::optional<GuardSlot>(GuardSlot(number, std::move(file)));
}

GuardSlot::~GuardSlot() {
    if (file_) (void)::flock(file_.get(), LOCK_UN);
}

}  // namespace postern
