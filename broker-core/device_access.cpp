// SPDX-License-Identifier: Apache-2.0
#include "broker-core/device_access.h"

#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <cstdlib>
#include <utility>

#include "broker-core/duplicate_fd.h"
#include "broker-core/iommufd.h"
#include "broker-core/vfio.h"

namespace postern {
namespace {

constexpr std::array<std::pair<std::string_view, Backend>, 4> kNames{{{"auto", Backend::Auto},
                                                                      {"type1", Backend::Type1},
                                                                      {"iommufd", Backend::Iommufd},
                                                                      {"cdev", Backend::Cdev}}};

/// The group in a container with the type 1 IOMMU.
class Type1Access : public DeviceAccess {
  public:
    Type1Access(std::string bdf, UniqueFd container, UniqueFd group, UniqueFd device)
        : DeviceAccess(std::move(device)),
          bdf_(std::move(bdf)),
          container_(std::move(container)),
          group_(std::move(group)) {}

    static Result<std::unique_ptr<DeviceAccess>> open(const PciDevice& pci) {
        POSTERN_ASSIGN(UniqueFd container, vfio::open_container());
        POSTERN_ASSIGN(UniqueFd group, vfio::open_group(*pci.iommu_group));
        POSTERN_TRY(vfio::attach_group(container.get(), group.get()));
        POSTERN_ASSIGN(UniqueFd device, vfio::get_device(group.get(), pci.bdf));
        return std::make_unique<Type1Access>(pci.bdf, std::move(container), std::move(group),
                                             std::move(device));
    }

    [[nodiscard]] Backend backend() const override { return Backend::Type1; }
    [[nodiscard]] Result<UniqueFd> client_file() const override {
        return vfio::get_device(group_.get(), bdf_);
    }
    [[nodiscard]] bool is_shared() const override { return false; }
    [[nodiscard]] Result<IovaSpace> iova_space() const override {
        if (!container_) return IovaSpace{};
        POSTERN_ASSIGN(auto ranges, vfio::iova_ranges(container_.get()));
        return IovaSpace{std::move(ranges), kPageSize};
    }
    [[nodiscard]] Status map(const DmaSource& memory, uint64_t iova, bool read, bool write) override {
        return vfio::map_dma(container_.get(), memory.address, memory.size, iova, read, write);
    }
    [[nodiscard]] Status unmap(uint64_t iova, uint64_t size) override {
        return vfio::unmap_dma(container_.get(), iova, size);
    }
    [[nodiscard]] std::vector<int> files() const override {
        return {container_.get(), group_.get(), device_.get()};
    }
    [[nodiscard]] Json text() const override { return {{"backend", backend_name(backend())}}; }
    [[nodiscard]] std::vector<int> not_for_clients() const override {
        std::vector<int> kinds{group_.get()};
        if (container_) kinds.push_back(container_.get());
        return kinds;
    }

  private:
    std::string bdf_;
    UniqueFd container_;
    UniqueFd group_;
};

/// DMA through an address space of an iommufd. A device that came by its group has one; others are the
/// cdev's.
class IommufdAccess : public DeviceAccess {
  public:
    IommufdAccess(std::string bdf, UniqueFd iommufd, uint32_t ioas, UniqueFd group, UniqueFd device)
        : DeviceAccess(std::move(device)),
          bdf_(std::move(bdf)),
          iommufd_(std::move(iommufd)),
          group_(std::move(group)),
          ioas_(ioas) {}

