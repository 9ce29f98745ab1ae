// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <vector>

#include "broker-core/device_access.h"
#include "broker-core/device_info.h"
#include "broker-core/grant.h"
#include "broker-core/guard.h"
#include "broker-core/json_reader.h"
#include "broker-core/plan.h"
#include "broker-core/profile.h"
#include "broker-core/result.h"
#include "broker-core/unique_fd.h"
#include "launcher/cgroup.h"
#include "launcher/sandbox.h"
#include "libpostern/libpostern.h"

// What the handles of the C API are made of. A context owns its devices and grants; all of them are used
// under its lock. NOLINTBEGIN(readability-identifier-naming): the C API's names

/// Memory that the library has mapped for a device; unmapping it from the device is the device's.
struct libpostern_mapping {
    postern::UniqueFd memfd;
    void* address = nullptr;
    uint64_t size = 0;
    uint64_t iova = 0;

    libpostern_mapping() = default;
    libpostern_mapping(libpostern_mapping&& other) noexcept;
    libpostern_mapping& operator=(libpostern_mapping&& other) noexcept;
    libpostern_mapping(const libpostern_mapping&) = delete;
    libpostern_mapping& operator=(const libpostern_mapping&) = delete;
    ~libpostern_mapping();
};

struct libpostern_device {
    struct libpostern_context* context = nullptr;
    std::string bdf;
    postern::DeviceInfo info;
    std::unique_ptr<postern::DeviceAccess> access;  ///< empty: closed
    bool maps = true;                               ///< false: the caller has kept the container
    std::optional<uint16_t> command_before;
    std::vector<uint32_t> wired;
    std::vector<libpostern_mapping> memory;
};

struct libpostern_profile {
    postern::Profile profile;
    std::string weakenings;
};

struct libpostern_policy {
    postern::Json document;    ///< of one that is built up; null: of a profile
    postern::Profile profile;  ///< with a device part
    unsigned slice = 0;
};

struct libpostern_grant {
    struct libpostern_context* context = nullptr;
    postern::Grant grant;
    postern::Profile sandbox;
    std::optional<postern::Cgroup> cgroup;
    libpostern_device* device = nullptr;
    std::vector<postern::PlannedWindow> windows;
    std::vector<bool> shared;  ///< of each window: said to be meant
    postern::Forward forward = postern::Forward::Anyone;
    bool admitted = false;
    bool finished = false;  ///< the manifest is written
    std::optional<postern::RunningClient> client;
    postern::UniqueFd pidfd;  ///< the client's, for whoever polls it; it outlives the wait for its end
    std::optional<libpostern_exit> exit;
};

struct libpostern_context {
    std::recursive_mutex mutex;
    pid_t owner = 0;
    std::optional<postern::Guard> guard;
    std::vector<std::unique_ptr<libpostern_device>> devices;
    std::vector<std::unique_ptr<libpostern_grant>> grants;
};

// NOLINTEND(readability-identifier-naming)

namespace postern::library {

/// Finds the library's own files. For the functions that may be a program's first.
void prepare_library();

/// The guard, acquired now if it is not yet.
[[nodiscard]] Result<Guard*> guard_of(struct libpostern_context& context);

/// Undoes what was done to the device and closes it. Goes on after an error and returns the first.
[[nodiscard]] Status close_device(libpostern_device& device);
/// What libpostern_grant_end() does, up to the handle.
[[nodiscard]] Status end_grant(libpostern_grant& grant);
/// Refuses every further call on its guarded files.
[[nodiscard]] Status revoke_grant(libpostern_grant& grant);
/// Writes the manifest: from now on nothing can be added.
[[nodiscard]] Status finish_once(libpostern_grant& grant);

/// Making and removing cgroups may move this whole process (see CgroupParent): one at a time, of all
/// contexts.
[[nodiscard]] std::mutex& cgroup_mutex();

/// Keeps the first error of several steps that all have to be done.
void keep_first(Status& first, Status&& next);

}  // namespace postern::library
