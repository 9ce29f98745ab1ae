// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "broker-core/device_info.h"
#include "broker-core/json_reader.h"
#include "broker-core/pci.h"
#include "broker-core/result.h"
#include "broker-core/unique_fd.h"

namespace postern {

/// By which of the kernel's interfaces a device and its IOMMU are owned.
enum class Backend {
    Auto,     ///< what the machine has: Iommufd, else Type1, else Cdev
    Type1,    ///< the IOMMU group /dev/vfio/N in a container with the type 1 IOMMU
    Iommufd,  ///< the IOMMU group in an iommufd (Linux 6.2)
    Cdev,     ///< the character device /dev/vfio/devices/vfioN, bound to an iommufd (Linux 6.6)
};

/// "auto", "type1", "iommufd", "cdev"; an error names them.
[[nodiscard]] Result<Backend> parse_backend(std::string_view name);
[[nodiscard]] std::string_view backend_name(Backend backend);

/// What of it a machine has for a device.
struct BackendNodes {
    bool group = false;      ///< /dev/vfio/N
    bool container = false;  ///< /dev/vfio/vfio
    bool iommufd = false;    ///< /dev/iommu
    bool cdev = false;       ///< /dev/vfio/devices/vfioN
};
[[nodiscard]] BackendNodes backend_nodes(const PciDevice& pci);

/// Which one it is to be; `needs_iommufd` says that the profile has something that only an iommufd can do. An
/// error says what is missing and how to mend it. Never Auto. Pure.
[[nodiscard]] Result<Backend> choose_backend(Backend wanted, const BackendNodes& nodes, bool needs_iommufd);
/// What is wanted where nobody says so: $POSTERN_BACKEND, else Auto.
[[nodiscard]] Result<Backend> default_backend();

/// Memory to be mapped for DMA: the whole of a memfd.
struct DmaSource {
    int memfd = -1;           ///< borrowed
    void* address = nullptr;  ///< the same memory in this process
    uint64_t size = 0;        ///< bytes
};

/// What the IOMMU maps for a device.
struct IovaSpace {
    std::vector<Range> ranges;       ///< empty where the kernel does not tell
    uint64_t alignment = kPageSize;  ///< of addresses and sizes, bytes
};

/// A device, with the address space that its DMA goes through, owned by this process by one of the backends.
/// No decisions here. Destroying it closes all of it: DMA mappings last as long as some file of it is open.
class DeviceAccess {
  public:
    /// Owns the device. A device or group that another process has is an error that names the process.
    [[nodiscard]] static Result<std::unique_ptr<DeviceAccess>> open(const PciDevice& pci, Backend backend);
    /// Takes up what another process owned: its files() and text().
    [[nodiscard]] static Result<std::unique_ptr<DeviceAccess>> adopt(const std::string& bdf, const Json& text,
                                                                     std::vector<UniqueFd> files);
    /// A device that somebody opened by its group: `container` may be empty, and then nothing is mapped.
    [[nodiscard]] static std::unique_ptr<DeviceAccess> of_group(std::string bdf, UniqueFd container,
                                                                UniqueFd group, UniqueFd device);

    DeviceAccess(const DeviceAccess&) = delete;
    DeviceAccess& operator=(const DeviceAccess&) = delete;
    virtual ~DeviceAccess() = default;

    [[nodiscard]] virtual Backend backend() const = 0;
    /// The owner's file of the device; borrowed.
    [[nodiscard]] int device() const { return device_.get(); }
    /// A file of the device for a client: another struct file or, where there can be but one, a duplicate.
    [[nodiscard]] virtual Result<UniqueFd> client_file() const = 0;
    /// Whether that is the owner's own struct file.
    [[nodiscard]] virtual bool is_shared() const = 0;

    [[nodiscard]] virtual Result<IovaSpace> iova_space() const = 0;
    /// Maps `memory` at `iova` for the device's reads and writes. It stays pinned until it is unmapped.
    [[nodiscard]] virtual Status map(const DmaSource& memory, uint64_t iova, bool read, bool write) = 0;
    /// Nothing mapped there is no error.
    [[nodiscard]] virtual Status unmap(uint64_t iova, uint64_t size) = 0;

    /// The iommufd, and the id of the address space in it; -1 and 0 where there is none. Borrowed.
    [[nodiscard]] virtual int iommufd() const { return -1; }
    [[nodiscard]] virtual uint32_t ioas() const { return 0; }

    /// All open files, borrowed, and what else adopt() needs to know.
    [[nodiscard]] virtual std::vector<int> files() const = 0;
    [[nodiscard]] virtual Json text() const = 0;
    /// Files of kinds that no client may have but as granted: groups, containers, iommufds. Borrowed.
    [[nodiscard]] virtual std::vector<int> not_for_clients() const = 0;

  protected:
    explicit DeviceAccess(UniqueFd device) : device_(std::move(device)) {}
    UniqueFd device_;
};

}  // namespace postern