    static Result<std::unique_ptr<DeviceAccess>> open(const PciDevice& pci, bool by_group) {
        POSTERN_ASSIGN(UniqueFd iommufd, iommufd::open());
        POSTERN_ASSIGN(const uint32_t ioas, iommufd::alloc_ioas(iommufd.get()));
        UniqueFd group;
        UniqueFd device;
        if (by_group) {
            POSTERN_TRY(iommufd::set_vfio_ioas(iommufd.get(), ioas));
            POSTERN_ASSIGN(group, vfio::open_group(*pci.iommu_group));
            POSTERN_TRY(vfio::attach_group_to_iommufd(iommufd.get(), group.get()));
            POSTERN_ASSIGN(device, vfio::get_device(group.get(), pci.bdf));
        } else {
            POSTERN_ASSIGN(device, open_cdev(pci, iommufd.get()));
            POSTERN_TRY(iommufd::attach_device(device.get(), ioas));
        }
        return std::make_unique<IommufdAccess>(pci.bdf, std::move(iommufd), ioas, std::move(group),
                                               std::move(device));
    }

    [[nodiscard]] Backend backend() const override { return group_ ? Backend::Iommufd : Backend::Cdev; }
    [[nodiscard]] Result<UniqueFd> client_file() const override {
        if (group_) return vfio::get_device(group_.get(), bdf_);
        return duplicate_fd(device_.get(), "the device's fd");
    }
    [[nodiscard]] bool is_shared() const override { return !group_; }
    [[nodiscard]] Result<IovaSpace> iova_space() const override {
        return iommufd::iova_space(iommufd_.get(), ioas_);
    }
    [[nodiscard]] Status map(const DmaSource& memory, uint64_t iova, bool read, bool write) override {
        return iommufd::map(iommufd_.get(), ioas_, memory, iova, read, write);
    }
    [[nodiscard]] Status unmap(uint64_t iova, uint64_t size) override {
        return iommufd::unmap(iommufd_.get(), ioas_, iova, size);
    }
    [[nodiscard]] int iommufd() const override { return iommufd_.get(); }
    [[nodiscard]] uint32_t ioas() const override { return ioas_; }
    [[nodiscard]] std::vector<int> files() const override {
        if (group_) return {iommufd_.get(), group_.get(), device_.get()};
        return {iommufd_.get(), device_.get()};
    }
    [[nodiscard]] Json text() const override {
        return {{"backend", backend_name(backend())}, {"ioas", ioas_}};
    }
    [[nodiscard]] std::vector<int> not_for_clients() const override {
        std::vector<int> kinds{iommufd_.get()};
        if (group_) kinds.push_back(group_.get());
        return kinds;
    }

  private:
    /// The node can be opened by anyone who may, and is one process's from the binding on.
    static Result<UniqueFd> open_cdev(const PciDevice& pci, int iommufd) {
        const std::string path = "/dev/vfio/devices/" + pci.cdev;
        POSTERN_ASSIGN(UniqueFd device,
                       vfio::open_node(path, "bind the device to vfio-pci (`postern bind`)"));
        Status bound = iommufd::bind_device(device.get(), iommufd);
        if (bound) return device;
        // The kernel says only that it cannot be; this process has the node open itself.
        device.reset();
        if (const int error = bound.error().errnum; error == EINVAL || error == EBUSY) {
            const std::string holder = vfio::holder_of(path);
            if (!holder.empty())
                return Failure(
                    Error{fmt::format("{} is busy: {} has it open; end that first", path, holder), EBUSY});
        }
        return propagate(std::move(bound));
    }

