// SPDX-License-Identifier: Apache-2.0
// Rules on the arguments of real ioctls of a real VFIO device, and the memory that an argument may lie in.

#include <fcntl.h>
#include <linux/vfio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <fstream>
#include <string>
#include <vector>

#include "broker-core/ioctl_table.h"
#include "broker-core/vfio_uapi.h"
#include "client/postern.h"
#include "tests/lab/guard_block.h"
#include "tests/lab/guard_edu.h"

namespace postern::test {
namespace {

using Ranges = std::vector<std::pair<uint64_t, uint64_t>>;

constexpr uint16_t kLowPowerEntry = 3;
constexpr uint16_t kLowPowerEntryWithWakeup = 4;
constexpr uint16_t kLowPowerExit = 5;
/// F_SEAL_EXEC and MFD_NOEXEC_SEAL, Linux 6.3.
constexpr unsigned kMfdNoexecSeal = 8;
constexpr int kSealExec = 0x20;
constexpr uint32_t kProbe = VFIO_DEVICE_FEATURE_PROBE;
constexpr uint32_t kProbeSet = VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET;

/// The ioctl as the product's own table knows it, still without rules.
GuardIoctl device_ioctl(const char* name) {
    const IoctlEntry* entry = find_ioctl(IoctlFile::Device, name);
    if (entry == nullptr) return {};
    GuardIoctl ioctl{.number = entry->number};
    ioctl.block_size = entry->block_size;
    ioctl.size_at = entry->size_at.value_or(POSTERN_SIZE_FIXED);
    return ioctl;
}

FieldTest field(const char* ioctl, const char* name, Ranges ranges, uint64_t mask = ~0ULL) {
    FieldTest test;
    for (const IoctlField& each : find_ioctl(IoctlFile::Device, ioctl)->fields) {
        if (each.name != name) continue;
        test.offset = each.offset;
        test.width = each.width;
        test.mask = mask;
        test.ranges = std::move(ranges);
    }
    EXPECT_FALSE(test.ranges.empty()) << ioctl << " has no field " << name;
    return test;
}

FieldTest feature(Ranges ranges, uint64_t mask = ~0ULL) {
    return field("VFIO_DEVICE_FEATURE", "feature", std::move(ranges), mask);
}
FieldTest direction(uint32_t flags) {
    return field("VFIO_DEVICE_FEATURE", "direction", {{flags >> 16, flags >> 16}});
}

/// struct vfio_device_feature and vfio_irq_set, without their flexible arrays.
struct FeatureBlock {
    uint32_t argsz, flags;
};
static_assert(sizeof(FeatureBlock) == sizeof(vfio_device_feature));
struct IrqHead {
    uint32_t argsz = sizeof(IrqHead);
    uint32_t flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER;
    uint32_t index = 0, start = 0, count = 0;
};
static_assert(sizeof(IrqHead) == sizeof(vfio_irq_set));

FeatureBlock feature_block(uint32_t flags, uint32_t argsz = sizeof(FeatureBlock)) {
    return {argsz, flags};
}

class GuardArgumentTest : public EduTest {
  protected:
    /// Registers the device's file with these alternatives for one ioctl. False where the kernel cannot
    /// enforce them: then the file is refused, with the reason, and nothing is left of the attempt.
    bool rule(const char* ioctl, std::vector<Alternative> alternatives) {
        name_ = ioctl;
        FilePolicy policy = GuardTest::policy();
        policy.windows.clear();
        GuardIoctl ruled = device_ioctl(ioctl);
        ruled.alternatives = std::move(alternatives);
        number_ = ruled.number;
        policy.ioctls = {ruled};
        const Status registered = guard_->register_file(fd(), policy);
        if (has_mseal()) {
            EXPECT_TRUE(ok(registered));
            return static_cast<bool>(registered);
        }
        EXPECT_FALSE(guard_->can_rule_arguments());
        EXPECT_FALSE(registered);
        if (!registered) {
            EXPECT_NE(std::string::npos, registered.error().message.find("mseal"))
                << registered.error().message;
        }
        EXPECT_EQ(0U, registered_files());
        // It is not half registered: as before, whatever the device knows may be called.
        vfio_device_info info{};
        info.argsz = sizeof info;
        EXPECT_EQ(0, outcome([&] { return ::ioctl(fd(), VFIO_DEVICE_GET_INFO, &info); }));
        // The control: without the rules it is taken.
        policy.ioctls = {{.number = number_}};
        EXPECT_TRUE(ok(guard_->register_file(fd(), policy)));
        EXPECT_EQ(1U, registered_files());
        return false;
    }

