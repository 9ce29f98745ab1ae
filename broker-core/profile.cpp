// SPDX-License-Identifier: Apache-2.0
#include "broker-core/profile.h"

#include <algorithm>
#include <array>
#include <string_view>

#include "broker-core/ioctl_table.h"
#include "broker-core/quantity.h"

namespace postern {
namespace {

constexpr std::array<std::string_view, 9> kRegionNames{"bar0", "bar1", "bar2",   "bar3", "bar4",
                                                       "bar5", "rom",  "config", "vga"};
constexpr std::array<std::string_view, 5> kIrqNames{"intx", "msi", "msix", "err", "req"};

constexpr const char* kDeviceWindows = "device.windows";

std::string where(const std::string& list, size_t index) {
    return fmt::format("{}[{}]", list, index);
}

/// The last byte of every slice's piece must have a 64-bit address.
Status check_steps(const Stepped& at, uint64_t length, unsigned slices, std::string_view what) {
    uint64_t end = 0;
    if (__builtin_mul_overflow(at.stride, static_cast<uint64_t>(slices - 1), &end) ||
        __builtin_add_overflow(end, at.base, &end) ||
        __builtin_add_overflow(end, page_ceil(length) + kPageSize, &end)) {
        return fail("{} {:#x} with stride {:#x} runs past 64 bits in slice {}", what, at.base, at.stride,
                    slices - 1);
    }
    return {};
}

Status check_window(const Window& window, unsigned slices) {
    if (window.length == 0) return fail("length 0 grants nothing; give the window's bytes");
    if (window.length > (1ULL << 40)) return fail("length {:#x} is larger than any BAR", window.length);
    POSTERN_TRY(check_steps(window.offset, window.length, slices, "offset"));
    if (!window.by_pages()) return {};
    if (window.region > 5) {
        return fail("region {} has no pages to map; use a BAR or the method \"pread\"",
                    region_name(window.region));
    }
    for (unsigned slice = 0; slice < std::min(slices, 2U); ++slice) {
        const uint64_t offset = window.offset.at(slice);
        if (offset % kPageSize == 0) continue;
        return fail("offset {:#x}{} is not page aligned ({}); use {:#x}", offset,
                    slice == 0 ? "" : " of slice 1", kPageSize, page_floor(offset));
    }
    return {};
}

/// The range that a client of `slice` really reaches: whole pages where it maps.
Range reach(const Window& window, unsigned slice) {
    const uint64_t begin = window.offset.at(slice);
    const Range exact{begin, begin + window.length};
    return window.by_pages() ? exact.pages() : exact;
}

/// No page of one slice may be another's, be it of the same window or of two. `list` is the path of the
/// windows.
Status check_sharing(const std::vector<Window>& windows, const std::string& list, unsigned slices) {
    struct Piece {
        Range range;
        size_t window;
        unsigned slice;
    };
    std::map<uint32_t, std::vector<Piece>> regions;
    for (size_t i = 0; i < windows.size(); ++i) {
        const Window& window = windows[i];
        for (unsigned slice = 0; slice < slices; ++slice) {
            regions[window.region].push_back({reach(window, slice), i, slice});
        }
    }
    for (auto& [region, pieces] : regions) {
        std::sort(pieces.begin(), pieces.end(),
                  [](const Piece& a, const Piece& b) { return a.range.begin < b.range.begin; });
        for (size_t a = 0; a < pieces.size(); ++a) {
            for (size_t b = a + 1; b < pieces.size() && pieces[b].range.begin < pieces[a].range.end; ++b) {
                const Piece& one = pieces[a];
                const Piece& other = pieces[b];
                if (one.slice == other.slice) continue;
                if (windows[one.window].shared_page && windows[other.window].shared_page) continue;
                return fail(
                    "{}: in slice {} the window \"{}\" shares the page at {}{:#x} with window \"{}\" of "
                    "slice {}; "
                    "move one, use a stride of whole pages, or say \"shared_page\": true in both if it is "
                    "meant",
                    where(list, other.window), other.slice, windows[other.window].name,
                    list == kDeviceWindows ? region_name(region) + " " : "", page_floor(other.range.begin),
                    windows[one.window].name, one.slice);
            }
        }
    }
    return {};
}

/// Pieces of the device's I/O address space, and whose they are.
class IovaPieces {
  public:
    /// Of all slices: `what` is the key's path, `name` what errors call the memory.
    [[nodiscard]] Status add(const std::string& what, const std::string& name, const Stepped& iova,
                             uint64_t size, unsigned slices) {
        if (size == 0 || size % kPageSize != 0) {
            return fail("{}: size {} is not a multiple of the page size; use {}", what, size,
                        std::max(page_ceil(size), kPageSize));
        }
        if (size > (1ULL << 40)) return fail("{}: size {} is more than 1TiB", what, size);
        if (auto steps = check_steps(iova, size, slices, "iova"); !steps)
            return propagate(std::move(steps), what);
        for (unsigned slice = 0; slice < slices; ++slice) {
            const uint64_t at = iova.at(slice);
            if (at % kPageSize != 0) {
                return fail("{}: iova {:#x} of slice {} is not page aligned ({}); use {:#x}", what, at, slice,
                            kPageSize, page_floor(at));
            }
            pieces_.push_back({{at, at + size}, what, name, slice});
        }
        return {};
    }

