// SPDX-License-Identifier: Apache-2.0
#include "launcher/launch_cache.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>

#include "broker-core/scope_guard.h"
#include "launcher/byte_archive.h"
#include "launcher/launch_file.h"

namespace postern {
namespace {

/// Launches with ever other options must not fill a tmpfs.
constexpr unsigned kMaxFiles = 256;

bool is_own(const struct stat& status) {
    return status.st_uid == ::geteuid() && (status.st_mode & 022) == 0;
}

std::string folder_name() {
    // Where the program has more rights than its caller the environment is not to be believed.
    if (::getauxval(AT_SECURE) != 0) return {};
    // A relative name, "off" among them, is no cache: it would be another one in each folder.
    if (const char* named = std::getenv("POSTERN_CACHE"); named != nullptr)
        return *named == '/' ? std::string(named) : std::string();
    if (::geteuid() == 0) return "/run/postern-cache";
    const char* runtime = std::getenv("XDG_RUNTIME_DIR");
    return runtime == nullptr || *runtime != '/' ? std::string() : std::string(runtime) + "/postern-cache";
}

bool still_holds(const std::string& path, std::string_view text) {
    const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    char now[4096];
    while (file) {
        const ssize_t got = ::read(file.get(), now, sizeof now);
        if (got <= 0) return got == 0 && text.empty();
        if (!text.starts_with(std::string_view(now, static_cast<std::size_t>(got)))) return false;
        text.remove_prefix(static_cast<std::size_t>(got));
    }
    return false;
}

void clear_if_full(int folder) {
    const int own = ::openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR* listing = own < 0 ? nullptr : ::fdopendir(own);
    if (listing == nullptr) {
        if (own >= 0) ::close(own);
        return;
    }
    const ScopeGuard closes([listing] { ::closedir(listing); });
    std::vector<std::string> names;
    while (const dirent* entry = ::readdir(listing)) {
        if (entry->d_name[0] != '.') names.emplace_back(entry->d_name);
    }
    if (names.size() < kMaxFiles) return;
    for (const std::string& name : names) ::unlinkat(folder, name.c_str(), 0);
}

}  // namespace

std::optional<LaunchCache> LaunchCache::open() {
    const std::string folder = folder_name();
    if (folder.empty()) return std::nullopt;
    if (auto cache = open(folder)) return cache;
    if (::mkdir(folder.c_str(), 0700) != 0) return std::nullopt;
    return open(folder);
}

std::optional<LaunchCache> LaunchCache::open(const std::string& folder) {
    UniqueFd opened(::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC));
    struct stat status = {};
    if (!opened || ::fstat(opened.get(), &status) != 0 || !is_own(status)) return std::nullopt;
    return LaunchCache(std::move(opened));
}

std::optional<CompiledLaunch> LaunchCache::find(const std::string& key) const {
    const UniqueFd file(
        ::openat(folder_.get(), digits_of(key).c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat status = {};
    // Why one link: nobody can give a file away to another's folder but by linking it there.
    if (!file || ::fstat(file.get(), &status) != 0 || !is_own(status) || !S_ISREG(status.st_mode) ||
        status.st_nlink != 1 || status.st_size > kMaxLaunchBytes) {
        return std::nullopt;
    }
    std::string bytes;
    if (!read_whole(file.get(), static_cast<std::size_t>(status.st_size), bytes)) return std::nullopt;
    const auto body = open_sealed(bytes);
    if (!body) return std::nullopt;
    ByteReader reader(*body);
    std::string_view kept_key;
    std::vector<std::pair<std::string_view, std::string_view>> read;
    std::string_view launch;
    reader.one(kept_key);
    reader.one(read);
    reader.one(launch);
    if (!reader.finished() || kept_key != key) return std::nullopt;
    for (const auto& [path, text] : read) {
        if (!still_holds(std::string(path), text)) return std::nullopt;
    }
    return decode_launch(launch);
}

void LaunchCache::keep(const std::string& key, const std::vector<ReadFile>& read,
                       const CompiledLaunch& launch) const {
    ByteWriter writer;
    writer.one(key);
    std::vector<std::pair<std::string, std::string>> files;
    for (const auto& [path, text] : read) {
        // A relative path is another file elsewhere.
        if (!path.starts_with('/')) return;
        files.emplace_back(path, text);
    }
    writer.one(files);
    writer.one(encode_launch(launch));
    const std::string bytes = sealed(writer.take());
    clear_if_full(folder_.get());
    // Nameless until it is whole: who is killed here leaves nothing.
    const UniqueFd file(::openat(folder_.get(), ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600));
    if (!file || ::write(file.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
        return;
    const std::string name = digits_of(key);
    const std::string path = "/proc/self/fd/" + std::to_string(file.get());
    ::unlinkat(folder_.get(), name.c_str(), 0);
    // Another launch may have been quicker; its file is as good.
    static_cast<void>(::linkat(AT_FDCWD, path.c_str(), folder_.get(), name.c_str(), AT_SYMLINK_FOLLOW));
}

}  // namespace postern
