// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "bpf/policy.h"
#include "broker-core/forward.h"
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

/// A test of one field of an ioctl's argument block: (value & mask) lies in one of the ranges.
struct FieldTest {
    uint16_t offset = 0;  ///< bytes from the block's start
    uint8_t width = 4;    ///< bytes, 1 to 8; little endian
    uint64_t mask = ~0ULL;
    std::vector<std::pair<uint64_t, uint64_t>> ranges;  ///< first and last value
    /// Where the block has a length (8 bytes): then the field is where a range of that many bytes begins, and
    /// the whole of it has to lie in one of `ranges`.
    std::optional<uint16_t> length_at = {};
};

/// The tests that must all hold.
using Alternative = std::vector<FieldTest>;

/// An ioctl that may be called: with any argument, or with a sealed block that fits one of the alternatives.
struct GuardIoctl {
    uint32_t number = 0;
    std::vector<Alternative> alternatives = {};
    uint16_t block_size = 0;                ///< bytes that the kernel reads at least
    uint16_t size_at = POSTERN_SIZE_FIXED;  ///< offset of the block's own word (32 bits) on how long it is
};

/// What may be done with one struct file; everything that is not here is refused.
struct FilePolicy {
    std::string grant;
    /// For people who ask whose file it is; cut off where it does not fit.
    std::string device, profile;
    unsigned slice = 0;
    uint16_t file = 0;  ///< which of the grant's files it is
    /// One number may stand more than once: any of its entries allows it.
    std::vector<GuardIoctl> ioctls;
    std::vector<GuardWindow> windows;
    Forward forward = Forward::Never;
    uint64_t sandbox_cgroup_id = 0;  ///< id of the cgroup v2 folder of the client's sandbox; 0: none
    uint32_t cgroup_level = 0;       ///< its depth; the root is 0
    /// Inside every sandbox, files of the same kind (struct file_operations) that are not registered are
    /// refused everything. Right for the files of a driver, wrong for memfds.
    bool exclusive = true;
    /// Inside its sandbox, other open files of the same inode, or of the same character device, are refused
    /// everything: right for memfds and devices, which can be opened anew.
    bool only_way = false;
    /// The file cannot be opened twice: the policy is its sandbox's on the owner's own struct file.
    bool shared = false;
    /// Its driver has no reads, so that a refused one shows nothing.
    bool unreadable = false;
};

/// The policy in the form in which it crosses into the kernel. Error: something that does not fit there or
/// makes no sense, such as an empty window. Pure.
[[nodiscard]] Result<postern_policy> encode(const FilePolicy& policy);

/// Whether `there` allows what `asked` does: its client has given up nothing, and it is not revoked. Pure.
[[nodiscard]] bool allows_the_same(const postern_policy& there, const postern_policy& asked);

}  // namespace postern
