// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "broker-core/device_access.h"
#include "broker-core/grant.h"
#include "broker-core/guard.h"
#include "broker-core/manifest.h"
#include "broker-core/pci.h"
#include "broker-core/plan.h"
#include "broker-core/programs.h"
#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// Memory mapped by this process, and by none that it makes.
class MappedRange {
  public:
    MappedRange() = default;
    MappedRange(void* at, uint64_t size) : at_(at), size_(size) {}
    MappedRange(MappedRange&& other) noexcept : at_(std::exchange(other.at_, nullptr)), size_(other.size_) {}
    MappedRange& operator=(MappedRange&& other) noexcept;
    MappedRange(const MappedRange&) = delete;
    MappedRange& operator=(const MappedRange&) = delete;
    ~MappedRange();
    [[nodiscard]] void* at() const { return at_; }

  private:
    void* at_ = nullptr;  ///< nullptr: nothing
    uint64_t size_ = 0;
};

/// Memory that the device reaches, owned by the session and lent to clients and programs.
struct DmaBacking {
    std::string name;
    UniqueFd memfd;  ///< sealed against shrinking and growing
    uint64_t size = 0;
    uint64_t iova = 0;
    MappedRange mapping = {};  ///< only until VFIO has pinned the pages
};

/// What another process needs to own a device, or a slice of it, in this one's place. The fds are borrowed.
struct SessionFiles {
    Json text;
    std::vector<int> fds;
};

/// The same, found where it was kept.
struct KeptFiles {
    Json text;
    std::vector<UniqueFd> fds;
};

struct IrqBacking {
    std::string name;
    uint32_t index = 0;
    uint32_t vector = 0;
    UniqueFd eventfd;
};

/// What one client after the other gets anew.
struct SliceBacking {
    std::vector<DmaBacking> dma;
    std::vector<IrqBacking> irqs;
};

/// A PCI device that this process owns through VFIO, by one of the backends, with DMA memory and interrupts
/// of every slice, set up by the profile's programs. Grants are made from it. Ending it (close(), or the
/// destructor) runs the teardown programs and leaves the device as it was found.
class DeviceSession {
  public:
    /// Whether `profile` is for this device and its programs are there, as far as that can be seen before the
    /// device is opened, or bound.
    [[nodiscard]] static Status check(const Profile& profile, const PciDevice& pci);
    /// Owns the device at `bdf` and prepares it for all slices of `profile`, device-wide setup included. On
    /// an error nothing is left.
    [[nodiscard]] static Result<DeviceSession> open(const Profile& profile, const std::string& bdf,
                                                    Backend backend,
                                                    ProgramSignals signals = ProgramSignals::End);

    /// Takes up what another process owned: `device` of device_files(), and slice_files() of every slice.
    /// Files that are shared with clients have been claimed (Guard::claim()). The setup programs have run
    /// already. An error, such as a profile that the device was not set up for, leaves the device to whoever
    /// else has its files.
    [[nodiscard]] static Result<DeviceSession> adopt(const Profile& profile, const std::string& bdf,
                                                     KeptFiles device, std::vector<KeptFiles> slices,
                                                     ProgramSignals signals);
    [[nodiscard]] SessionFiles device_files() const;
    [[nodiscard]] SessionFiles slice_files(unsigned slice) const;
    /// Forgets the device without touching it: somebody else has its files.
    void leave();

    DeviceSession(DeviceSession&&) noexcept = default;
    DeviceSession& operator=(DeviceSession&&) = delete;
    DeviceSession(const DeviceSession&) = delete;
    DeviceSession& operator=(const DeviceSession&) = delete;
    ~DeviceSession();

    [[nodiscard]] const DevicePlan& plan() const { return plan_; }
    /// The owner's file of the device, unguarded; borrowed.
    [[nodiscard]] int device() const { return access_->device(); }
    [[nodiscard]] const DeviceAccess& access() const { return *access_; }
    /// Whether clients get a file of the owner's own: the device's (a cdev), or the iommufd ("dma_map").
    [[nodiscard]] bool shares_files() const;