    /// On the guarded file, in sealed memory.
    template <typename Block>
    int sealed(const Block& block) {
        const LaidOut made = lay_out(&block, sizeof block);
        EXPECT_NE(nullptr, made.block) << std::strerror(errno);
        return made.block == nullptr ? kWrong : ruled_ioctl(fd(), number_, made.block);
    }
    /// The same argument on the owner's file, which nobody guards.
    template <typename Block>
    int unguarded(const Block& block) {
        Block copy = block;
        return outcome([&] { return ::ioctl(owner(), number_, &copy); });
    }

    /// 0 on both files.
    template <typename Block>
    void expect_allowed(const Block& block) {
        EXPECT_EQ(0, unguarded(block));
        EXPECT_EQ(0, sealed(block));
    }
    /// Good enough for the device, not for the guard.
    template <typename Block>
    void expect_refused(const Block& block) {
        EXPECT_EQ(0, unguarded(block));
        EXPECT_EQ(EPERM, sealed(block));
    }

    /// One word of a block by the guarded file and, as control, by the owner's, both from that very memory.
    void expect_refused_in(const LaidOut& made) {
        ASSERT_NE(nullptr, made.block) << std::strerror(errno);
        EXPECT_EQ(0, ruled_ioctl(owner(), number_, made.block));
        EXPECT_EQ(EPERM, ruled_ioctl(fd(), number_, made.block));
    }

    const char* name_ = "";
    uint32_t number_ = 0;
};

// ---- rules
// ---------------------------------------------------------------------------------------------------------

TEST_F(GuardArgumentTest, FeatureAndDirection) {
    if (!rule("VFIO_DEVICE_FEATURE", {{feature({{kLowPowerEntry, kLowPowerEntry}}), direction(kProbeSet)}}))
        return;
    expect_allowed(feature_block(kProbeSet | kLowPowerEntry));
    expect_refused(feature_block(kProbeSet | kLowPowerExit));
    expect_refused(feature_block(kProbe | kLowPowerEntry));
    EXPECT_EQ(EPERM, sealed(feature_block(VFIO_DEVICE_FEATURE_SET | kLowPowerEntry)));
    EXPECT_EQ(EPERM, sealed(feature_block(0)));
    EXPECT_EQ(EPERM, sealed(feature_block(~0U)));
}

TEST_F(GuardArgumentTest, ValuesOfAList) {
    if (!rule("VFIO_DEVICE_FEATURE",
              {{feature({{kLowPowerEntry, kLowPowerEntry}, {kLowPowerExit, kLowPowerExit}})}}))
        return;
    expect_allowed(feature_block(kProbeSet | kLowPowerEntry));
    expect_allowed(feature_block(kProbeSet | kLowPowerExit));
    expect_refused(feature_block(kProbeSet | kLowPowerEntryWithWakeup));
}

TEST_F(GuardArgumentTest, Range) {
    if (!rule("VFIO_DEVICE_FEATURE", {{feature({{kLowPowerEntryWithWakeup, kLowPowerExit}})}})) return;
    expect_allowed(feature_block(kProbeSet | kLowPowerEntryWithWakeup));
    expect_allowed(feature_block(kProbeSet | kLowPowerExit));
    expect_refused(feature_block(kProbeSet | kLowPowerEntry));
    EXPECT_EQ(EPERM, sealed(feature_block(kProbeSet | (kLowPowerExit + 1))));
}

TEST_F(GuardArgumentTest, Mask) {
    // Odd features only, whatever else there is in the flags.
    if (!rule("VFIO_DEVICE_FEATURE", {{field("VFIO_DEVICE_FEATURE", "flags", {{1, 1}}, 1)}})) return;
    expect_allowed(feature_block(kProbeSet | kLowPowerEntry));
    expect_allowed(feature_block(kProbe | kLowPowerExit));
    expect_refused(feature_block(kProbeSet | kLowPowerEntryWithWakeup));
}

TEST_F(GuardArgumentTest, AlternativesAreNotMixed) {
    if (!rule("VFIO_DEVICE_FEATURE", {{feature({{kLowPowerEntry, kLowPowerEntry}}), direction(kProbeSet)},
                                      {feature({{kLowPowerExit, kLowPowerExit}}), direction(kProbe)}}))
        return;
    expect_allowed(feature_block(kProbeSet | kLowPowerEntry));
    expect_allowed(feature_block(kProbe | kLowPowerExit));
    expect_refused(feature_block(kProbe | kLowPowerEntry));
    expect_refused(feature_block(kProbeSet | kLowPowerExit));
}

/// struct vfio_irq_set with one eventfd.
struct IrqBlock {
    uint32_t argsz = sizeof(IrqBlock);
    uint32_t flags = VFIO_IRQ_SET_DATA_EVENTFD | VFIO_IRQ_SET_ACTION_TRIGGER;
    uint32_t index = 0, start = 0, count = 1;
    int32_t eventfd = -1;
};
static_assert(offsetof(IrqBlock, eventfd) == sizeof(vfio_irq_set));

TEST_F(GuardArgumentTest, InterruptIndexAndStart) {
    const char* name = "VFIO_DEVICE_SET_IRQS";
    if (!rule(name, {{field(name, "index", {{VFIO_PCI_MSI_IRQ_INDEX, VFIO_PCI_MSI_IRQ_INDEX}}),
                      field(name, "start", {{0, 0}}), field(name, "count", {{0, 1}})}}))
        return;
    const UniqueFd event(::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK));
    const auto wire = [&](uint32_t index, uint32_t start) {
        IrqBlock block;
        block.index = index;
        block.start = start;
        block.eventfd = event.get();
        return block;
    };
    const auto unwire = [](uint32_t index) {
        IrqHead none;
        none.index = index;
        return none;
    };

