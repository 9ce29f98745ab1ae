// SPDX-License-Identifier: Apache-2.0
#include "broker-core/manifest.h"

#include "broker-core/passed_fds.h"

namespace postern {
namespace {

Json ioctl_list(const std::vector<IoctlRule>& rules, unsigned slice) {
    Json list = Json::array();
    for (const IoctlRule& rule : rules) list.push_back(for_manifest(rule, slice));
    return list;
}

Json window_entry(const PlannedWindow& window) {
    Json entry{{"name", window.name},
               {"region", window.region},
               {"offset", window.offset},
               {"length", window.length},
               {"access", window.access.text()}};
    if (window.by_pread) entry["pread"] = {{"fd", "device"}, {"offset", window.file_offset}};
    return entry;
}

Json dma_entry(const PlannedDma& dma, std::string fd) {
    return {{"name", dma.name},
            {"size", dma.size},
            {"iova", dma.iova},
            {"access", dma.access.text()},
            {"fd", std::move(fd)}};
}

Json irq_entry(const PlannedIrq& irq, std::string fd) {
    return {{"name", irq.name}, {"index", irq.index}, {"vector", irq.vector}, {"fd", std::move(fd)}};
}

Json peer_entry(const PlannedPeer& peer) {
    return {{"window", peer.window},
            {"device", peer.device},
            {"iova", peer.iova},
            {"size", peer.pages.size()},
            {"access", peer.access.text()}};
}

Json with_slice(Json entry, unsigned slice) {
    entry["slice"] = slice;
    return entry;
}

}  // namespace

Json empty_manifest(const std::string& grant) {
    return {
        {"postern", 1},         {"grant", grant},        {"fds", Json::object()},  {"windows", Json::array()},
        {"dma", Json::array()}, {"irqs", Json::array()}, {"ioctls", Json::array()}};
}

Json fd_numbers(const std::vector<std::string>& names) {
    Json fds = Json::object();
    for (size_t i = 0; i < names.size(); ++i) fds[names[i]] = kFirstFd + i;
    return fds;
}

void add_device(Json& manifest, const DevicePlan& device, const SlicePlan& plan,
                const std::vector<VendedWindow>& windows, bool has_device_fd) {
    manifest["device"] = has_device_fd ? Json(device.bdf) : Json(false);
    manifest["slice"] = plan.slice;
    manifest["ioctls"] = ioctl_list(device.ioctls, plan.slice);
    for (size_t i = 0; i < plan.windows.size(); ++i) {
        Json entry = window_entry(plan.windows[i]);
        if (windows[i].mmap)
            entry["mmap"] = {{"fd", windows[i].mmap->fd}, {"offset", windows[i].mmap->offset}};
        if (windows[i].guard) entry["guard"] = *windows[i].guard;
        if (windows[i].dmabuf) entry["fd"] = "window." + plan.windows[i].name;
        manifest["windows"].push_back(std::move(entry));
    }
    for (const PlannedDma& dma : plan.dma) manifest["dma"].push_back(dma_entry(dma, "dma." + dma.name));
    for (const PlannedIrq& irq : plan.irqs) manifest["irqs"].push_back(irq_entry(irq, "irq." + irq.name));
    for (const PlannedPeer& peer : plan.peers) manifest["peers"].push_back(peer_entry(peer));
}

void add_file(Json& manifest, const FileProfile& file, unsigned slice) {
    const std::string fd = "file." + file.name;
    Json windows = Json::array();
    for (size_t i = 0; i < file.windows.size(); ++i) {
        const Window& window = file.windows[i];
        const uint64_t offset = window.offset.at(slice);
        Json entry{{"name", window.name},
                   {"offset", offset},
                   {"length", window.length},
                   {"access", window.access.text()},
                   {"guard", i}};
        if (window.by_mmap) entry["mmap"] = {{"fd", fd}, {"offset", offset}};
        if (window.by_pread) entry["pread"] = {{"fd", fd}, {"offset", offset}};
        windows.push_back(std::move(entry));
    }
    manifest["files"].push_back({{"name", file.name},
                                 {"fd", fd},
                                 {"windows", std::move(windows)},
                                 {"ioctls", ioctl_list(file.ioctls, slice)}});
}

Json plan_files(const Profile& profile, unsigned slice) {
    Json plan{{"files", Json::array()}};
    for (const FileProfile& file : profile.files) add_file(plan, file, slice);
    return plan["files"];
}

Json program_manifest(const std::string& grant, const DevicePlan& device, std::optional<unsigned> slice,
                      const std::vector<std::string>& fd_names) {
    Json manifest = empty_manifest(grant);
    manifest["device"] = device.bdf;
    manifest["fds"] = fd_numbers(fd_names);
    manifest["ioctls"] = ioctl_list(device.ioctls, slice.value_or(0));
    if (slice) manifest["slice"] = *slice;
    for (const SlicePlan& plan : device.slices) {
        for (const PlannedWindow& window : plan.windows) {
            Json entry = window_entry(window);
            if (window.by_mmap || window.by_dmabuf)
                entry["mmap"] = {{"fd", "device"}, {"offset", window.file_offset}};
            manifest["windows"].push_back(with_slice(std::move(entry), plan.slice));
        }
        for (const PlannedDma& dma : plan.dma) {
            manifest["dma"].push_back(
                with_slice(dma_entry(dma, fmt::format("dma.{}.{}", dma.name, plan.slice)), plan.slice));
        }
        for (const PlannedIrq& irq : plan.irqs) {
            manifest["irqs"].push_back(
                with_slice(irq_entry(irq, fmt::format("irq.{}.{}", irq.name, plan.slice)), plan.slice));
        }
    }
    return manifest;
}

}  // namespace postern