    [[nodiscard]] Status check_overlaps() {
        std::sort(pieces_.begin(), pieces_.end(),
                  [](const Piece& a, const Piece& b) { return a.range.begin < b.range.begin; });
        for (size_t i = 1; i < pieces_.size(); ++i) {
            const Piece& below = pieces_[i - 1];
            const Piece& above = pieces_[i];
            if (!below.range.overlaps(above.range)) continue;
            return fail("{}: iova {:#x} of slice {} overlaps \"{}\" of slice {}, which ends at {:#x}",
                        above.what, above.range.begin, above.slice, below.name, below.slice, below.range.end);
        }
        return {};
    }

  private:
    struct Piece {
        Range range;
        std::string what;
        std::string name;
        unsigned slice;
    };
    std::vector<Piece> pieces_;
};

Status check_dma(const DeviceProfile& device, unsigned slices) {
    IovaPieces pieces;
    for (size_t i = 0; i < device.dma.size(); ++i) {
        const DmaMemory& dma = device.dma[i];
        POSTERN_TRY(pieces.add(where("device.dma", i), dma.name, dma.iova, dma.size, slices));
    }
    if (device.dma_map) {
        POSTERN_TRY(
            pieces.add("device.dma_map", "dma_map", device.dma_map->iova, device.dma_map->size, slices));
        if (device.forward == Forward::Anyone)
            return fail(
                "device.dma_map: its iommufd is of use in the client's sandbox only, and \"forward\" is "
                "\"anyone\"; say "
                "\"sandbox\"");
    }
    return pieces.check_overlaps();
}

Status check_peers(const DeviceProfile& device, unsigned slices) {
    std::map<std::string, IovaPieces> spaces;  // of each device its own
    for (size_t i = 0; i < device.peers.size(); ++i) {
        const PeerMapping& peer = device.peers[i];
        const std::string path = where("device.peers", i);
        const auto window = std::find_if(device.windows.begin(), device.windows.end(),
                                         [&](const Window& each) { return each.name == peer.window; });
        if (window == device.windows.end())
            return fail("{}.window: the profile has no window \"{}\"", path, peer.window);
        if (!window->by_pages())
            return fail(
                "{}: window \"{}\" is not reached by pages; give it the method \"mmap\" or \"dmabuf\"", path,
                peer.window);
        // What surrounds it in its pages is not the peer's.
        if (window->length % kPageSize != 0 || window->offset.base % kPageSize != 0 ||
            window->offset.stride % kPageSize != 0)
            return fail("{}: window \"{}\" is not made of whole pages ({}), and an IOMMU maps nothing less",
                        path, peer.window, kPageSize);
        if ((peer.access.read && !window->access.read) || (peer.access.write && !window->access.write))
            return fail("{}: access \"{}\" is more than window \"{}\" allows, which is \"{}\"", path,
                        peer.access.text(), peer.window, window->access.text());
        POSTERN_TRY(spaces[peer.device].add(path, peer.window, peer.iova, window->length, slices));
    }
    for (auto& [bdf, pieces] : spaces) POSTERN_TRY(pieces.check_overlaps());
    return {};
}

Status check_irqs(const DeviceProfile& device, unsigned slices) {
    std::map<std::pair<uint32_t, uint64_t>, std::string> taken;
    std::optional<uint32_t> mode;  // PCI delivers by one of INTx, MSI, MSI-X at a time
    for (size_t i = 0; i < device.irqs.size(); ++i) {
        const Irq& irq = device.irqs[i];
        if (irq.index <= 2) {
            if (mode && *mode != irq.index) {
                return fail(
                    "{}: a device interrupts by one of intx, msi and msix at a time; {} and {} are asked for",
                    where("device.irqs", i), irq_index_name(*mode), irq_index_name(irq.index));
            }
            mode = irq.index;
        }
        for (unsigned slice = 0; slice < slices; ++slice) {
            uint64_t vector = 0;
            if (__builtin_mul_overflow(irq.vector.stride, static_cast<uint64_t>(slice), &vector) ||
                __builtin_add_overflow(vector, irq.vector.base, &vector) || vector > 2047) {
                return fail("{}: the vector of slice {} is above 2047, the last that MSI-X has",
                            where("device.irqs", i), slice);
            }
            const std::string owner = fmt::format("\"{}\" of slice {}", irq.name, slice);
            const auto [entry, fresh] = taken.emplace(std::pair{irq.index, vector}, owner);
            if (!fresh) {
                return fail("{}: vector {} of {} is both {} and {}; give it a stride",
                            where("device.irqs", i), vector, irq_index_name(irq.index), entry->second, owner);
            }
        }
    }
    return {};
}

}  // namespace

std::optional<uint32_t> region_index(std::string_view name) {
    const auto found = std::find(kRegionNames.begin(), kRegionNames.end(), name);
    if (found == kRegionNames.end()) return std::nullopt;
    return static_cast<uint32_t>(found - kRegionNames.begin());
}

std::string region_name(uint32_t index) {
    return index < kRegionNames.size() ? std::string(kRegionNames[index]) : fmt::format("region{}", index);
}

std::string irq_index_name(uint32_t index) {
    return index < kIrqNames.size() ? std::string(kIrqNames[index]) : fmt::format("irq index {}", index);
}

namespace {

/// The kernel's other users of a memfd, which ask no hook: with these ioctls a client makes a dma-buf of all
/// of it, or maps all of it for DMA, whatever its windows are.
Status check_other_users(const std::vector<IoctlList>& lists, bool maps,
                         const std::vector<FileProfile>& files) {
    const auto passed =
        std::find_if(files.begin(), files.end(), [](const FileProfile& each) { return !each.fd.empty(); });
    if (passed == files.end()) return {};
    if (maps) {
        return fail(
            "device.dma_map: IOMMU_IOAS_MAP_FILE takes the whole memory of any fd, also of the file \"{}\", "
            "past its windows; grant one of the two",
            passed->name);
    }
    for (const IoctlList& list : lists) {
        for (size_t i = 0; i < list.ioctls->size(); ++i) {
            for (const char* name : {"UDMABUF_CREATE", "UDMABUF_CREATE_LIST", "IOMMU_IOAS_MAP_FILE"}) {
                if ((*list.ioctls)[i].number != find_ioctl(name)->number) continue;
                return fail(
                    "{}.ioctls[{}]: {} takes the whole memory of any fd, also of the file \"{}\", past its "
                    "windows; "
                    "grant one of the two",
                    list.path, i, name, passed->name);
            }
        }
    }
    return {};
}

/// `path` is what a profile's errors call the device or file: "device".
template <typename T>
Status check_policy(const T& file, const std::string& path, unsigned slices) {
    const std::string windows = path + ".windows";
    for (size_t i = 0; i < file.windows.size(); ++i) {
        if (auto window = check_window(file.windows[i], slices); !window)
            return propagate(std::move(window), where(windows, i));
    }
    if (auto ioctls = check_ioctls(file.ioctls, slices); !ioctls)
        return Failure(Error{path + "." + ioctls.error().message, 0});
    return check_sharing(file.windows, windows, slices);
}

template <typename T>
void add_weakenings(const T& file, const std::string& path, unsigned slices,
                    std::vector<std::string>& found) {
    for (const IoctlRule& rule : file.ioctls) {
        const IoctlEntry* entry = find_ioctl(rule);
        if (rule.args.empty() && entry != nullptr && !entry->danger.empty())
            found.push_back(fmt::format("{}.ioctls grants {}: {}", path, rule.name, entry->danger));
    }
    for (const Window& window : file.windows) {
        if (window.shared_page && slices > 1)
            found.push_back(fmt::format("window \"{}\" is on a page that slices share", window.name));
        if (window.reads_although_write_only()) {
            found.push_back(fmt::format(
                "window \"{}\" has access \"w\" and is mapped: on x86 what can be written can be read",
                window.name));
        }
        if (window.by_dmabuf && !window.access.write) {
            found.push_back(
                fmt::format("window \"{}\" has access \"r\" and is a dma-buf: whoever has a device that "
                            "imports it can write it by that",
                            window.name));
        }
    }
    if (file.forward == Forward::Anyone) {
        found.push_back(fmt::format(
            "{}.forward is \"anyone\": the client may pass the guarded fd out of its sandbox", path));
    }
}

}  // namespace

Status check_profile(const Profile& profile) {
    for (size_t i = 0; i < profile.files.size(); ++i) {
        const std::string path = where("files", i);
        POSTERN_TRY(check_policy(profile.files[i], path, profile.slices));
        if (profile.slices > 1 && !profile.files[i].fd.empty()) {
            return fail(
                "{}.fd: one open file has one policy, and there are {} slices; name a \"path\", which is "
                "opened for each of them",
                path, profile.slices);
        }
    }
    std::vector<IoctlList> lists;
    if (profile.device) lists.push_back({"device", &profile.device->ioctls});
    for (size_t i = 0; i < profile.files.size(); ++i)
        lists.push_back({where("files", i), &profile.files[i].ioctls});
    POSTERN_TRY(check_blocks_stay_sealed(lists, profile.slices));
    POSTERN_TRY(check_other_users(lists, profile.device && profile.device->dma_map, profile.files));
    if (!profile.device) return {};
    POSTERN_TRY(check_policy(*profile.device, "device", profile.slices));
    POSTERN_TRY(check_dma(*profile.device, profile.slices));
    POSTERN_TRY(check_peers(*profile.device, profile.slices));
    return check_irqs(*profile.device, profile.slices);
}

std::vector<std::string> weakenings(const Profile& profile) {
    std::vector<std::string> found;
    const SandboxProfile& sandbox = profile.sandbox;
    if (sandbox.seccomp_program)
        found.emplace_back("--seccomp: whatever its program lets through is open to the client");
    else if (sandbox.seccomp == "none")
        found.emplace_back("sandbox.seccomp is \"none\": every system call is open to the client");
    if (!sandbox.no_new_privs)
        found.emplace_back("sandbox.no_new_privs is false: set-uid programs work in the client");
    if (!sandbox.capabilities.empty()) {
        found.push_back(fmt::format("sandbox.capabilities keeps {}", fmt::join(sandbox.capabilities, ", ")));
    }
    if (!sandbox.new_session)
        found.emplace_back(
            "sandbox.new_session is false: the client shares the caller's terminal, and may type into it");
    if (!sandbox.netns.empty())
        found.push_back(fmt::format("sandbox.netns joins the network of {}", sandbox.netns));
    if (!sandbox.uid_map.empty())
        found.emplace_back("sandbox.user.uid_map: the client is who it says to the files of the host");
    if (sandbox.uid == 0 && !sandbox.subids && sandbox.uid_map.empty())
        found.emplace_back(
            "sandbox.user.uid is 0: started by root, the client is root to the files of the host");
    for (const char* name : {"user", "pid", "mount", "net", "ipc", "uts", "cgroup"}) {
        const bool joined = std::string_view(name) == "net" && !sandbox.netns.empty();
        if (!joined && std::find(sandbox.namespaces.begin(), sandbox.namespaces.end(), name) ==
                           sandbox.namespaces.end()) {
            found.push_back(
                fmt::format("sandbox.namespaces lacks \"{}\": the client shares the host's", name));
        }
    }
    if (profile.device) add_weakenings(*profile.device, "device", profile.slices, found);
    for (size_t i = 0; i < profile.files.size(); ++i)
        add_weakenings(profile.files[i], where("files", i), profile.slices, found);
    return found;
}

}  // namespace postern