    EXPECT_EQ(0, sealed(wire(VFIO_PCI_MSI_IRQ_INDEX, 0)));
    // It is wired indeed: the eventfd takes the device's trigger.
    IrqHead trigger = unwire(VFIO_PCI_MSI_IRQ_INDEX);
    trigger.count = 1;
    ASSERT_EQ(0, outcome([&] { return ::ioctl(owner(), VFIO_DEVICE_SET_IRQS, &trigger); }));
    uint64_t count = 0;
    EXPECT_EQ(static_cast<ssize_t>(sizeof count), ::read(event.get(), &count, sizeof count));
    EXPECT_EQ(EPERM, sealed(wire(VFIO_PCI_MSI_IRQ_INDEX, 1)));
    EXPECT_EQ(EPERM, sealed(unwire(VFIO_PCI_INTX_IRQ_INDEX)));
    EXPECT_EQ(0, sealed(unwire(VFIO_PCI_MSI_IRQ_INDEX)));

    EXPECT_EQ(EPERM, sealed(wire(VFIO_PCI_INTX_IRQ_INDEX, 0)));
    // The control: the owner may.
    EXPECT_EQ(0, unguarded(wire(VFIO_PCI_INTX_IRQ_INDEX, 0)));
    EXPECT_EQ(0, unguarded(unwire(VFIO_PCI_INTX_IRQ_INDEX)));
}

TEST_F(GuardArgumentTest, OtherIoctlsStayRefused) {
    if (!rule("VFIO_DEVICE_FEATURE", {{feature({{kLowPowerEntry, kLowPowerEntry}})}})) return;
    vfio_device_info info{};
    info.argsz = sizeof info;
    const LaidOut made = lay_out(&info, sizeof info);
    ASSERT_NE(nullptr, made.block);
    EXPECT_EQ(0, outcome([&] { return ::ioctl(owner(), VFIO_DEVICE_GET_INFO, &info); }));
    EXPECT_EQ(EPERM, ruled_ioctl(fd(), VFIO_DEVICE_GET_INFO, made.block));
}

// ---- the client's header
// -------------------------------------------------------------------------------------------

TEST_F(GuardArgumentTest, ThroughTheClientsHeader) {
    if (!rule("VFIO_DEVICE_FEATURE", {{feature({{kLowPowerEntry, kLowPowerEntry}})}})) return;
    const auto call = [&](uint32_t flags) {
        const FeatureBlock block = feature_block(flags);
        return outcome([&] { return postern_ioctl(fd(), VFIO_DEVICE_FEATURE, &block, sizeof block); });
    };
    for (int i = 0; i < 3; ++i) {
        EXPECT_EQ(0, call(kProbeSet | kLowPowerEntry));
        EXPECT_EQ(EPERM, call(kProbeSet | kLowPowerExit));
    }
}

// ---- where a block may lie
// -----------------------------------------------------------------------------------------

class GuardBlockTest : public GuardArgumentTest {
  protected:
    bool rule_feature() {
        return rule("VFIO_DEVICE_FEATURE", {{feature({{kLowPowerEntry, kLowPowerEntry}})}});
    }
    LaidOut made(const Recipe& recipe) { return lay_out(&good_, sizeof good_, recipe); }

