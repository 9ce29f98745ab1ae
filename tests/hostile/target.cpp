// SPDX-License-Identifier: Apache-2.0
#include "tests/hostile/target.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <nlohmann/json.hpp>

#include "broker-core/scope_guard.h"
#include "client/postern.h"

namespace postern::hostile {
namespace {

/// The whole manifest: client/postern.h reads all but `ioctls`, which is of no use to an honest client.
Result<nlohmann::json> read_manifest(int fd) {
    std::string text;
    char chunk[4096];
    while (true) {
        const ssize_t got = pread(fd, chunk, sizeof chunk, static_cast<off_t>(text.size()));
        if (got < 0) return fail_errno(errno, "manifest: read of fd {}", fd);
        if (got == 0) break;
        text.append(chunk, static_cast<size_t>(got));
    }
    nlohmann::json manifest = nlohmann::json::parse(text, nullptr, false);
    if (!manifest.is_object()) return fail("manifest: fd {} holds no JSON object", fd);
    return manifest;
}

void read_ioctls(const nlohmann::json& manifest, Target& target) {
    const auto found = manifest.find("ioctls");
    if (found == manifest.end() || !found->is_array()) return;
    for (const nlohmann::json& entry : *found) {
        if (entry.is_string()) {
            target.ioctls.push_back(entry.get<std::string>());
        } else if (entry.is_object() && entry.contains("name") && entry["name"].is_string()) {
            const bool ruled = entry.contains("args") && !entry["args"].empty();
            (ruled ? target.ruled_ioctls : target.ioctls).push_back(entry["name"].get<std::string>());
        }
    }
}

/// client/postern.h supposes that a window of the device fd may be read as well as mapped; the manifest
/// knows.
void read_methods(const nlohmann::json& manifest, Target& target) {
    const auto found = manifest.find("windows");
    for (size_t i = 0; found != manifest.end() && i < found->size() && i < target.windows.size(); ++i) {
        target.windows[i].by_pread = (*found)[i].contains("pread") || !target.windows[i].by_mmap();
    }
}

bool contains(const std::vector<std::string>& names, const std::string& name) {
    return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

int Window::prot() const {
    return (readable ? PROT_READ : 0) | (writable ? PROT_WRITE : 0);
}

bool Target::granted(const std::string& ioctl) const {
    return contains(ioctls, ioctl);
}

bool Target::ruled(const std::string& ioctl) const {
    return contains(ruled_ioctls, ioctl);
}

const Window* Target::mapped() const {
    // A writable one first: it is the doorbell, with other slices' doorbells around it.
    for (const bool writable : {true, false}) {
        for (const Window& window : windows) {
            if (window.by_mmap() && window.writable == writable) return &window;
        }
    }
    return nullptr;
}

const Window* Target::read_only() const {
    for (const Window& window : windows) {
        if (window.by_mmap() && window.readable && !window.writable) return &window;
    }
    return nullptr;
}

const Window* Target::for_pread() const {
    for (const Window& window : windows) {
        if (window.by_pread && window.readable) return &window;
    }
    return nullptr;
}

Target target_without_grant() {
    Target target;
    target.self = getpid();
    target.launcher = getppid();
    return target;
}

Result<Target> find_target() {
    char error[256];
    postern_grant* grant = postern_open(error, sizeof error);
    if (grant == nullptr) return fail("{}", error);
    // The fds stay open for as long as the program runs.
    const ScopeGuard release([grant] { postern_free(grant); });

    Target target = target_without_grant();
    target.device = grant->device_fd;
    if (target.device < 0) {
        return fail("the grant has no device fd; start this with postern run --device BDF --profile …");
    }
    target.bdf = grant->device == nullptr ? "" : grant->device;
    target.slice = grant->slice < 0 ? 0 : static_cast<unsigned>(grant->slice);
    for (size_t i = 0; i < grant->fd_count; ++i) {
        const NamedFd fd{grant->fds[i].name, grant->fds[i].fd};
        if (fd.name == "manifest") target.manifest = fd.fd;
        if (fd.name.starts_with("dma.") && target.dma < 0) target.dma = fd.fd;
        if (fd.name.starts_with("window.") && target.dmabuf < 0) target.dmabuf = fd.fd;
        target.fds.push_back(fd);
    }
    for (size_t i = 0; i < grant->window_count; ++i) {
        const postern_window& window = grant->windows[i];
        target.windows.push_back({.name = window.name,
                                  .region = window.region,
                                  .offset = static_cast<off_t>(window.offset),
                                  .length = window.length,
                                  .readable = (window.access & POSTERN_READ) != 0,
                                  .writable = (window.access & POSTERN_WRITE) != 0,
                                  .mmap_fd = window.mmap_fd,
                                  .mmap_offset = static_cast<off_t>(window.mmap_offset)});
    }
    POSTERN_ASSIGN(const nlohmann::json manifest, read_manifest(target.manifest));
    read_ioctls(manifest, target);
    read_methods(manifest, target);
    return target;
}

}  // namespace postern::hostile
