// SPDX-License-Identifier: Apache-2.0
#include "broker-core/device_files.h"

#include <optional>
#include <utility>

#include "broker-core/dmabuf_probe.h"
#include "broker-core/guard_policy.h"
#include "broker-core/guard_proof.h"
#include "broker-core/guarded_file.h"
#include "broker-core/manifest.h"
#include "broker-core/vfio.h"
#include "broker-core/vfio_kinds.h"
#include "broker-core/window_choice.h"

namespace postern {
namespace {

/// FilePolicy::file of the first window's dma-buf; 0 is the device's, a profile's "files" come after it.
constexpr uint16_t kFirstDmabuf = 1U << 15;

/// A window's dma-buf, empty if there is none, and what becomes of it.
struct ExportedWindow {
    UniqueFd dmabuf;
    DmabufUse use = DmabufUse::None;
};

/// What a client gets that has the window by dma-buf.
Range pages_of(const PlannedWindow& window) {
    return Range{window.offset, window.offset + window.length}.pages();
}

Result<ExportedWindow> export_window(const PlannedWindow& window, const DeviceSource& source) {
    if (!window.by_dmabuf) return ExportedWindow{};
    const Range pages = pages_of(window);
    auto made = source.export_pages(window.region, pages, window.access.write);
    if (!made) {
        if (window.by_mmap) return ExportedWindow{};  // the client has another way to the same pages
        return propagate(std::move(made),
                         fmt::format("window \"{}\": this kernel exports no dma-buf of it (Linux 6.19 or "
                                     "later does); {}",
                                     window.name, source.remedy));
    }
    POSTERN_ASSIGN(const DmabufFacts facts, probe_dmabuf(made->get(), pages.size(), window.access));
    POSTERN_ASSIGN(const DmabufUse use, choose_dmabuf(window, facts));
    if (use == DmabufUse::None) return ExportedWindow{};
    return ExportedWindow{std::move(*made), use};
}

/// Guards the device fd and says which of its windows is which.
Status guard_device(Guard& guard, int device, FilePolicy policy, bool shared, const DevicePlan& plan,
                    const SlicePlan& slice, std::vector<VendedWindow>& vended) {
    policy.shared = shared;
    for (const IoctlRule& rule : plan.ioctls) policy.ioctls.push_back(for_guard(rule, slice.slice));
    for (size_t i = 0; i < slice.windows.size(); ++i) {
        const PlannedWindow& window = slice.windows[i];
        if (!window.by_mmap && !window.by_pread) continue;
        vended[i].guard = policy.windows.size();
        GuardWindow guarded;
        guarded.offset = window.file_offset;
        guarded.length = window.length;
        guarded.read = window.access.read;
        guarded.write = window.access.write;
        guarded.mmap = window.by_mmap;
        guarded.pread = window.by_pread;
        policy.windows.push_back(guarded);
    }
    return guard_file(guard, device, std::move(policy));
}

/// The kernel keeps whoever has it within the window; the guard adds what it does for every file of a grant:
/// whose it is, who may receive it, when the last of it is closed, and its revocation. One that cannot be
/// mapped is worth as much: whoever has an iommufd or another importer reaches the window with it.
Status guard_dmabuf(Guard& guard, int dmabuf, FilePolicy policy, const PlannedWindow& window, DmabufUse use) {
    // Many files are of the one kind, and they cannot be opened anew.
    policy.exclusive = false;
    if (use == DmabufUse::Map) {
        GuardWindow guarded;
        guarded.length = pages_of(window).size();
        guarded.read = window.access.read;
        guarded.write = window.access.write;
        guarded.mmap = true;
        policy.windows.push_back(guarded);
    }
    return guard_file(guard, dmabuf, std::move(policy));
}

}  // namespace

FilePolicy policy_of(const Grant& grant, const DevicePlan& plan, const SandboxIdentity& sandbox) {
    FilePolicy policy;
    policy.grant = grant.id;
    policy.device = plan.bdf;
    policy.profile = plan.profile;
    policy.slice = grant.slice;
    policy.forward = plan.forward;
    policy.sandbox_cgroup_id = sandbox.cgroup_id;
    policy.cgroup_level = sandbox.cgroup_level;
    return policy;
}

DeviceSource device_source(const DeviceAccess& access, std::string remedy) {
    DeviceSource source;
    source.open = [&access] { return access.client_file(); };
    source.export_pages = [&access](uint32_t region, Range pages, bool writable) {
        return vfio::export_dmabuf(access.device(), region, pages.begin, pages.size(), writable);
    };
    source.shared = access.is_shared();
    source.owned = access.not_for_clients();
    source.owned.insert(source.owned.begin(), access.device());
    source.remedy = std::move(remedy);
    return source;
}

Status add_device_files(Grant& grant, const DevicePlan& plan, const SlicePlan& slice,
                        const DeviceSource& source, Guard* guard, const SandboxIdentity& sandbox) {
    std::vector<ExportedWindow> windows;
    std::vector<DmabufUse> uses;
    windows.reserve(slice.windows.size());
    uses.reserve(slice.windows.size());
    for (const PlannedWindow& window : slice.windows) {
        POSTERN_ASSIGN(ExportedWindow exported, export_window(window, source));
        uses.push_back(exported.use);
        windows.push_back(std::move(exported));
    }
    UniqueFd device;
    if (guard == nullptr || needs_device_fd(plan.ioctls, slice.windows, uses)) {
        POSTERN_ASSIGN(device, source.open());
    }

    const FilePolicy policy = policy_of(grant, plan, sandbox);
    std::vector<VendedWindow> vended(slice.windows.size());
    if (guard != nullptr && device)
        POSTERN_TRY(guard_device(*guard, device.get(), policy, source.shared, plan, slice, vended));
    if (guard != nullptr) {
        // The owner's is another struct file, or the owner could not work on.
        POSTERN_TRY(prove_unguarded(source.owned.front()));
        for (const int owned : source.owned) POSTERN_TRY(guard->learn(owned));
        POSTERN_TRY(learn_vfio_kinds(*guard, plan.bdf));
    }
    const bool has_device = static_cast<bool>(device);
    if (device) grant.fds.push_back({"device", std::move(device)});
    for (size_t i = 0; i < windows.size(); ++i) {
        const PlannedWindow& window = slice.windows[i];
        VendedWindow& outcome = vended[i];
        if (window.by_mmap && has_device) outcome.mmap = MmapSource{"device", window.file_offset};
        if (uses[i] == DmabufUse::None) continue;
        outcome.dmabuf = true;
        const std::string name = fmt::format("window.{}", window.name);
        if (guard != nullptr) {
            FilePolicy own = policy;
            own.file = static_cast<uint16_t>(kFirstDmabuf + i);
            auto guarded = guard_dmabuf(*guard, windows[i].dmabuf.get(), std::move(own), window, uses[i]);
            if (!guarded)
                return propagate(std::move(guarded),
                                 fmt::format("the dma-buf of window \"{}\"", window.name));
        }
        if (uses[i] == DmabufUse::Map) {
            outcome.mmap = MmapSource{name, window.offset - pages_of(window).begin};
            // Of the one window of its own file, where there is no other.
            if (!has_device) outcome.guard = 0;
        }
        grant.fds.push_back({name, std::move(windows[i].dmabuf)});
    }
    SlicePlan told = slice;
    told.slice = grant.slice;
    add_device(grant.manifest, plan, told, vended, has_device);
    return {};
}

}  // namespace postern
