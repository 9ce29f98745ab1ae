// SPDX-License-Identifier: Apache-2.0
#include "launcher/launch_cache.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdlib>
#include <cstring>

#include "broker-core/scope_guard.h"
#include "launcher/byte_archive.h"

namespace postern {
namespace {

constexpr std::uint64_t kMagic = 0x3168636e75616c70;  // "plaunch1"
constexpr off_t kMaxFileBytes = 16 << 20;
/// Launches with ever other options must not fill a tmpfs.
constexpr unsigned kMaxFiles = 256;

/// Multiply and fold, eight bytes at a time. It finds files that were damaged, not files that were forged:
/// against those there are owner and mode.
std::uint64_t hash_of(std::string_view bytes) {
    std::uint64_t hash = kMagic ^ bytes.size();
    const auto mix = [&hash](std::uint64_t word) {
        const auto product = static_cast<unsigned __int128>(hash ^ word) * 0x9e3779b97f4a7c15U;
        hash = static_cast<std::uint64_t>(product) ^ static_cast<std::uint64_t>(product >> 64);
    };
    for (; bytes.size() >= 8; bytes.remove_prefix(8)) {
        std::uint64_t word = 0;
        std::memcpy(&word, bytes.data(), 8);
        mix(word);
    }
    std::uint64_t word = 0;
    std::memcpy(&word, bytes.data(), bytes.size());
    mix(word);
    return hash;
}

std::string file_name(const std::string& key) {
    constexpr char kDigits[] = "0123456789abcdef";
    std::string name;
    for (std::uint64_t hash = hash_of(key); name.size() < 16; hash >>= 4) name += kDigits[hash & 15];
    return name;
}

bool is_own(const struct stat& status) {
    return status.st_uid == ::geteuid() && (status.st_mode & 022) == 0;
}

std::string folder_name() {
    // Where the program has more rights than its caller the environment is not to be believed.
    if (::getauxval(AT_SECURE) != 0) return {};
    if (const char* named = std::getenv("POSTERN_CACHE"); named != nullptr)
        return std::string_view(named) == "off" ? std::string() : std::string(named);
    if (::geteuid() == 0) return "/run/postern-cache";
    const char* runtime = std::getenv("XDG_RUNTIME_DIR");
    return runtime == nullptr || *runtime != '/' ? std::string() : std::string(runtime) + "/postern-cache";
}

/// The whole of a file of `size` bytes, if that is what it has.
bool read_whole(int file, std::size_t size, std::string& text) {
    text.resize(size);
    std::size_t done = 0;
    while (done < size) {
        const ssize_t got = ::read(file, text.data() + done, size - done);
        if (got <= 0) return false;
        done += static_cast<std::size_t>(got);
    }
    char more = 0;
    return ::read(file, &more, 1) == 0;
}

bool still_holds(const std::string& path, const std::string& text) {
    const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    std::string now;
    return file && read_whole(file.get(), text.size(), now) && now == text;
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
        ::openat(folder_.get(), file_name(key).c_str(), O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC));
    struct stat status = {};
    // Why one link: nobody can give a file away to another's folder but by linking it there.
    if (!file || ::fstat(file.get(), &status) != 0 || !is_own(status) || !S_ISREG(status.st_mode) ||
        status.st_nlink != 1 || status.st_size > kMaxFileBytes) {
        return std::nullopt;
    }
    std::string bytes;
    if (!read_whole(file.get(), static_cast<std::size_t>(status.st_size), bytes)) return std::nullopt;
    ByteReader reader(bytes);
    std::uint64_t magic = 0;
    std::uint64_t hash = 0;
    reader.one(magic);
    reader.one(hash);
    if (!reader.good() || magic != kMagic || hash != hash_of(std::string_view(bytes).substr(16)))
        return std::nullopt;
    std::string kept_key;
    std::vector<std::pair<std::string, std::string>> read;
    std::string launch;
    reader.one(kept_key);
    reader.one(read);
    reader.one(launch);
    if (!reader.finished() || kept_key != key) return std::nullopt;
    for (const auto& [path, text] : read) {
        if (!still_holds(path, text)) return std::nullopt;
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
    const std::string body = writer.take();
    ByteWriter head;
    head.one(kMagic);
    head.one(hash_of(body));
    const std::string bytes = head.take() + body;
    clear_if_full(folder_.get());
    // Nameless until it is whole: who is killed here leaves nothing.
    const UniqueFd file(::openat(folder_.get(), ".", O_TMPFILE | O_WRONLY | O_CLOEXEC, 0600));
    if (!file || ::write(file.get(), bytes.data(), bytes.size()) != static_cast<ssize_t>(bytes.size()))
        return;
    const std::string name = file_name(key);
    const std::string path = "/proc/self/fd/" + std::to_string(file.get());
    ::unlinkat(folder_.get(), name.c_str(), 0);
    // Another launch may have been quicker; its file is as good.
    static_cast<void>(::linkat(AT_FDCWD, path.c_str(), folder_.get(), name.c_str(), AT_SYMLINK_FOLLOW));
}

}  // namespace postern
