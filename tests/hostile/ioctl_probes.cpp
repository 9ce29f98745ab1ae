// SPDX-License-Identifier: Apache-2.0
// Every ioctl of a VFIO device file, with arguments that a plain device accepts: linux/vfio.h and, for what
// Debian 12's header does not know yet, the layout in linux/vfio.h of Linux 7.
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/vfio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstring>

#include "tests/hostile/device_ops.h"
#include "tests/hostile/probe.h"

namespace postern::hostile {
namespace {

constexpr unsigned long kSetIrqs = vfio_request(10);
constexpr unsigned long kReset = vfio_request(11);
constexpr unsigned long kHotResetInfo = vfio_request(12);
constexpr unsigned long kHotReset = vfio_request(13);
constexpr unsigned long kQueryGfxPlane = vfio_request(14);
constexpr unsigned long kGetGfxDmabuf = vfio_request(15);
constexpr unsigned long kIoeventfd = vfio_request(16);
constexpr unsigned long kFeature = vfio_request(17);
constexpr unsigned long kBindIommufd = vfio_request(18);
constexpr unsigned long kAttachIommufd = vfio_request(19);
constexpr unsigned long kDetachIommufd = vfio_request(20);
/// The first number past all that Linux 7.3 knows.
constexpr unsigned kFirstUnknown = 21;

// linux/vfio.h since 6.6, 6.19.
struct BindIommufd {
    uint32_t argsz, flags;
    int32_t iommufd;
    uint32_t out_devid;
};
struct AttachIommufd {
    uint32_t argsz, flags, pt_id;
};
struct DetachIommufd {
    uint32_t argsz, flags;
};
constexpr uint32_t kFeatureDmaBuf = 11;
constexpr uint32_t kFeatureBusMaster = 10;
/// struct vfio_device_feature without its flexible array, which C++ does not let stand before a payload.
struct FeatureHeader {
    uint32_t argsz, flags;
};
static_assert(sizeof(FeatureHeader) == sizeof(vfio_device_feature));
struct DmaBufFeature {
    FeatureHeader header;
    uint32_t region_index, open_flags, flags, nr_ranges;
    uint64_t offset, length;
};
static_assert(sizeof(DmaBufFeature) == 8 + 16 + 16);

/// An ioctl whose argument begins with its own size.
template <typename Block>
Attempt ask(const Target& target, unsigned long request, Block block) {
    block.argsz = sizeof block;
    return judged(ioctl(target.device, request, &block));
}

Attempt set_irqs_eventfd(const Target& target, uint32_t index) {
    const int event = eventfd(0, EFD_CLOEXEC);
    if (event < 0) return preparation_failed("eventfd");
    alignas(vfio_irq_set) std::array<char, sizeof(vfio_irq_set) + sizeof(int32_t)> block{};
    vfio_irq_set header{};
    header.argsz = block.size();
    header.flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    header.index = index;
    header.start = 0;
    header.count = 1;
    std::memcpy(block.data(), &header, sizeof header);
    std::memcpy(block.data() + sizeof header, &event, sizeof event);
    return judged(ioctl(target.device, kSetIrqs, block.data()));
}

/// MSI-X, or MSI on a device that has no MSI-X, which answers EINVAL.
Attempt set_irqs_msi(const Target& target) {
    Attempt attempt = set_irqs_eventfd(target, VFIO_PCI_MSIX_IRQ_INDEX);
    return attempt.errnum == EINVAL ? set_irqs_eventfd(target, VFIO_PCI_MSI_IRQ_INDEX) : attempt;
}

Attempt set_irqs_disable(const Target& target) {
    // A device without interrupts in use answers EINVAL to being told to disable them: make it use one first.
    // Inside, this first call is refused like the second.
    (void)set_irqs_msi(target);
    Attempt attempt;
    for (const uint32_t index : {VFIO_PCI_MSIX_IRQ_INDEX, VFIO_PCI_MSI_IRQ_INDEX}) {
        vfio_irq_set request{};
        request.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
        request.index = index;
        attempt = ask(target, kSetIrqs, request);
        if (attempt.errnum != EINVAL) break;
    }
    return attempt;
}

Attempt hot_reset_info(const Target& target) {
    // The header, and room for 64 devices.
    struct {
        uint32_t argsz, flags, count;
        vfio_pci_dependent_device devices[64];
    } info{};
    return ask(target, kHotResetInfo, info);
}

Attempt hot_reset(const Target& target) {
    return ask(target, kHotReset, vfio_pci_hot_reset{});
}

Attempt query_gfx_plane(const Target& target) {
    vfio_device_gfx_plane_info info{};
    info.flags = VFIO_GFX_PLANE_TYPE_PROBE | VFIO_GFX_PLANE_TYPE_DMABUF;
    return ask(target, kQueryGfxPlane, info);
}

Attempt get_gfx_dmabuf(const Target& target) {
    uint32_t id = 0;
    return judged(ioctl(target.device, kGetGfxDmabuf, &id));
}

Attempt ioeventfd(const Target& target, off_t device_offset) {
    const int event = eventfd(0, EFD_CLOEXEC);
    if (event < 0) return preparation_failed("eventfd");
    vfio_device_ioeventfd request{};
    request.flags = VFIO_DEVICE_IOEVENTFD_16;
    request.offset = static_cast<uint64_t>(device_offset);
    request.fd = event;
    Attempt attempt = ask(target, kIoeventfd, request);
    request.fd = -1;  // takes it away again
    (void)ask(target, kIoeventfd, request);
    return attempt;
}

Attempt feature(const Target& target, uint32_t flags) {
    // Room for the payload of any feature named here (the 16 byte UUID of a VF token is the largest).
    struct {
        FeatureHeader header;
        uint64_t payload[4];
    } request{};
    request.header.argsz = sizeof request;
    request.header.flags = flags;
    return judged(ioctl(target.device, kFeature, &request));
}

Attempt feature_low_power(const Target& target) {
    FeatureHeader request{};
    request.flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY;
    Attempt attempt = ask(target, kFeature, request);
    request.flags = VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_LOW_POWER_EXIT;
    (void)ask(target, kFeature, request);
    return attempt;
}

Attempt feature_dma_buf(const Target& target) {
    const Window* own = target.mapped();
    const off_t page = foreign_page(target);
    DmaBufFeature request{};
    request.header.argsz = sizeof request;
    request.header.flags = VFIO_DEVICE_FEATURE_GET | kFeatureDmaBuf;
    request.region_index = own == nullptr ? 0 : own->region;
    request.open_flags = O_RDWR | O_CLOEXEC;
    request.nr_ranges = 1;
    request.offset = static_cast<uint64_t>(page - region_start(request.region_index));
    request.length = kPage;
    return judged(ioctl(target.device, kFeature, &request));
}

Attempt bind_iommufd(const Target& target) {
    BindIommufd request{};
    request.iommufd = open("/dev/iommu", O_RDWR | O_CLOEXEC);  // -1 is a valid argument to be refused too
    return ask(target, kBindIommufd, request);
}

Attempt attach_iommufd(const Target& target) {
    AttachIommufd request{};
    request.pt_id = 1;
    return ask(target, kAttachIommufd, request);
}

Attempt detach_iommufd(const Target& target) {
    return ask(target, kDetachIommufd, DetachIommufd{});
}

/// Those that act on a container or group, tried on the device file. Numbers from 7 on mean something else on
/// a device file and have probes of their own.
Attempt container_ioctls(const Target& target) {
    int fd = -1;
    vfio_group_status status{};
    status.argsz = sizeof status;
    const struct {
        const char* name;
        unsigned long argument;
    } calls[] = {
        {"VFIO_GET_API_VERSION", 0},
        {"VFIO_CHECK_EXTENSION", VFIO_TYPE1v2_IOMMU},
        {"VFIO_SET_IOMMU", VFIO_TYPE1v2_IOMMU},
        {"VFIO_GROUP_GET_STATUS", reinterpret_cast<unsigned long>(&status)},
        {"VFIO_GROUP_SET_CONTAINER", reinterpret_cast<unsigned long>(&fd)},
        {"VFIO_GROUP_UNSET_CONTAINER", 0},
        {"VFIO_GROUP_GET_DEVICE_FD", reinterpret_cast<unsigned long>(target.bdf.c_str())},
    };
    int refusal = 0;
    for (unsigned n = 0; n < 7; ++n) {
        if (ioctl(target.device, vfio_request(n), calls[n].argument) >= 0) return succeeded(calls[n].name);
        // One answer that is no refusal decides for all.
        if (refusal == 0 || (errno != EPERM && errno != EACCES && errno != ENOSYS)) refusal = errno;
    }
    return failed(refusal, "7 calls");
}

Attempt unknown_numbers(const Target& target) {
    int refusal = 0;
    unsigned tried = 0;
    for (unsigned long number = 100 + kFirstUnknown; number < 256; ++number, ++tried) {
        const unsigned long request = (static_cast<unsigned long>(';') << 8) | number;
        if (ioctl(target.device, request, 0UL) >= 0) return succeeded(hex(request));
        if (refusal == 0 || (errno != EPERM && errno != EACCES && errno != ENOSYS)) refusal = errno;
    }
    return failed(refusal, std::to_string(tried) + " numbers");
}

/// ioctl(2) takes an unsigned int: the kernel drops what is above bit 31, and so must whoever compares.
long ask_with_high_bits(const Question& question, int fd) {
    return question.ask(fd, question.request | 0xdeadbeef00000000UL);
}

Attempt refused_with_high_bits(const Target& target) {
    const Question* question = refused_question(target);
    if (question == nullptr) return nothing("the profile grants every ioctl that only asks");
    return judged(ask_with_high_bits(*question, target.device), question->name);
}

Attempt granted_with_high_bits(const Target& target) {
    const Question* question = granted_question(target);
    if (question == nullptr) return ask_granted(target, target.device);
    return judged(ask_with_high_bits(*question, target.device), question->name);
}

Attempt with_type_bits(const Target& target) {
    const Question* question = refused_question(target);
    if (question == nullptr) return nothing("the profile grants every ioctl that only asks");
    // _IOWR with a size: what a driver that masks the number down to type and nr would take for the same.
    const unsigned long request = question->request | (3UL << 30) | (sizeof(vfio_region_info) << 16);
    return judged(question->ask(target.device, request), question->name);
}

Attempt generic_int(const Target& target, unsigned long request, int value) {
    return judged(ioctl(target.device, request, &value));
}

Probe vfio_probe(std::string name, std::string ioctl_name, std::string what,
                 std::function<Attempt(const Target&)> attempt, std::vector<int> inherent = {},
                 std::string why = {}, bool destructive = false) {
    return {.name = std::move(name),
            .group = "ioctl",
            .what = std::move(what),
            .attempt = std::move(attempt),
            .control = ioctl_control(),
            .ioctl = std::move(ioctl_name),
            .inherent = std::move(inherent),
            .inherent_why = std::move(why),
            .destructive = destructive};
}

}  // namespace

void add_ioctl_probes(Probes& probes) {
    for (const Question& question : questions()) {
        std::string name = question.name;
        for (char& c : name) c = c == '_' ? '-' : static_cast<char>(std::tolower(c));
        name = name.substr(sizeof "vfio-device-" - 1);
        probes.push_back(vfio_probe(name, question.name, question.name, [&question](const Target& t) {
            return judged(question.ask(t.device, question.request));
        }));
    }
    probes.push_back(vfio_probe("hot-reset-info", "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO",
                                "VFIO_DEVICE_GET_PCI_HOT_RESET_INFO", hot_reset_info, {ENODEV},
                                "a device on the root bus has no slot or bus reset"));
    probes.push_back(vfio_probe("query-gfx-plane", "VFIO_DEVICE_QUERY_GFX_PLANE",
                                "VFIO_DEVICE_QUERY_GFX_PLANE", query_gfx_plane, {ENOTTY},
                                "only mediated graphics devices have planes"));
    probes.push_back(vfio_probe("get-gfx-dmabuf", "VFIO_DEVICE_GET_GFX_DMABUF", "VFIO_DEVICE_GET_GFX_DMABUF",
                                get_gfx_dmabuf, {ENOTTY}, "only mediated graphics devices have planes"));
    probes.push_back(vfio_probe("ioeventfd", "VFIO_DEVICE_IOEVENTFD",
                                "VFIO_DEVICE_IOEVENTFD: an eventfd that writes outside the window",
                                [](const Target& t) { return ioeventfd(t, foreign_page(t)); }));
    probes.push_back(vfio_probe("feature-dma-buf", "VFIO_DEVICE_FEATURE",
                                "VFIO_DEVICE_FEATURE: a dma-buf of a page outside the window",
                                feature_dma_buf, {ENOTTY, EOPNOTSUPP},
                                "before Linux 6.19 there are no BAR dma-bufs"));
    probes.push_back(vfio_probe(
        "feature-migration", "VFIO_DEVICE_FEATURE", "VFIO_DEVICE_FEATURE: ask whether it can migrate",
        [](const Target& t) {
            return feature(
                t, VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION);
        },
        {ENOTTY}, "plain vfio-pci does not migrate"));
    probes.push_back(vfio_probe(
        "feature-vf-token", "VFIO_DEVICE_FEATURE", "VFIO_DEVICE_FEATURE: set the VF token",
        [](const Target& t) {
            return feature(t, VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_PCI_VF_TOKEN);
        },
        {ENOTTY}, "only a physical function with SR-IOV has a token"));
    probes.push_back(vfio_probe(
        "feature-bus-master", "VFIO_DEVICE_FEATURE", "VFIO_DEVICE_FEATURE: ask for bus master control",
        [](const Target& t) {
            return feature(t, VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET | kFeatureBusMaster);
        },
        {ENOTTY}, "only CDX devices have the feature"));
    probes.push_back(vfio_probe("bind-iommufd", "VFIO_DEVICE_BIND_IOMMUFD", "VFIO_DEVICE_BIND_IOMMUFD",
                                bind_iommufd, {ENOTTY, EINVAL},
                                "a device opened through its group, or bound already, is not bound again"));
    probes.push_back(vfio_probe("attach-iommufd", "VFIO_DEVICE_ATTACH_IOMMUFD_PT",
                                "VFIO_DEVICE_ATTACH_IOMMUFD_PT", attach_iommufd, {ENOTTY, EINVAL},
                                "a device opened through its group has no page table to change"));
    probes.push_back(vfio_probe("detach-iommufd", "VFIO_DEVICE_DETACH_IOMMUFD_PT",
                                "VFIO_DEVICE_DETACH_IOMMUFD_PT", detach_iommufd, {ENOTTY, EINVAL},
                                "a device opened through its group has no page table to change"));
    probes.push_back(vfio_probe("container-ioctls", "",
                                "the 7 ioctls of VFIO containers and groups, on the device file",
                                container_ioctls, {ENOTTY}, "they are not for device files"));
    probes.push_back(vfio_probe("unknown-vfio-ioctls", "",
                                "VFIO ioctl numbers that no kernel has given out yet", unknown_numbers,
                                {ENOTTY}, "no kernel knows them yet"));
    probes.push_back({.name = "high-command-bits",
                      .group = "ioctl",
                      .what = "a refused command with garbage above bit 31",
                      .attempt = refused_with_high_bits,
                      .control = {"a granted command with the same garbage", granted_with_high_bits}});
    probes.push_back(vfio_probe("command-as-iowr", "", "a refused command dressed as _IOWR with a size",
                                with_type_bits, {ENOTTY}, "vfio compares whole numbers"));

    // What ioctl(2) does itself for every file, before the driver is asked.
    probes.push_back(vfio_probe("fioclex", "FIOCLEX", "ioctl FIOCLEX",
                                [](const Target& t) { return judged(ioctl(t.device, FIOCLEX)); }));
    probes.push_back(vfio_probe("fionclex", "FIONCLEX", "ioctl FIONCLEX",
                                [](const Target& t) { return judged(ioctl(t.device, FIONCLEX)); }));
    probes.push_back(vfio_probe("fionbio", "FIONBIO", "ioctl FIONBIO",
                                [](const Target& t) { return generic_int(t, FIONBIO, 0); }));
    probes.push_back(vfio_probe(
        "fioasync", "FIOASYNC", "ioctl FIOASYNC", [](const Target& t) { return generic_int(t, FIOASYNC, 1); },
        {ENOTTY}, "vfio device files have no fasync"));
    probes.push_back(vfio_probe(
        "fs-ioc-getflags", "FS_IOC_GETFLAGS", "ioctl FS_IOC_GETFLAGS",
        [](const Target& t) { return generic_int(t, FS_IOC_GETFLAGS, 0); }, {ENOTTY, EOPNOTSUPP},
        "the file system behind device files has no flags"));

    probes.push_back(vfio_probe(
        "set-irqs-request", "VFIO_DEVICE_SET_IRQS", "VFIO_DEVICE_SET_IRQS: take the device-request event",
        [](const Target& t) { return set_irqs_eventfd(t, VFIO_PCI_REQ_IRQ_INDEX); }, {}, "", true));
    probes.push_back(vfio_probe("set-irqs-msi", "VFIO_DEVICE_SET_IRQS",
                                "VFIO_DEVICE_SET_IRQS: MSI vector 0 to an eventfd of its own", set_irqs_msi,
                                {}, "", true));
    probes.push_back(vfio_probe("set-irqs-disable", "VFIO_DEVICE_SET_IRQS",
                                "VFIO_DEVICE_SET_IRQS: switch MSIs off for every slice", set_irqs_disable, {},
                                "", true));
    probes.push_back(vfio_probe("feature-low-power", "VFIO_DEVICE_FEATURE",
                                "VFIO_DEVICE_FEATURE: send the device to low power", feature_low_power,
                                {ENOTTY, EOPNOTSUPP}, "needs power management in the device", true));
    probes.push_back(vfio_probe(
        "reset", "VFIO_DEVICE_RESET", "VFIO_DEVICE_RESET",
        [](const Target& t) { return judged(ioctl(t.device, kReset)); }, {EINVAL},
        "the device has no reset of its own", true));
    probes.push_back(vfio_probe("hot-reset", "VFIO_DEVICE_PCI_HOT_RESET", "VFIO_DEVICE_PCI_HOT_RESET",
                                hot_reset, {ENODEV, EINVAL},
                                "a device on the root bus has no slot or bus reset", true));
}

}  // namespace postern::hostile
