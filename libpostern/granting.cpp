// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "broker-core/device_files.h"
#include "broker-core/grant.h"
#include "broker-core/guard.h"
#include "broker-core/plan.h"
#include "broker-core/profile.h"
#include "broker-core/quantity.h"
#include "broker-core/result.h"
#include "broker-core/scope_guard.h"
#include "broker-core/unique_fd.h"
#include "broker-core/vfio.h"
#include "libpostern/call.h"
#include "libpostern/libpostern.h"
#include "libpostern/objects.h"

// What a grant is filled with.

namespace postern::library {
namespace {

/// Without them a client could cut memory off under the device and its owner.
constexpr int kSeals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;

Status check_open(const struct libpostern_grant& grant) {
    if (!grant.finished) return {};
    return refuse(
        EBUSY,
        "grant {}: its client has been told what it is: add before libpostern_grant_launch() or _vend()",
        grant.grant.id);
}

bool has_fd(const Grant& grant, std::string_view name) {
    return std::any_of(grant.fds.begin(), grant.fds.end(),
                       [name](const NamedFd& each) { return each.name == name; });
}

Status add_fd(struct libpostern_grant& grant, std::string name, int fd) {
    POSTERN_TRY(check_open(grant));
    if (has_fd(grant.grant, name))
        return refuse(EEXIST, "grant {}: it has an fd \"{}\" already", grant.grant.id, name);
    UniqueFd copy(::fcntl(fd, F_DUPFD_CLOEXEC, 3));
    if (!copy) {
        const int error = errno;
        return fail_errno(error, "libpostern: fd {} for \"{}\"", fd, name);
    }
    grant.grant.fds.push_back({std::move(name), std::move(copy)});
    return {};
}

/// As profiles name windows, memory and interrupts.
Status check_name(const char* name) {
    POSTERN_TRY(need(name, "name"));
    const std::string_view text = name;
    const bool is_good =
        !text.empty() && text.size() <= 64 && std::all_of(text.begin(), text.end(), [](unsigned char c) {
            return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '-' ||
                   c == '_' || c == '.';
        });
    if (is_good) return {};
    return refuse(EINVAL, "the name \"{}\" is not 1 to 64 of a-z A-Z 0-9 - _ .", text.substr(0, 80));
}

Status check_free_name(std::string_view name) {
    constexpr std::array<std::string_view, 4> kKinds{"window.", "dma.", "irq.", "file."};
    if (name != "manifest" && name != "device" &&
        std::none_of(kKinds.begin(), kKinds.end(),
                     [name](std::string_view kind) { return name.starts_with(kind); })) {
        return {};
    }
    return refuse(EINVAL, "the name \"{}\" is one of postern's own; choose another", name);
}

std::string link_of(int fd) {
    std::array<char, 256> target{};
    const std::string link = fmt::format("/proc/self/fd/{}", fd);
    const ssize_t length = ::readlink(link.c_str(), target.data(), target.size());
    return length > 0 ? std::string(target.data(), static_cast<size_t>(length)) : std::string();
}

/// Whole VFIO files would be ways around every policy.
Status check_harmless(const char* name, int fd) {
    const std::string link = link_of(fd);
    for (const std::string_view kind : {"anon_inode:[vfio", "/dev/vfio/", "/dev/iommu", "anon_inode:bpf"}) {
        if (link.starts_with(kind)) {
            return refuse(
                EPERM,
                "fd {} for \"{}\" is {}, which is a way around the guard; add the device with a policy", fd,
                name, link);
        }
    }
    return {};
}

Status check_memfd(const char* name, int fd, uint64_t size) {
    struct stat state {};
    if (::fstat(fd, &state) != 0) {
        const int error = errno;
        return fail_errno(error, "libpostern: fd {} for dma \"{}\"", fd, name);
    }
    const int seals = ::fcntl(fd, F_GET_SEALS);
    if (seals < 0 || (seals & kSeals) != kSeals) {
        return refuse(EINVAL,
                      "dma \"{}\": fd {} is no memfd sealed with F_SEAL_SHRINK, F_SEAL_GROW and F_SEAL_SEAL; "
                      "its client could "
                      "cut it off",
                      name, fd);
    }
    if (size == 0 || size % kPageSize != 0 || size > static_cast<uint64_t>(state.st_size)) {
        return refuse(EINVAL, "dma \"{}\": {:#x} bytes of a memfd of {:#x}; whole pages that it has", name,
                      size, state.st_size);
    }
    return {};
}

/// What a client of a window reaches.
Range reach(const PlannedWindow& window) {
    const Range exact{window.offset, window.offset + window.length};
    return window.by_mmap || window.by_dmabuf ? exact.pages() : exact;
}

/// Against what other live grants of the device have.
Status check_apart(const struct libpostern_grant& grant, const struct libpostern_device& device,
                   const SlicePlan& plan, const std::vector<bool>& shared) {
    for (const auto& other : grant.context->grants) {
        if (other->device != &device) continue;
        for (size_t i = 0; i < plan.windows.size(); ++i) {
            for (size_t k = 0; k < other->windows.size(); ++k) {
                const PlannedWindow& mine = plan.windows[i];
                const PlannedWindow& theirs = other->windows[k];
                if (mine.region != theirs.region || !reach(mine).overlaps(reach(theirs)) ||
                    (shared[i] && other->shared[k]))
                    continue;
                return refuse(EBUSY,
                              "window \"{}\" ({:#x} to {:#x} of {}) reaches what grant {} has (\"{}\"); end "
                              "that, move it, or say in "
                              "both that the page is shared",
                              mine.name, mine.offset, mine.offset + mine.length, region_name(mine.region),
                              other->grant.id, theirs.name);
            }
        }
    }
    return {};
}

Status add_device_to(struct libpostern_grant& grant, struct libpostern_device& device,
                     const struct libpostern_policy& policy) {
    POSTERN_TRY(check_open(grant));
    if (grant.device != nullptr) return refuse(EEXIST, "grant {}: it has a device already", grant.grant.id);
    if (grant.context != device.context) return refuse(EINVAL, "the device is another context's");
    POSTERN_ASSIGN(const DevicePlan plan, plan_device(policy.profile, device.info));
    const SlicePlan& slice = plan.slices.at(policy.slice);
    std::vector<bool> shared;
    for (const Window& window : policy.profile.device->windows) shared.push_back(window.shared_page);
    POSTERN_TRY(check_apart(grant, device, slice, shared));
    POSTERN_ASSIGN(Guard * guard, guard_of(*grant.context));
    POSTERN_ASSIGN(const unsigned level, grant.cgroup->level());
    ScopeGuard undo([&grant, had = grant.grant.fds.size(), told = grant.grant.manifest] {
        grant.grant.fds.resize(had);
        grant.grant.manifest = told;
    });
    DeviceSource source = device_source(*device.access, "add LIBPOSTERN_MMAP");
    // The caller may have kept the container; its kind is what counts.
    Result<UniqueFd> another;
    if (!device.maps) another = vfio::open_container();
    if (another && *another) source.owned.push_back(another->get());
    POSTERN_TRY(add_device_files(grant.grant, plan, slice, source, guard, {grant.cgroup->id(), level}));
    POSTERN_TRY(guard->forget_refusals(grant.grant.id));
    undo.dismiss();
    grant.device = &device;
    grant.windows = slice.windows;
    grant.shared = std::move(shared);
    grant.forward = plan.forward;
    return {};
}

}  // namespace
}  // namespace postern::library

