// SPDX-License-Identifier: Apache-2.0
#include "broker-core/plan.h"

#include <algorithm>

namespace postern {
namespace {

Status check_match(const PciMatch& match, const PciId& id) {
    const auto check = [](std::string_view key, const std::optional<uint16_t>& wanted,
                          uint16_t found) -> Status {
        if (!wanted || *wanted == found) return {};
        return fail(
            "device.match.{}: the profile is for {:#06x} and the device is {:#06x}; use a profile for this "
            "hardware",
            key, *wanted, found);
    };
    POSTERN_TRY(check("vendor", match.vendor, id.vendor));
    POSTERN_TRY(check("device", match.device, id.device));
    POSTERN_TRY(check("subsystem_vendor", match.subsystem_vendor, id.subsystem_vendor));
    return check("subsystem_device", match.subsystem_device, id.subsystem_device);
}

std::string list_regions(const DeviceInfo& info) {
    std::vector<std::string> names;
    for (uint32_t i = 0; i < 6; ++i) {
        if (info.regions[i].size == 0) continue;
        names.push_back(fmt::format("{} ({})", region_name(i), format_size(info.regions[i].size)));
    }
    return names.empty() ? "no BAR" : fmt::format("{}", fmt::join(names, ", "));
}

Status check_msix(const PlannedWindow& window, Range reach, const DeviceInfo& info) {
    if (!info.msix) return {};
    const auto across = [&](uint32_t bar, Range structure, std::string_view what) -> Status {
        // A client that reaches the page can write the entries of others: compare whole pages.
        if (bar != window.region || !reach.overlaps(window.by_pread ? structure : structure.pages()))
            return {};
        return fail(
            "{:#x} to {:#x} lies across the MSI-X {} at {:#x} to {:#x} of {}, through which interrupts can "
            "be "
            "sent anywhere; leave its pages out",
            reach.begin, reach.end, what, structure.begin, structure.end, region_name(bar));
    };
    POSTERN_TRY(across(info.msix->table_bar, info.msix->table, "table"));
    return across(info.msix->pba_bar, info.msix->pba, "pending bits");
}

Result<PlannedWindow> plan_window(const Window& window, unsigned slice, const DeviceInfo& info) {
    PlannedWindow planned{.name = window.name,
                          .region = window.region,
                          .offset = window.offset.at(slice),
                          .length = window.length,
                          .access = window.access,
                          .by_mmap = window.by_mmap,
                          .by_dmabuf = window.by_dmabuf,
                          .by_pread = window.by_pread};
    const RegionInfo& region = info.regions[window.region];
    const std::string name = region_name(window.region);
    if (region.size == 0) return fail("the device has no {}; it has {}", name, list_regions(info));
    const Range exact{planned.offset, planned.offset + planned.length};
    if (exact.end > region.size) {
        return fail("{:#x} to {:#x} ends outside of {}, which has {} ({:#x})", exact.begin, exact.end, name,
                    format_size(region.size), region.size);
    }
    const Range reach = window.by_pages() ? exact.pages() : exact;
    // Before the question what can be mapped: VFIO leaves the table out on older kernels, and this says why.
    POSTERN_TRY(check_msix(planned, reach, info));
    if (window.by_pages()) {
        const bool fits = std::any_of(region.mappable.begin(), region.mappable.end(),
                                      [&](Range area) { return area.contains(reach); });
        if (!fits) {
            return fail(
                "the pages {:#x} to {:#x} of {} cannot be mapped{}; use the method \"pread\" or other pages",
                reach.begin, reach.end, name,
                region.mappable.empty() ? " (it is smaller than a page, or I/O ports)" : "");
        }
    }
    if ((window.access.read && !region.readable) || (window.access.write && !region.writable)) {
        return fail("access \"{}\" is more than {} allows", window.access.text(), name);
    }
    planned.file_offset = region.file_offset + planned.offset;
    return planned;
}

Status check_iova(uint64_t iova, uint64_t size, const DeviceInfo& info) {
    const Range range{iova, iova + size};
    if (((iova | size) & (info.iova_alignment - 1)) != 0) {
        return fail(
            "iova {:#x}, size {:#x}: the IOMMU maps this device's memory in units of {:#x}; use multiples of "
            "that",
            iova, size, info.iova_alignment);
    }
    if (info.iova_ranges.empty() || std::any_of(info.iova_ranges.begin(), info.iova_ranges.end(),
                                                [&](Range usable) { return usable.contains(range); }))
        return {};
    std::vector<std::string> usable;
    for (const Range& each : info.iova_ranges)
        usable.push_back(fmt::format("{:#x} to {:#x}", each.begin, each.end));
    return fail("iova {:#x} to {:#x} is not in what the IOMMU maps for this device: {}", range.begin,
                range.end, fmt::join(usable, ", "));
}

Result<PlannedDma> plan_dma(const DmaMemory& dma, unsigned slice, const DeviceInfo& info) {
    PlannedDma planned{dma.name, dma.size, dma.iova.at(slice), dma.access, dma.hugepages};
    POSTERN_TRY(check_iova(planned.iova, planned.size, info));
    return planned;
}

/// The other device's half is looked at when there is one: check_room().
Result<PlannedPeer> plan_peer(const PeerMapping& peer, const SlicePlan& plan, const DeviceInfo& info) {
    if (peer.device == info.bdf)
        return fail("device {} is this device itself, which needs no mapping to reach its windows", info.bdf);
    const auto window = std::find_if(plan.windows.begin(), plan.windows.end(),
                                     [&](const PlannedWindow& each) { return each.name == peer.window; });
    if (window == plan.windows.end()) return fail("there is no window \"{}\"", peer.window);
    const Range exact{window->offset, window->offset + window->length};
    return PlannedPeer{peer.window, peer.device, window->region, exact, peer.iova.at(plan.slice),
                       peer.access};
}

Result<PlannedIrq> plan_irq(const Irq& irq, unsigned slice, const DeviceInfo& info) {
    const uint64_t vector = irq.vector.at(slice);
    const IrqInfo& interrupts = info.irqs[irq.index];
    if (vector >= interrupts.count) {
        return fail("vector {} of {} is wanted and the device has {}", vector, irq_index_name(irq.index),
                    interrupts.count);
    }
    if (!interrupts.by_eventfd) return fail("{} cannot be wired to an eventfd", irq_index_name(irq.index));
    return PlannedIrq{irq.name, irq.index, static_cast<uint32_t>(vector)};
}

/// plan_one of each element of `from`, errors with "device.LIST[i]" in front.
template <typename From, typename To, typename PlanOne>
Status plan_each(const std::vector<From>& from, std::vector<To>& to, const char* list,
                 const PlanOne& plan_one) {
    for (size_t i = 0; i < from.size(); ++i) {
        Result<To> planned = plan_one(from[i]);
        if (!planned) return propagate(std::move(planned), fmt::format("device.{}[{}]", list, i));
        to.push_back(std::move(*planned));
    }
    return {};
}

Result<SlicePlan> plan_slice(const DeviceProfile& device, unsigned slice, const DeviceInfo& info) {
    SlicePlan plan;
    plan.slice = slice;
    POSTERN_TRY(plan_each(device.windows, plan.windows, "windows",
                          [&](const Window& window) { return plan_window(window, slice, info); }));
    POSTERN_TRY(plan_each(device.dma, plan.dma, "dma",
                          [&](const DmaMemory& dma) { return plan_dma(dma, slice, info); }));
    if (device.dma_map) {
        plan.dma_map =
            PlannedDmaMap{device.dma_map->iova.at(slice), device.dma_map->size, device.dma_map->access};
        if (auto fits = check_iova(plan.dma_map->iova, plan.dma_map->size, info); !fits)
            return propagate(std::move(fits), "device.dma_map");
    }
    POSTERN_TRY(plan_each(device.peers, plan.peers, "peers",
                          [&](const PeerMapping& peer) { return plan_peer(peer, plan, info); }));
    POSTERN_TRY(plan_each(device.irqs, plan.irqs, "irqs",
                          [&](const Irq& irq) { return plan_irq(irq, slice, info); }));
    return plan;
}

}  // namespace

Result<DevicePlan> plan_device(const Profile& profile, const DeviceInfo& info) {
    const std::string context = fmt::format("profile {}", profile.name);
    if (!profile.device)
        return fail("{}: has no \"device\" part and --device {} was given; name a profile for the device",
                    context, info.bdf);
    const DeviceProfile& device = *profile.device;
    if (auto match = check_match(device.match, info.id); !match) return propagate(std::move(match), context);
    DevicePlan plan;
    plan.bdf = info.bdf;
    plan.profile = profile.name;
    plan.id = info.id;
    for (unsigned slice = 0; slice < profile.slices; ++slice) {
        auto planned = plan_slice(device, slice, info);
        if (!planned) {
            return propagate(std::move(planned),
                             profile.slices == 1 ? context : fmt::format("{}: slice {}", context, slice));
        }
        plan.slices.push_back(std::move(*planned));
    }
    plan.ioctls = device.ioctls;
    plan.setup = device.setup;
    plan.teardown = device.teardown;
    plan.folder = profile.folder;
    plan.bus_master = !device.dma.empty() || device.dma_map;
    plan.reset_before = device.reset == Reset::Before || device.reset == Reset::Both;
    plan.reset_after = device.reset == Reset::After || device.reset == Reset::Both;
    plan.forward = device.forward;
    if (device.reset != Reset::Never && !info.can_reset) {
        return fail("{}: device.reset: the device has no way to be reset alone; say \"never\"", context);
    }
    return plan;
}

Status check_room(const DevicePlan& plan, const DeviceInfo& info, uint64_t iova, uint64_t size) {
    POSTERN_TRY(check_iova(iova, size, info));
    const Range wanted{iova, iova + size};
    const auto check = [&](uint64_t at, uint64_t length, const std::string& what, unsigned slice) -> Status {
        if (!wanted.overlaps({at, at + length})) return {};
        return fail("iova {:#x} to {:#x} overlaps {} of slice {} of {}, at {:#x} to {:#x}", wanted.begin,
                    wanted.end, what, slice, plan.bdf, at, at + length);
    };
    for (const SlicePlan& slice : plan.slices) {
        for (const PlannedDma& dma : slice.dma)
            POSTERN_TRY(check(dma.iova, dma.size, fmt::format("dma \"{}\"", dma.name), slice.slice));
        if (slice.dma_map)
            POSTERN_TRY(check(slice.dma_map->iova, slice.dma_map->size, "dma_map", slice.slice));
    }
    return {};
}

Status check_without_peers(const Profile& profile) {
    if (!profile.device || profile.device->peers.empty()) return {};
    return fail(
        "profile {}: device.peers[0]: {} would have to be owned by the same process, and this one owns one "
        "device; let `postern broker` have both, see postern-broker(8)",
        profile.name, profile.device->peers[0].device);
}

Status check_slice(const Profile& profile, uint64_t slice) {
    if (slice < profile.slices) return {};
    if (profile.slices == 1)
        return fail("profile {}: --slice {}: the profile has one slice, 0", profile.name, slice);
    return fail("profile {}: --slice {}: the profile has slices 0 to {}", profile.name, slice,
                profile.slices - 1);
}

Json to_json(const DevicePlan& plan) {
    Json slices = Json::array();
    for (const SlicePlan& slice : plan.slices) {
        Json windows = Json::array();
        for (const PlannedWindow& window : slice.windows) {
            Json methods = Json::array();
            if (window.by_mmap) methods.push_back("mmap");
            if (window.by_dmabuf) methods.push_back("dmabuf");
            if (window.by_pread) methods.push_back("pread");
            windows.push_back({{"name", window.name},
                               {"region", window.region},
                               {"offset", window.offset},
                               {"length", window.length},
                               {"access", window.access.text()},
                               {"methods", methods},
                               {"file_offset", window.file_offset}});
        }
        Json dma = Json::array();
        for (const PlannedDma& memory : slice.dma) {
            dma.push_back({{"name", memory.name},
                           {"size", memory.size},
                           {"iova", memory.iova},
                           {"access", memory.access.text()}});
        }
        Json irqs = Json::array();
        for (const PlannedIrq& irq : slice.irqs) {
            irqs.push_back({{"name", irq.name}, {"index", irq.index}, {"vector", irq.vector}});
        }
        Json ioctls = Json::array();
        for (const IoctlRule& rule : plan.ioctls) ioctls.push_back(for_manifest(rule, slice.slice));
        Json own = nullptr;
        if (slice.dma_map) {
            own = {{"iova", slice.dma_map->iova},
                   {"size", slice.dma_map->size},
                   {"access", slice.dma_map->access.text()}};
        }
        Json peers = Json::array();
        for (const PlannedPeer& peer : slice.peers) {
            peers.push_back({{"window", peer.window},
                             {"device", peer.device},
                             {"iova", peer.iova},
                             {"access", peer.access.text()}});
        }
        slices.push_back({{"slice", slice.slice},
                          {"dma_map", own},
                          {"peers", peers},
                          {"windows", windows},
                          {"dma", dma},
                          {"irqs", irqs},
                          {"ioctls", ioctls}});
    }
    constexpr const char* kForward[] = {"sandbox", "never", "anyone"};
    return {{"device", plan.bdf},
            {"vendor", fmt::format("{:#06x}", plan.id.vendor)},
            {"product", fmt::format("{:#06x}", plan.id.device)},
            {"reset_before", plan.reset_before},
            {"bus_master", plan.bus_master},
            {"setup", plan.setup.device},
            {"slice_setup", plan.setup.slice},
            {"slices", slices},
            {"forward", kForward[static_cast<size_t>(plan.forward)]},
            {"slice_teardown", plan.teardown.slice},
            {"teardown", plan.teardown.device},
            {"reset_after", plan.reset_after}};
}

}  // namespace postern