    const FeatureBlock good_ = feature_block(kProbeSet | kLowPowerEntry);
};

TEST_F(GuardBlockTest, SealedMemory) {
    if (!rule_feature()) return;
    const auto allowed = [&](const LaidOut& block) {
        ASSERT_NE(nullptr, block.block) << std::strerror(errno);
        EXPECT_EQ(0, ruled_ioctl(fd(), number_, block.block));
    };
    allowed(made({}));
    allowed(made({.seals = F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL}));
    // An executable one that is sealed as such, the kernel seals against all else, too.
    allowed(made({.seals = kSealExec}));
    allowed(made({.at = 100}));
    allowed(made({.at = kPage - sizeof good_}));
    allowed(made({.at = kPage - 3, .pages = 2}));
}

TEST_F(GuardBlockTest, PlainMemory) {
    if (!rule_feature()) return;
    FeatureBlock plain = good_;
    EXPECT_EQ(0, outcome([&] { return ::ioctl(owner(), number_, &plain); }));
    EXPECT_EQ(EPERM, outcome([&] { return ::ioctl(fd(), number_, &plain); }));
    EXPECT_EQ(0, sealed(good_));
}

TEST_F(GuardBlockTest, SealedAnonymousMemory) {
    // mseal(2) keeps it in its place and lets everybody write to it.
    if (!rule_feature()) return;
    void* page = ::mmap(nullptr, kPage, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(MAP_FAILED, page);
    std::memcpy(page, &good_, sizeof good_);
    ASSERT_EQ(0, ::mprotect(page, kPage, PROT_READ));
    ASSERT_EQ(0, seal_mapping(page, kPage));
    EXPECT_EQ(0, ruled_ioctl(owner(), number_, page));
    EXPECT_EQ(EPERM, ruled_ioctl(fd(), number_, page));
}

TEST_F(GuardBlockTest, MemfdWithoutASeal) {
    if (!rule_feature()) return;
    expect_refused_in(made({.seals = 0}));
    expect_refused_in(made({.seals = F_SEAL_WRITE}));
    expect_refused_in(made({.seals = F_SEAL_SHRINK | F_SEAL_GROW}));
    expect_refused_in(made({.seals = F_SEAL_WRITE | F_SEAL_GROW}));
    // Whoever maps it from now on may not write, whoever has mapped it may.
    expect_refused_in(made({.seals = F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK}));
    // That a file is not to be made executable says nothing of its content.
    expect_refused_in(
        made({.memfd_flags = MFD_CLOEXEC | kMfdNoexecSeal, .seals = kSealExec | F_SEAL_SHRINK}));
}

TEST_F(GuardBlockTest, MappingThatIsNotSealed) {
    if (!rule_feature()) return;
    LaidOut block = made({.mseal = false});
    expect_refused_in(block);
    ASSERT_EQ(0, seal_mapping(block.mapping, block.length));
    EXPECT_EQ(0, ruled_ioctl(fd(), number_, block.block));
}

TEST_F(GuardBlockTest, PrivateMapping) {
    if (!rule_feature()) return;
    expect_refused_in(made({.flags = MAP_PRIVATE}));
    expect_refused_in(made({.protection = PROT_READ | PROT_WRITE, .flags = MAP_PRIVATE}));
}

TEST_F(GuardBlockTest, WritableMapping) {
    if (!rule_feature()) return;
    expect_refused_in(made({.seals = F_SEAL_SHRINK, .protection = PROT_READ | PROT_WRITE}));
    // One that could be made writable.
    expect_refused_in(made({.seals = F_SEAL_SHRINK, .protection = PROT_READ}));
    // And that is why there is no writable mapping of a file that is sealed against writing.
    EXPECT_EQ(nullptr, made({.protection = PROT_READ | PROT_WRITE}).block);
    EXPECT_EQ(EPERM, errno);
}

TEST_F(GuardBlockTest, AcrossTheEndOfTheMapping) {
    if (!rule_feature()) return;
    char* space = static_cast<char*>(
        ::mmap(nullptr, 2 * kPage, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(MAP_FAILED, static_cast<void*>(space));
    const size_t at = kPage - 4;
    std::memcpy(space + at, &good_, sizeof good_);
    // argsz in the sealed page, the rest behind it
    expect_refused_in(made({.at = at, .address = space}));

    // Two pages that are sealed both, of two files: the rule asks for one mapping.
    char* both =
        static_cast<char*>(::mmap(nullptr, 2 * kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0));
    ASSERT_NE(MAP_FAILED, static_cast<void*>(both));
    const LaidOut second = lay_out(reinterpret_cast<const char*>(&good_) + 4, 4, {.address = both + kPage});
    ASSERT_NE(nullptr, second.block);
    expect_refused_in(made({.at = at, .address = both}));
}

TEST_F(GuardBlockTest, SizeBeyondTheMapping) {
    if (!rule_feature()) return;
    for (const uint32_t argsz :
         {static_cast<uint32_t>(kPage), static_cast<uint32_t>(kPage + 1), 0x7fffffffU, ~0U}) {
        SCOPED_TRACE(argsz);
        const FeatureBlock block = feature_block(kProbeSet | kLowPowerEntry, argsz);
        EXPECT_EQ(0, unguarded(block));
        EXPECT_EQ(argsz <= kPage ? 0 : EPERM, sealed(block));
        // A page of it before the block is not behind it.
        const LaidOut later = lay_out(&block, sizeof block, {.at = 8});
        EXPECT_EQ(EPERM, ruled_ioctl(fd(), number_, later.block));
    }
}

TEST_F(GuardBlockTest, BlockThatEndsBeforeTheField) {
    FieldTest payload;
    payload.offset = sizeof(FeatureBlock);
    payload.width = 4;
    payload.ranges = {{0, 0}};
    if (!rule("VFIO_DEVICE_FEATURE", {{payload}})) return;
    // What follows the block is zero in both, and part of the block in one.
    expect_refused(feature_block(kProbeSet | kLowPowerEntry));
    expect_refused(feature_block(kProbeSet | kLowPowerEntry, sizeof(FeatureBlock) + 3));
    expect_allowed(feature_block(kProbeSet | kLowPowerEntry, sizeof(FeatureBlock) + 4));
    // Shorter than the kernel reads: of the guard's and not of the device's measure.
    EXPECT_EQ(EINVAL, unguarded(feature_block(kProbeSet | kLowPowerEntry, 0)));
    EXPECT_EQ(EPERM, sealed(feature_block(kProbeSet | kLowPowerEntry, 0)));
}

TEST_F(GuardBlockTest, FileOnTmpfs) {
    // The same file operations as a memfd's, and no seals.
    if (!rule_feature()) return;
    const std::string path = "/dev/shm/postern-block-" + std::to_string(::getpid());
    UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600));
    ASSERT_TRUE(file) << std::strerror(errno);
    EXPECT_EQ(-1, ::fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK));
    const LaidOut block = lay_out_in(std::move(file), &good_, sizeof good_, {.seals = 0});
    expect_refused_in(block);
    // Read-only from the start.
    UniqueFd again(::open(path.c_str(), O_RDONLY | O_CLOEXEC));
    ::unlink(path.c_str());
    void* mapping = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, again.get(), 0);
    ASSERT_NE(MAP_FAILED, mapping);
    ASSERT_EQ(0, seal_mapping(mapping, kPage));
    EXPECT_EQ(0, ruled_ioctl(owner(), number_, mapping));
    EXPECT_EQ(EPERM, ruled_ioctl(fd(), number_, mapping));
}

