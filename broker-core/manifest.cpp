// SPDX-License-Identifier: Apache-2.0
#include "broker-core/manifest.h"

namespace postern {
namespace {

/// sd_listen_fds(3): the first passed fd.
constexpr size_t kFirstFd = 3;

Json skeleton(const std::string& grant, const DevicePlan& device, const std::vector<std::string>& fd_names,
              unsigned slice) {
    Json fds = Json::object();
    for (size_t i = 0; i < fd_names.size(); ++i) fds[fd_names[i]] = kFirstFd + i;
    Json ioctls = Json::array();
    for (const IoctlRule& rule : device.ioctls) ioctls.push_back(for_manifest(rule, slice));
    return {{"postern", 1},
            {"grant", grant},
            {"device", device.bdf},
            {"fds", std::move(fds)},
            {"windows", Json::array()},
            {"dma", Json::array()},
            {"irqs", Json::array()},
            {"ioctls", std::move(ioctls)}};
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

Json with_slice(Json entry, unsigned slice) {
    entry["slice"] = slice;
    return entry;
}

}  // namespace

Json client_manifest(const std::string& grant, const DevicePlan& device, const SlicePlan& plan,
                     const std::vector<VendedWindow>& windows, const std::vector<std::string>& fd_names) {
    Json manifest = skeleton(grant, device, fd_names, plan.slice);
    manifest["slice"] = plan.slice;
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
    return manifest;
}

Json program_manifest(const std::string& grant, const DevicePlan& device, std::optional<unsigned> slice,
                      const std::vector<std::string>& fd_names) {
    Json manifest = skeleton(grant, device, fd_names, slice.value_or(0));
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
