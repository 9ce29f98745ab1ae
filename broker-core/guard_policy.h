// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "bpf/policy.h"
#include "broker-core/profile.h"
#include "broker-core/result.h"

namespace postern {

/// A range of a file that may be used, and how.
struct GuardWindow {
    uint64_t offset = 0;  ///< bytes, in the offset space of mmap(2) and pread(2) on the file
    uint64_t length =
        0;  ///< bytes; a mapping may use the range rounded out to pages, pread exactly the range
    uint64_t vma_offset = 0;  ///< bytes; measure_vma_offset() of `offset` where `mmap` is set
    bool read = false;
    bool write = false;
    bool mmap = false;   ///< mmap(2) with MAP_SHARED
    bool pread = false;  ///< pread(2) and pwrite(2)
};

/// What may be done with one struct file; everything that is not here is refused.
struct FilePolicy {
    std::string grant;
    std::vector<uint32_t> ioctls;
    std::vector<GuardWindow> windows;
    Forward forward = Forward::Never;
    uint64_t sandbox_cgroup_id = 0;  ///< id of the cgroup v2 folder of the client's sandbox; 0: none
    uint32_t cgroup_level = 0;       ///< its depth; the root is 0
    /// Inside every sandbox, files of the same kind (struct file_operations) that are not registered are
    /// refused everything. Right for the files of a driver, wrong for memfds.
    bool exclusive = true;
};

/// The policy in the form in which it crosses into the kernel. Error: something that does not fit there or
/// makes no sense, such as an empty window. Pure.
[[nodiscard]] Result<postern_policy> encode(const FilePolicy& policy);

}  // namespace postern