TEST_F(GuardBlockTest, FileOnADisk) {
    if (!rule_feature()) return;
    // A page of an executable that nobody can write to while it runs, and still no memfd. Its bytes are no
    // allowed block, so the control is that the driver gets to see them.
    const UniqueFd program(::open("/proc/self/exe", O_RDONLY | O_CLOEXEC));
    void* mapping = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, program.get(), 0);
    ASSERT_NE(MAP_FAILED, mapping);
    ASSERT_EQ(0, seal_mapping(mapping, kPage));
    EXPECT_NE(EPERM, ruled_ioctl(owner(), number_, mapping));
    EXPECT_EQ(EPERM, ruled_ioctl(fd(), number_, mapping));
}

TEST_F(GuardBlockTest, HugePages) {
    if (!rule_feature()) return;
    const char* pool = "/proc/sys/vm/nr_hugepages";
    std::ofstream(pool) << 2 << std::flush;
    constexpr size_t kHuge = 2UL << 20;
    const LaidOut block =
        made({.memfd_flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | MFD_HUGETLB, .page_size = kHuge});
    expect_refused_in(block);
    std::ofstream(pool) << 0 << std::flush;
}

TEST_F(GuardBlockTest, AnotherFileInItsPlace) {
    if (!rule_feature()) return;
    LaidOut open = made({.mseal = false});
    ASSERT_NE(nullptr, open.block);
    // Not sealed in its place, so another file can come there: one that says the same and is not sealed.
    const LaidOut other = made({.seals = 0, .address = open.mapping});
    ASSERT_EQ(open.block, other.block);
    expect_refused_in(other);
}