using postern::Status;
using postern::library::call_on;
using postern::library::need;
using postern::library::refuse;

extern "C" {

int libpostern_grant_add_device(struct libpostern_grant* grant, struct libpostern_device* device,
                                const struct libpostern_policy* policy) {
    return call_on(grant, "grant", [&]() -> Status {
        POSTERN_TRY(need(device, "device"));
        POSTERN_TRY(need(policy, "policy"));
        return postern::library::add_device_to(*grant, *device, *policy);
    });
}

int libpostern_grant_add_dma(struct libpostern_grant* grant, const char* name, int memfd, uint64_t size,
                             uint64_t iova, unsigned access) {
    return call_on(grant, "grant", [&]() -> Status {
        POSTERN_TRY(postern::library::check_name(name));
        POSTERN_TRY(postern::library::check_memfd(name, memfd, size));
        if (access == 0 || (access & ~(LIBPOSTERN_READ | LIBPOSTERN_WRITE)) != 0)
            return refuse(EINVAL, "dma \"{}\": access {:#x} is not LIBPOSTERN_READ, _WRITE or both", name,
                          access);
        const std::string fd = fmt::format("dma.{}", name);
        POSTERN_TRY(postern::library::add_fd(*grant, fd, memfd));
        const postern::Access rights{(access & LIBPOSTERN_READ) != 0, (access & LIBPOSTERN_WRITE) != 0};
        grant->grant.manifest["dma"].push_back(
            {{"name", name}, {"size", size}, {"iova", iova}, {"access", rights.text()}, {"fd", fd}});
        return {};
    });
}

int libpostern_grant_add_irq(struct libpostern_grant* grant, const char* name, unsigned index,
                             unsigned vector, int eventfd) {
    return call_on(grant, "grant", [&]() -> Status {
        POSTERN_TRY(postern::library::check_name(name));
        if (postern::library::link_of(eventfd) != "anon_inode:[eventfd]")
            return refuse(EINVAL, "irq \"{}\": fd {} is no eventfd", name, eventfd);
        const std::string fd = fmt::format("irq.{}", name);
        POSTERN_TRY(postern::library::add_fd(*grant, fd, eventfd));
        grant->grant.manifest["irqs"].push_back(
            {{"name", name}, {"index", index}, {"vector", vector}, {"fd", fd}});
        return {};
    });
}

int libpostern_grant_add_fd(struct libpostern_grant* grant, const char* name, int fd) {
    return call_on(grant, "grant", [&]() -> Status {
        POSTERN_TRY(postern::library::check_name(name));
        POSTERN_TRY(postern::library::check_free_name(name));
        POSTERN_TRY(postern::library::check_harmless(name, fd));
        return postern::library::add_fd(*grant, name, fd);
    });
}

}  // extern "C"