    std::string bdf_;
    UniqueFd iommufd_;
    UniqueFd group_;  ///< empty: the cdev's
    uint32_t ioas_;
};

bool is_usable(const std::string& path) {
    return ::access(path.c_str(), F_OK) == 0;
}

}  // namespace

Result<Backend> parse_backend(std::string_view name) {
    for (const auto& [known, backend] : kNames) {
        if (known == name) return backend;
    }
    return fail("there is no backend \"{}\"; there are auto, type1, iommufd and cdev", name);
}

std::string_view backend_name(Backend backend) {
    for (const auto& [name, known] : kNames) {
        if (known == backend) return name;
    }
    return "?";
}

BackendNodes backend_nodes(const PciDevice& pci) {
    BackendNodes nodes;
    nodes.group = pci.iommu_group && is_usable(fmt::format("/dev/vfio/{}", *pci.iommu_group));
    nodes.container = is_usable("/dev/vfio/vfio");
    nodes.iommufd = is_usable("/dev/iommu");
    nodes.cdev = !pci.cdev.empty() && is_usable("/dev/vfio/devices/" + pci.cdev);
    return nodes;
}

Result<Backend> choose_backend(Backend wanted, const BackendNodes& nodes, bool needs_iommufd) {
    constexpr const char* kNoIommufd =
        "this kernel has no /dev/iommu; boot one that is built with CONFIG_IOMMUFD";
    switch (wanted) {
        case Backend::Type1:
            if (needs_iommufd)
                return fail(
                    "the profile has \"dma_map\", which the backend \"type1\" cannot do; use "
                    "\"iommufd\" or \"cdev\"");
            // What is missing of the nodes is said when they are opened.
            return Backend::Type1;
        case Backend::Iommufd:
            if (!nodes.iommufd) return fail("backend \"iommufd\": {}", kNoIommufd);
            return Backend::Iommufd;
        case Backend::Cdev:
            if (!nodes.iommufd) return fail("backend \"cdev\": {}", kNoIommufd);
            if (!nodes.cdev)
                return fail(
                    "backend \"cdev\": the device has no node in /dev/vfio/devices; boot a kernel that is "
                    "built with CONFIG_VFIO_DEVICE_CDEV");
            return Backend::Cdev;
        case Backend::Auto:
            break;
    }
    if (nodes.iommufd && nodes.group) return Backend::Iommufd;
    if (needs_iommufd && !nodes.iommufd)
        return fail("the profile has \"dma_map\", which needs an iommufd: {}", kNoIommufd);
    if (!nodes.group && nodes.iommufd && nodes.cdev) return Backend::Cdev;
    return Backend::Type1;
}

Result<Backend> default_backend() {
    const char* name = std::getenv("POSTERN_BACKEND");
    if (name == nullptr || *name == '\0') return Backend::Auto;
    auto backend = parse_backend(name);
    if (!backend) return propagate(std::move(backend), "$POSTERN_BACKEND");
    return backend;
}

std::unique_ptr<DeviceAccess> DeviceAccess::of_group(std::string bdf, UniqueFd container, UniqueFd group,
                                                     UniqueFd device) {
    return std::make_unique<Type1Access>(std::move(bdf), std::move(container), std::move(group),
                                         std::move(device));
}

Result<std::unique_ptr<DeviceAccess>> DeviceAccess::open(const PciDevice& pci, Backend backend) {
    switch (backend) {
        case Backend::Iommufd:
            return IommufdAccess::open(pci, true);
        case Backend::Cdev:
            return IommufdAccess::open(pci, false);
        default:
            return Type1Access::open(pci);
    }
}

Result<std::unique_ptr<DeviceAccess>> DeviceAccess::adopt(const std::string& bdf, const Json& text,
                                                          std::vector<UniqueFd> files) {
    POSTERN_ASSIGN(const Backend backend, parse_backend(text.value("backend", std::string("type1"))));
    const size_t wanted = backend == Backend::Cdev ? 2 : 3;
    if (files.size() != wanted)
        return fail("{} kept files, and {} are needed to take it up", files.size(), wanted);
    if (backend == Backend::Type1)
        return std::make_unique<Type1Access>(bdf, std::move(files[0]), std::move(files[1]),
                                             std::move(files[2]));
    const auto ioas = text.value("ioas", uint32_t{0});
    if (backend == Backend::Iommufd)
        return std::make_unique<IommufdAccess>(bdf, std::move(files[0]), ioas, std::move(files[1]),
                                               std::move(files[2]));
    return std::make_unique<IommufdAccess>(bdf, std::move(files[0]), ioas, UniqueFd(), std::move(files[1]));
}

}  // namespace postern