TEST_F(GuardBlockTest, NothingThere) {
    if (!rule_feature()) return;
    void* page = ::mmap(nullptr, kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    ASSERT_NE(MAP_FAILED, page);
    for (void* where : {page, static_cast<void*>(nullptr), reinterpret_cast<void*>(~0ULL),
                        reinterpret_cast<void*>(0xffff'8880'0000'0000ULL)}) {
        EXPECT_EQ(EFAULT, outcome([&] { return ::ioctl(owner(), number_, where); }));
        EXPECT_EQ(EPERM, outcome([&] { return ::ioctl(fd(), number_, where); }));
    }
    ::munmap(page, kPage);
}

TEST_F(GuardBlockTest, PageThatIsNotInMemory) {
    if (!rule_feature()) return;
    const LaidOut block = made({});
    ASSERT_NE(nullptr, block.block);
    const auto call = [&] { return outcome([&] { return ::ioctl(fd(), number_, block.block); }); };
    EXPECT_EQ(EAGAIN, call());
    (void)*static_cast<const volatile char*>(block.block);
    EXPECT_EQ(0, call());
    // Dropped from the page tables, which mseal(2) allows: the file keeps it.
    ASSERT_EQ(0, ::madvise(block.mapping, kPage, MADV_DONTNEED));
    EXPECT_EQ(EAGAIN, call());
    EXPECT_EQ(0, ruled_ioctl(fd(), number_, block.block));
    // Try again is not a refusal.
    const auto denied = guard_->denied(GuardTest::policy().grant);
    ASSERT_TRUE(ok(denied));
    EXPECT_EQ(0U, *denied);
}

TEST_F(GuardBlockTest, PageThatNoRuleLooksAt) {
    // It looks at the feature, which is the low half of the flags.
    if (!rule_feature()) return;
    const auto call_without_second_page = [&](size_t at) {
        const LaidOut block = made({.at = at, .pages = 2});
        if (block.block == nullptr) return errno;
        (void)*static_cast<const volatile char*>(block.mapping);
        if (::madvise(block.mapping + kPage, kPage, MADV_DONTNEED) != 0) return errno;
        return outcome([&] { return ::ioctl(fd(), number_, block.block); });
    };
    EXPECT_EQ(0, call_without_second_page(kPage - 6));
    // The control: it is not in memory, and here the rule does look at it.
    EXPECT_EQ(EAGAIN, call_without_second_page(kPage - 4));
}

}  // namespace
}  // namespace postern::test