    /// While a client has the slice: makes the memory and eventfds of the next one, so that begin_slice() has
    /// only to put them in their places. Frees what earlier ones had. Not needed, and may be repeated.
    /// Error: above all, that it would be more memory than is kept waiting; begin_slice() makes it then.
    [[nodiscard]] Status prepare_slice(unsigned slice);
    [[nodiscard]] bool is_prepared(unsigned slice) const { return next_.contains(slice); }
    /// Makes the slice ready for a client: after an earlier one it gets memory and eventfds that nobody has
    /// seen, at the same IOVAs and vectors, and its setup programs run.
    [[nodiscard]] Status begin_slice(unsigned slice);
    /// Adds to the grant what its slice, which is ready, has: the files that lead to its windows, guarded
    /// (add_device_files()), memfds, eventfds.
    [[nodiscard]] Status add_to(Grant& grant, Guard& guard, const SandboxIdentity& sandbox);
    /// The same for the client that comes after the slice's next begin_slice(), with what prepare_slice() has
    /// made; until then it must not run.
    [[nodiscard]] Status add_next_to(Grant& grant, Guard& guard, const SandboxIdentity& sandbox);

    /// A slice that is made ready, and a whole grant with a plain device fd: everything may be done with it.
    /// What a client has without postern; for benchmarks and as the positive control of tests.
    [[nodiscard]] Result<Grant> grant_unguarded(unsigned slice);

    /// What the client mapped itself and left. It is gone, so nobody maps more. May be repeated.
    [[nodiscard]] Status unmap_own(unsigned slice);
    /// Runs the slice's teardown programs, once its client is gone, and masks its interrupts. Goes on after
    /// an error and returns the first. May be repeated.
    [[nodiscard]] Status end_slice(unsigned slice);
    /// Resets the whole device and runs the device-wide setup programs again; no slice may have a client.
    [[nodiscard]] Status reset();

    /// Another device's slice whose window this device may reach by DMA.
    struct Reaching {
        std::string device;  ///< PCI address of the other one
        unsigned slice = 0;  ///< of the other one
        uint64_t iova = 0;
        uint64_t size = 0;  ///< bytes
        bool operator==(const Reaching&) const = default;
    };
    /// Keeps a part of this device's address space for `peer`, a window of slice `slice` of `device`. To be
    /// kept (device_files()) before map_peer(): what is mapped is then known to whoever takes the device up.
    [[nodiscard]] Status reserve_peer(const std::string& device, unsigned slice, const PlannedPeer& peer);
    /// Maps it: `dmabuf`, borrowed, of the peer's pages. The mapping keeps it, and ends with unmap_peers() or
    /// when the other device is reset, loses its memory space or its driver.
    [[nodiscard]] Status map_peer(int dmabuf, const PlannedPeer& peer);
    /// Ends what was reserved for a slice of another device; true if there was something.
    [[nodiscard]] Result<bool> unmap_peers(const std::string& device, unsigned slice);
    [[nodiscard]] bool reaches_others() const { return !reaching_.empty(); }
    /// A dma-buf of a peer's pages of this device.
    [[nodiscard]] Result<UniqueFd> export_for(const PlannedPeer& peer) const;

    /// Teardown programs, interrupts off, reset if the profile says so, command register as it was, DMA
    /// unmapped. Goes on after an error and returns the first. Idempotent.
    Status close();

  private:
    DeviceSession() = default;

    Status own(const PciDevice& pci, const Profile& profile, Backend wanted);
    Status learn(const PciDevice& pci);
    Status enable_memory_and_bus_master();
    Status map_dma(SliceBacking& backing, const SlicePlan& slice);
    Status wire_irqs();
    Status renew_slice(unsigned slice);
    void free_left();
    Status wire_slice(unsigned slice, bool on);
    Status run_programs(const std::vector<ProgramLine>& programs, const char* what,
                        std::optional<unsigned> slice);
    Status add_dma_map(Grant& grant, Guard* guard, const SandboxIdentity& sandbox);
    Status add_slice(Grant& grant, const SliceBacking& backing, Guard* guard, const SandboxIdentity& sandbox);

    DevicePlan plan_;
    DeviceInfo info_;
    std::string id_;
    std::unique_ptr<DeviceAccess> access_;   ///< empty: closed
    std::vector<SliceBacking> backings_;     ///< by slice
    std::map<unsigned, SliceBacking> next_;  ///< by slice, where it is prepared
    std::vector<SliceBacking> left_;         ///< of clients that are gone; to be freed when there is time
    enum class SliceState {
        Fresh,    ///< as the device-wide setup left it; nobody had its memory
        Used,     ///< made ready for a client
        TornDown  ///< the client is gone; its memory is not the next one's
    };
    std::vector<SliceState> states_;  ///< by slice
    std::vector<Reaching> reaching_;
    std::optional<uint16_t> command_before_;
    std::vector<uint32_t> wired_;  ///< irq indexes
    ProgramSignals signals_ = ProgramSignals::End;
    bool set_up_ = false;  ///< device-wide setup ran: teardown is due
};

}  // namespace postern
