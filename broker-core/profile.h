// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <linux/filter.h>

#include <chrono>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "broker-core/forward.h"
#include "broker-core/id_range.h"
#include "broker-core/ioctl_rule.h"
#include "broker-core/landlock_rules.h"
#include "broker-core/result.h"
#include "broker-core/stepped.h"

namespace postern {

struct Access {
    bool read = false;
    bool write = false;

    [[nodiscard]] std::string text() const { return std::string(read ? "r" : "") + (write ? "w" : ""); }
};

/// A piece of a device's region, or of a file, that a client may use.
struct Window {
    std::string name;
    uint32_t region = 0;  ///< VFIO region index; 0 to 5 are the BARs; of a file 0
    Stepped offset;       ///< bytes from the region's or the file's start
    uint64_t length = 0;  ///< bytes
    Access access;
    bool by_mmap = false;
    bool by_dmabuf = false;
    bool by_pread = false;
    bool shared_page = false;  ///< said to be meant: pages of this window may be another slice's too

    /// Whether clients reach it in whole pages.
    [[nodiscard]] bool by_pages() const { return by_mmap || by_dmabuf; }
    /// Whether clients can read what they may only write: no page of x86 can be written and not read.
    [[nodiscard]] bool reads_although_write_only() const {
        return by_pages() && access.write && !access.read;
    }
};

struct DmaMemory {
    std::string name;
    uint64_t size = 0;  ///< bytes, whole pages
    Stepped iova;
    Access access;  ///< the device's; the client maps its memfd as it likes
    enum class HugePages { Auto, Never, Require } hugepages = HugePages::Auto;
};

/// The part of the device's I/O address space that a client maps its own memory into.
struct DmaMap {
    Stepped iova;
    uint64_t size = 0;  ///< bytes, whole pages
    Access access;      ///< the most that the device may be let do with what is mapped
};

/// A window of this device's that another one may reach by DMA.
struct PeerMapping {
    std::string window;  ///< its name
    std::string device;  ///< PCI address of the other one
    Stepped iova;        ///< what that one calls the window's first byte
    Access access;       ///< what it may do
};

struct Irq {
    std::string name;
    uint32_t index = 0;  ///< VFIO_PCI_INTX_IRQ_INDEX, …
    Stepped vector;
};

/// A setup or teardown program: argv[0] is looked up (see programs.h), the rest is passed on.
using ProgramLine = std::vector<std::string>;

struct Programs {
    std::vector<ProgramLine> device;
    std::vector<ProgramLine> slice;
};

enum class Reset { Never, Before, After, Both };

struct PciMatch {
    std::optional<uint16_t> vendor, device, subsystem_vendor, subsystem_device;
};

struct DeviceProfile {
    PciMatch match;
    std::vector<Window> windows;
    std::vector<IoctlRule> ioctls;
    std::vector<DmaMemory> dma;
    std::optional<DmaMap> dma_map;
    std::vector<PeerMapping> peers;
    std::vector<Irq> irqs;
    Programs setup;
    Programs teardown;
    Reset reset = Reset::Never;
    Forward forward = Forward::Sandbox;
};

/// A file that is no VFIO device, guarded by the same policy engine: a character device, a memfd, a dma-buf.
struct FileProfile {
    std::string name;
    std::string path;  ///< opened anew for each client; empty: `fd` says which
    std::string fd;    ///< of those that postern was started with: a name of LISTEN_FDNAMES, or a number
    Access access;     ///< how `path` is opened
    std::vector<IoctlRule> ioctls;
    std::vector<Window> windows;
    Forward forward = Forward::Sandbox;
};

struct MountEntry {
    std::string type;  ///< bind, tmpfs, proc, dev, overlay, mqueue, dir, symlink, file, data, chmod, ro
    std::string source;
    std::string target;
    std::vector<std::string> options;
    int fd = -1;  ///< of the caller's, named by a flag: what file and data read, what a bind's source is
};

/// The sandbox as the profile words it; the launcher turns it into a SandboxSpec.
struct SandboxProfile {
    std::vector<std::string> namespaces;
    std::string root = "host-ro";  ///< "host-ro", "empty", or an absolute path
    std::vector<MountEntry> mounts;
    std::string seccomp = "default";  ///< "default", "none", or a file, relative to the profile's folder
    /// The program itself, in place of what `seccomp` says. Of the command line.
    std::optional<std::vector<sock_filter>> seccomp_program;
    std::vector<std::string> capabilities;
    bool no_new_privs = true;
    LandlockRules landlock;
    std::map<std::string, std::pair<uint64_t, uint64_t>> rlimits;
    std::map<std::string, std::string> cgroup;
    uint32_t uid = 65534;
    uint32_t gid = 65534;
    bool subids = false;           ///< … and the caller's subordinate ids around them
    std::vector<IdRange> uid_map;  ///< instead: exactly these
    std::vector<IdRange> gid_map;
    std::string hostname = "postern";
    std::map<std::string, std::string> env_set;
    std::vector<std::string> env_keep;
    std::optional<std::string> cwd;
    std::optional<std::chrono::milliseconds> time_limit;
    std::optional<std::chrono::milliseconds> cpu_limit;
    bool loopback = false;  ///< set up, in a network namespace of its own
    std::string netns;      ///< a network namespace to join, by path; empty: none
    bool new_session = true;
    bool client_is_init = false;
    bool disable_userns = false;
    int64_t monotonic_offset = 0;  ///< seconds that the clocks of a time namespace are ahead
    int64_t boottime_offset = 0;
};

struct Profile {
    std::string name;    ///< as errors call it
    std::string folder;  ///< where programs run and relative files are looked for
    std::string description;
    unsigned slices = 1;
    std::optional<DeviceProfile> device;
    std::vector<FileProfile> files;
    SandboxProfile sandbox;
};

/// VFIO region index of "bar0" … "bar5", "rom", "config", "vga"; linux/vfio.h VFIO_PCI_BAR0_REGION_INDEX ….
[[nodiscard]] std::optional<uint32_t> region_index(std::string_view name);
[[nodiscard]] std::string region_name(uint32_t index);
/// "intx", "msi", "msix", "err", "req".
[[nodiscard]] std::string irq_index_name(uint32_t index);

/// All that can be said of a profile without hardware: overlaps of slices, pages, vectors, IOVAs.
[[nodiscard]] Status check_profile(const Profile& profile);

/// What a profile weakens, one sentence each; printed before a launch.
[[nodiscard]] std::vector<std::string> weakenings(const Profile& profile);

}  // namespace postern
