// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "broker-core/json_reader.h"
#include "broker-core/plan.h"

namespace postern {

/// Where a client maps a window from.
struct MmapSource {
    std::string fd;       ///< "device" or "window.NAME"
    uint64_t offset = 0;  ///< for mmap(2)
};

/// What the plan could not know: how each window turned out on this kernel.
struct VendedWindow {
    bool dmabuf = false;  ///< the fd window.NAME is there
    std::optional<MmapSource> mmap;
    /// Its place among the windows of the guarded device fd, or of its own guarded dma-buf where there is no
    /// device fd: by it a client gives up rights.
    std::optional<size_t> guard;
};

/// A manifest (contract: "What the client receives") that lists nothing yet. Pure.
[[nodiscard]] Json empty_manifest(const std::string& grant);
/// Its "fds": `names` in the order of the fds from 3 on. Pure.
[[nodiscard]] Json fd_numbers(const std::vector<std::string>& names);
/// Adds what a client has of a device; `windows` goes with plan.windows. "device" is false for a client
/// without the device fd. Pure.
void add_device(Json& manifest, const DevicePlan& device, const SlicePlan& plan,
                const std::vector<VendedWindow>& windows, bool has_device_fd);
/// Adds a guarded file of the profile's "files", with the values of one slice. Pure.
void add_file(Json& manifest, const FileProfile& file, unsigned slice);

/// The "files" that a client of one slice would read. Pure.
[[nodiscard]] Json plan_files(const Profile& profile, unsigned slice);

/// The manifest of a setup or teardown program: everything of every slice, numbered. `slice` names the one
/// that a per-slice program is for.
[[nodiscard]] Json program_manifest(const std::string& grant, const DevicePlan& device,
                                    std::optional<unsigned> slice, const std::vector<std::string>& fd_names);

}  // namespace postern
