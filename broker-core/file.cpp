// SPDX-License-Identifier: Apache-2.0
#include "broker-core/file.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <climits>
#include <cstdio>
#include <cstdlib>
#include <memory>

#include "broker-core/library_prefix.h"
#include "broker-core/scope_guard.h"

namespace postern {
namespace {

constexpr unsigned int kMfdExec = 0x10;  // MFD_EXEC, linux/memfd.h; libc's headers are older

}  // namespace

Result<std::string> read_to_end(int fd, size_t limit) {
    std::string text;
    char buffer[16384];
    while (true) {
        const ssize_t got = ::read(fd, buffer, sizeof buffer);
        if (got == 0) return text;
        const int error = errno;
        if (got < 0 && error == EINTR) continue;
        if (got < 0) return Failure(Error{errno_text(error), error});
        text.append(buffer, static_cast<size_t>(got));
        if (text.size() > limit) return Failure(Error{fmt::format("larger than {} bytes", limit), EFBIG});
    }
}

Result<std::string> read_file(const std::string& path, size_t limit) {
    const UniqueFd file(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    if (!file) {
        const int error = errno;
        return fail_errno(error, "cannot read {}", path);
    }
    auto text = read_to_end(file.get(), limit);
    if (text) return text;
    if (text.error().errnum == EFBIG) return fail("{} is {}", path, text.error().message);
    return propagate(std::move(text), fmt::format("cannot read {}", path));
}

Status write_file(const std::string& path, std::string_view text) {
    const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CLOEXEC));
    const ssize_t written = file ? ::write(file.get(), text.data(), text.size()) : -1;
    if (written != static_cast<ssize_t>(text.size())) {
        const int error = errno;
        return fail_errno(error, "cannot write \"{}\" to {}", text, path);
    }
    return {};
}

Status make_folder(const std::string& path, mode_t mode) {
    const bool made = ::mkdir(path.c_str(), mode) == 0;
    if (made ? ::chmod(path.c_str(), mode) == 0 : errno == EEXIST) return {};
    const int error = errno;
    return fail_errno(error, "cannot make {}", path);
}

std::vector<std::string> names_in(const std::string& folder) {
    std::vector<std::string> names;
    const std::unique_ptr<DIR, int (*)(DIR*)> open(::opendir(folder.c_str()), &::closedir);
    while (const dirent* entry = open ? ::readdir(open.get()) : nullptr) {
        const std::string_view name = entry->d_name;
        if (name != "." && name != "..") names.emplace_back(name);
    }
    return names;
}

Status replace_file(const std::string& path, std::string_view text) {
    std::string fresh = path + ".XXXXXX";
    const UniqueFd file(::mkostemp(fresh.data(), O_CLOEXEC));
    if (!file) {
        const int error = errno;
        return fail_errno(error, "cannot make {}", fresh);
    }
    ScopeGuard removes([&fresh] { ::unlink(fresh.c_str()); });
    ssize_t written = 0;
    while (!text.empty() && (written = ::write(file.get(), text.data(), text.size())) > 0)
        text.remove_prefix(static_cast<size_t>(written));
    if (!text.empty() || ::fchmod(file.get(), 0644) != 0 || ::rename(fresh.c_str(), path.c_str()) != 0) {
        const int error = errno;
        return fail_errno(error, "cannot write {}", path);
    }
    removes.dismiss();
    return {};
}

const std::string& program_file() {
    static const std::string file = [] {
        char path[PATH_MAX];
        const ssize_t length = ::readlink("/proc/self/exe", path, sizeof path);
        return std::string(path, length > 0 ? static_cast<size_t>(length) : 0);
    }();
    return file;
}

namespace {

std::string& prefix_in_use() {
    static std::string prefix = [] {
        std::string_view folder = program_file();
        if (!folder.starts_with('/')) return std::string("/usr");
        folder = folder.substr(0, folder.rfind('/'));
        constexpr std::string_view kInner = "/libexec/postern";
        if (folder.ends_with(kInner)) return std::string(folder.substr(0, folder.size() - kInner.size()));
        return std::string(folder.substr(0, folder.rfind('/')));
    }();
    return prefix;
}

}  // namespace

const std::string& program_prefix() {
    return prefix_in_use();
}

void set_program_prefix(std::string prefix) {
    prefix_in_use() = std::move(prefix);
}

Result<UniqueFd> sealed_memfd(const char* name, std::string_view text, MemfdUse use) {
    // Where vm.memfd_noexec is set, only what asks for it can be executed; kernels before 6.3 know no such
    // flag.
    constexpr unsigned int kFlags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    UniqueFd memory(::memfd_create(name, use == MemfdUse::Program ? kFlags | kMfdExec : kFlags));
    if (!memory && use == MemfdUse::Program && errno == EINVAL) memory.reset(::memfd_create(name, kFlags));
    if (!memory) {
        const int error = errno;
        return fail_errno(error, "memfd_create {}", name);
    }
    for (size_t done = 0; done < text.size();) {
        const ssize_t written = ::write(memory.get(), text.data() + done, text.size() - done);
        if (written <= 0) {
            const int error = errno;
            return fail_errno(error, "write to memfd {}", name);
        }
        done += static_cast<size_t>(written);
    }
    constexpr int kSeals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
    if (::fcntl(memory.get(), F_ADD_SEALS, kSeals) != 0) {
        const int error = errno;
        return fail_errno(error, "seal memfd {}", name);
    }
    // A description of its own: read-only, and at the beginning for those who just read it.
    UniqueFd reader(::open(fmt::format("/proc/self/fd/{}", memory.get()).c_str(), O_RDONLY | O_CLOEXEC));
    if (!reader) {
        const int error = errno;
        return fail_errno(error, "reopen memfd {}", name);
    }
    return reader;
}

std::string random_id() {
    uint64_t value = 0;
    // getrandom(2) of up to 256 bytes is never short or interrupted once the pool is ready.
    while (::getrandom(&value, sizeof value, 0) != static_cast<ssize_t>(sizeof value)) {
    }
    return fmt::format("{:016x}", value);
}

}  // namespace postern
