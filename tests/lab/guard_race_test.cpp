// SPDX-License-Identifier: Apache-2.0
// Clients that change an ioctl's argument between the guard's look and the kernel's.
//
// The ioctl is FIONBIO, which every file has: the kernel copies one int from the caller's memory and sets or
// clears O_NONBLOCK by it. The rule allows 1; a guard that lets a 0 through shows it in F_GETFL.

#include <fcntl.h>
#include <linux/io_uring.h>
#include <linux/udmabuf.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <atomic>
#include <chrono>
#include <cstring>
#include <functional>
#include <thread>
#include <vector>

#include "broker-core/vfio.h"
#include "tests/hostile/uring.h"
#include "tests/lab/guard_block.h"
#include "tests/lab/guard_edu.h"
#include "tests/lab/guard_fault_stall.h"
#include "tests/lab/weak/weak_guard.h"

namespace postern::test {
namespace {

constexpr int kAllowed = 1;
constexpr int kOpen = 0;  ///< Recipe.seals

/// FIONBIO with an int whose bytes from `offset` on hold `value`.
GuardIoctl fionbio(uint16_t offset, uint8_t width, uint64_t value) {
    FieldTest test;
    test.offset = offset;
    test.width = width;
    test.ranges = {{value, value}};
    return {.number = static_cast<uint32_t>(FIONBIO), .alternatives = {{test}}, .block_size = sizeof(int)};
}

bool nonblocking(int file) {
    return (::fcntl(file, F_GETFL) & O_NONBLOCK) != 0;
}

/// An int across the end of a page that is missing: the kernel's copy of it waits for that page, a look at
/// its upper half does not.
struct Straddling {
    Straddling()
        : space(static_cast<char*>(::mmap(nullptr, 2 * kPage, kRw, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0))) {}
    Straddling(const Straddling&) = delete;
    Straddling& operator=(const Straddling&) = delete;
    ~Straddling() { ::munmap(space, 2 * kPage); }

    [[nodiscard]] void* block() const { return space + kPage - 2; }
    [[nodiscard]] char* second_page() const { return space + kPage; }

    char* space;
};
/// The upper half of an int that is in the second page.
constexpr uint16_t kUpperHalf = 2;
constexpr uint16_t kUpperOne = 1;

/// The ioctl with a stalled copy: its result, and whether the copy was reached.
struct Stalled {
    int result = kWrong;
    bool hit = false;
};
Stalled stalled_ioctl(int file, const Straddling& at, std::function<void()> meanwhile) {
    const FaultStall stall(at.space, std::move(meanwhile));
    EXPECT_TRUE(stall.works()) << std::strerror(errno);
    Stalled done;
    if (!stall.works()) return done;
    done.result = outcome([&] { return ::ioctl(file, FIONBIO, at.block()); });
    done.hit = stall.hit();
    return done;
}

FilePolicy with_ioctl(FilePolicy policy, GuardIoctl ioctl) {
    policy.ioctls = {std::move(ioctl)};
    return policy;
}

// ---- the race is real: a guard that reads plain memory
// ----------------------------------------------------------

/// The owner's file is under the weak guard alone. (On every kernel: it needs no mseal.)
class WeakGuardTest : public GuardTest {
  protected:
    void expect_rule_holds_without_a_race() {
        for (const int value : {0x10000, 0, 0x20000}) {
            Straddling at;
            std::memcpy(at.block(), &value, sizeof value);
            (void)::fcntl(owner(), F_SETFL, O_NONBLOCK);
            EXPECT_EQ(value == 0x10000 ? 0 : EPERM,
                      outcome([&] { return ::ioctl(owner(), FIONBIO, at.block()); }))
                << value;
            EXPECT_TRUE(nonblocking(owner()));
        }
    }
    /// The guard sees the value that the rule allows, and then `meanwhile` makes a 0 of it.
    void expect_zero_gets_through(const std::function<void(char* second_page)>& meanwhile) {
        const auto weak = WeakGuard::attach(with_ioctl(policy(), fionbio(kUpperHalf, 2, kUpperOne)));
        ASSERT_TRUE(ok(weak));
        expect_rule_holds_without_a_race();
        Straddling at;
        at.second_page()[0] = kUpperOne;
        const Stalled done = stalled_ioctl(owner(), at, [&] { meanwhile(at.second_page()); });
        EXPECT_TRUE(done.hit);
        EXPECT_EQ(0, done.result);
        EXPECT_FALSE(nonblocking(owner()));  // a 0, which the rule refuses, got through
    }
};

TEST_F(WeakGuardTest, StoreByAnotherThreadGetsThrough) {
    expect_zero_gets_through([](char* second_page) { second_page[0] = 0; });
}

TEST_F(WeakGuardTest, OtherMemoryInItsPlaceGetsThrough) {
    expect_zero_gets_through([](char* second_page) {
        ::mmap(second_page, kPage, kRw, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    });
}

TEST_F(WeakGuardTest, FileCutOffAndGrownAgainGetsThrough) {
    // Sealed against writing but not against shrinking: why the guard asks for both.
    const auto weak = WeakGuard::attach(with_ioctl(policy(), fionbio(kUpperHalf, 2, kUpperOne)));
    ASSERT_TRUE(ok(weak));
    expect_rule_holds_without_a_race();
    // Read-only where mapping such a file so is allowed (Linux 6.7), else an unsealed one will do.
    Straddling at;
    for (const int seals : {static_cast<int>(F_SEAL_WRITE), kOpen}) {
        const LaidOut half = lay_out(&kUpperOne, sizeof kUpperOne,
                                     {.seals = seals, .mseal = false, .address = at.second_page()});
        if (half.block == nullptr) {
            EXPECT_EQ(EPERM, errno);
            EXPECT_FALSE(has_mseal());
            continue;
        }
        (void)*static_cast<const volatile char*>(half.block);
        const Stalled done = stalled_ioctl(owner(), at, [&] {
            EXPECT_EQ(0, ::ftruncate(half.file.get(), 0));
            EXPECT_EQ(0, ::ftruncate(half.file.get(), kPage));
        });
        EXPECT_TRUE(done.hit);
        EXPECT_EQ(0, done.result);
        EXPECT_FALSE(nonblocking(owner()));
        return;
    }
    FAIL() << "no memfd could be mapped";
}

/// The device's own DMA engine writes what no CPU does. Both files of the device take FIONBIO.
class WeakGuardDmaTest : public EduTest {};

TEST_F(WeakGuardDmaTest, StoreByTheDeviceGetsThrough) {
    const auto weak = WeakGuard::attach(with_ioctl(policy(), fionbio(kUpperHalf, 2, kUpperOne)));
    ASSERT_TRUE(ok(weak));
    Straddling at;
    at.second_page()[0] = kUpperOne;
    ASSERT_TRUE(ok(vfio::map_dma(container_.get(), at.second_page(), kPage, 0, true, true)));
    ASSERT_EQ(0, ::fcntl(owner(), F_SETFL, ::fcntl(owner(), F_GETFL) | O_NONBLOCK));
    const uint64_t zero = 0;
    const Stalled done = stalled_ioctl(owner(), at, [&] { write_by_dma(0, &zero, sizeof zero); });
    EXPECT_TRUE(done.hit);
    EXPECT_EQ(0, done.result);
    EXPECT_FALSE(nonblocking(owner()));
    EXPECT_TRUE(ok(vfio::unmap_dma(container_.get(), 0, kPage)));
}

// ---- the same on the guard
// --------------------------------------------------------------------------------------

/// The guarded memfd, with FIONBIO of 1 alone. On kernels without mseal such a policy is refused (see
/// guard_argument_test.cpp), and there is nothing to race with.
class GuardRaceTest : public GuardTest {
  protected:
    void SetUp() override {
        GuardTest::SetUp();
        if (HasFatalFailure()) return;
        const FilePolicy ruled = with_ioctl(policy(), fionbio(0, 4, kAllowed));
        guarded_ = reopened(owner_.get(), O_RDWR);
        const Status registered = guard_->register_file(fd(), ruled);
        EXPECT_EQ(has_mseal(), static_cast<bool>(registered))
            << (registered ? "" : registered.error().message);
        ruled_ = static_cast<bool>(registered);
    }

    [[nodiscard]] int call(const void* block) const { return ruled_ioctl(fd(), FIONBIO, block); }
    /// A block of 1, by default in sealed memory, on two pages of which the second is zeros.
    static LaidOut one(Recipe recipe = {}) {
        recipe.pages = 2;
        LaidOut made = lay_out(&kAllowed, sizeof kAllowed, recipe);
        EXPECT_NE(nullptr, made.block) << std::strerror(errno);
        return made;
    }

    /// `way` makes something else of an open block (the control), and nothing of a sealed one.
    void expect_futile(const std::function<void(const LaidOut&)>& way) const {
        const LaidOut open = one({.seals = kOpen, .protection = kRw, .mseal = false});
        way(open);
        EXPECT_NE(kAllowed, peek(open.block).value_or(-1)) << "the way does not work at all";

        const LaidOut sealed = one();
        ASSERT_EQ(0, call(sealed.block));
        ASSERT_TRUE(nonblocking(fd()));
        way(sealed);
        EXPECT_EQ(kAllowed, peek(sealed.block).value_or(-1));
        EXPECT_EQ(0, call(sealed.block));
        EXPECT_TRUE(nonblocking(fd()));
    }

    bool ruled_ = false;
};

TEST_F(GuardRaceTest, RulesHold) {
    if (!ruled_) return;
    const int zero = 0;
    const LaidOut refused = lay_out(&zero, sizeof zero);
    EXPECT_EQ(0, call(one().block));
    EXPECT_TRUE(nonblocking(fd()));
    EXPECT_EQ(EPERM, call(refused.block));
    EXPECT_TRUE(nonblocking(fd()));
    // What the weak guard fell for never comes to the copy.
    Straddling at;
    at.second_page()[0] = kUpperOne;
    const Stalled done = stalled_ioctl(fd(), at, [] {});
    EXPECT_EQ(EPERM, done.result);
    EXPECT_FALSE(done.hit);
}

TEST_F(GuardRaceTest, WriteToTheFile) {
    if (!ruled_) return;
    const int zero = 0;
    expect_futile([&](const LaidOut& block) { (void)!::pwrite(block.file.get(), &zero, sizeof zero, 0); });
    expect_futile([&](const LaidOut& block) {
        const UniqueFd again = reopened(block.file.get(), O_RDWR);
        (void)!::pwrite(again.get(), &zero, sizeof zero, 0);
    });
}

TEST_F(GuardRaceTest, AnotherMappingMadeBefore) {
    if (!ruled_) return;
    const UniqueFd file(::memfd_create("block", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    ASSERT_EQ(0, ::ftruncate(file.get(), kPage));
    void* before = ::mmap(nullptr, kPage, kRw, MAP_SHARED, file.get(), 0);
    ASSERT_NE(MAP_FAILED, before);
    *static_cast<int*>(before) = kAllowed;
    const auto seal = [&](int seals) {
        return outcome([&] { return ::fcntl(file.get(), F_ADD_SEALS, seals); });
    };
    // The kernel does not seal it,
    EXPECT_EQ(EBUSY, seal(F_SEAL_WRITE));
    // and with the seal that does not mind, the guard does.
    ASSERT_EQ(0, seal(F_SEAL_FUTURE_WRITE | F_SEAL_SHRINK));
    void* block = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, file.get(), 0);
    ASSERT_NE(MAP_FAILED, block);
    ASSERT_EQ(0, seal_mapping(block, kPage));
    EXPECT_EQ(EPERM, call(block));
    *static_cast<int*>(before) = 0;
    EXPECT_EQ(0, peek(block).value_or(-1));
    *static_cast<int*>(before) = kAllowed;
    ::munmap(before, kPage);
    EXPECT_EQ(0, seal(F_SEAL_WRITE));
    EXPECT_EQ(0, call(block));
}

TEST_F(GuardRaceTest, AnotherMappingMadeAfter) {
    if (!ruled_) return;
    expect_futile([](const LaidOut& block) {
        void* after = ::mmap(nullptr, kPage, kRw, MAP_SHARED, block.file.get(), 0);
        if (after == MAP_FAILED) return;
        *static_cast<int*>(after) = 0;
        ::munmap(after, kPage);
    });
}

TEST_F(GuardRaceTest, MappingOverIt) {
    if (!ruled_) return;
    expect_futile([](const LaidOut& block) {
        (void)::mmap(block.mapping, kPage, kRw, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
    });
}

TEST_F(GuardRaceTest, Munmap) {
    if (!ruled_) return;
    expect_futile([](const LaidOut& block) { (void)::munmap(block.mapping, kPage); });
    // From the middle of a range that begins and ends outside.
    expect_futile([](const LaidOut& block) { (void)::munmap(block.mapping, block.length); });
}

TEST_F(GuardRaceTest, Mremap) {
    if (!ruled_) return;
    expect_futile([](const LaidOut& block) {
        void* place = ::mmap(nullptr, kPage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        (void)::mremap(block.mapping, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, place);
    });
    expect_futile([](const LaidOut& block) {
        void* other = ::mmap(nullptr, kPage, kRw, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        (void)::mremap(other, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, block.mapping);
    });
}

TEST_F(GuardRaceTest, Mprotect) {
    if (!ruled_) return;
    expect_futile([](const LaidOut& block) {
        if (::mprotect(block.mapping, kPage, kRw) == 0) *static_cast<int*>(block.block) = 0;
    });
}

TEST_F(GuardRaceTest, MadviseRemove) {
    if (!ruled_) return;
    expect_futile([](const LaidOut& block) { (void)::madvise(block.mapping, kPage, MADV_REMOVE); });
}

TEST_F(GuardRaceTest, MadviseDontneed) {
    if (!ruled_) return;
    // The control: what a private mapping holds of its own is gone.
    const int zero = 0;
    const LaidOut open = lay_out(&zero, sizeof zero,
                                 {.seals = kOpen, .protection = kRw, .flags = MAP_PRIVATE, .mseal = false});
    ASSERT_NE(nullptr, open.block);
    *static_cast<int*>(open.block) = kAllowed;
    ASSERT_EQ(0, ::madvise(open.mapping, kPage, MADV_DONTNEED));
    EXPECT_EQ(0, peek(open.block).value_or(-1));
    // A file's page comes back as it was.
    const LaidOut sealed = one();
    for (const int advice : {MADV_DONTNEED, MADV_FREE, MADV_PAGEOUT, MADV_COLD}) {
        (void)::madvise(sealed.mapping, kPage, advice);
        EXPECT_EQ(kAllowed, peek(sealed.block).value_or(-1)) << advice;
        EXPECT_EQ(0, call(sealed.block)) << advice;
    }
}

TEST_F(GuardRaceTest, RemapFilePages) {
    if (!ruled_) return;
    // The file's second page in place of its first.
    expect_futile(
        [](const LaidOut& block) { (void)::syscall(SYS_remap_file_pages, block.mapping, kPage, 0, 1, 0); });
}

TEST_F(GuardRaceTest, CutOffAndGrownAgain) {
    if (!ruled_) return;
    expect_futile([](const LaidOut& block) {
        if (::ftruncate(block.file.get(), 0) == 0) (void)!::ftruncate(block.file.get(), 2 * kPage);
    });
}

TEST_F(GuardRaceTest, PunchedHole) {
    if (!ruled_) return;
    expect_futile([](const LaidOut& block) {
        (void)::fallocate(block.file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kPage);
    });
}

TEST_F(GuardRaceTest, Userfaultfd) {
    if (!ruled_) return;
    // Takes the page out of the file and brings another.
    expect_futile([](const LaidOut& block) {
        const UniqueFd faults(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC)));
        uffdio_api api{};
        api.api = UFFD_API;
        ASSERT_EQ(0, ::ioctl(faults.get(), UFFDIO_API, &api)) << std::strerror(errno);
        uffdio_register wanted{};
        wanted.range = {reinterpret_cast<uint64_t>(block.mapping), kPage};
        wanted.mode = UFFDIO_REGISTER_MODE_MISSING;
        if (::ioctl(faults.get(), UFFDIO_REGISTER, &wanted) != 0) return;
        (void)::madvise(block.mapping, kPage, MADV_REMOVE);
        char other[kPage] = {7};
        uffdio_copy copy{};
        copy.dst = reinterpret_cast<uint64_t>(block.mapping);
        copy.src = reinterpret_cast<uint64_t>(other);
        copy.len = kPage;
        (void)::ioctl(faults.get(), UFFDIO_COPY, &copy);
    });
}

TEST_F(GuardRaceTest, ProcessVmWritev) {
    if (!ruled_) return;
    expect_futile([](const LaidOut& block) {
        int zero = 0;
        const iovec from{&zero, sizeof zero};
        const iovec to{block.block, sizeof zero};
        (void)::process_vm_writev(::getpid(), &from, 1, &to, 1, 0);
    });
}

TEST_F(GuardRaceTest, ProcSelfMem) {
    if (!ruled_) return;
    expect_futile([](const LaidOut& block) {
        const UniqueFd memory(::open("/proc/self/mem", O_RDWR | O_CLOEXEC));
        const int zero = 0;
        (void)!::pwrite(memory.get(), &zero, sizeof zero, reinterpret_cast<off_t>(block.block));
    });
}

// ---- pages that somebody holds past every mapping
// ---------------------------------------------------------------

/// Memory that is not sealed yet: seal_and_call() says what comes of it, then.
class GuardPinTest : public GuardRaceTest {
  protected:
    void SetUp() override {
        GuardRaceTest::SetUp();
        file_.reset(::memfd_create("block", MFD_CLOEXEC | MFD_ALLOW_SEALING));
        ASSERT_EQ(0, ::ftruncate(file_.get(), kPage));
        ASSERT_EQ(static_cast<ssize_t>(sizeof kAllowed),
                  ::pwrite(file_.get(), &kAllowed, sizeof kAllowed, 0));
    }

    [[nodiscard]] int seal() const {
        return outcome([&] { return ::fcntl(file_.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK); });
    }
    /// A sealed mapping of the file, whether or not its pages are.
    [[nodiscard]] void* map_sealed() const {
        void* block = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, file_.get(), 0);
        EXPECT_NE(MAP_FAILED, block);
        EXPECT_EQ(0, seal_mapping(block, kPage));
        return block;
    }
    /// In a child, for such a mapping can become writable as far as the kernel knows: while there is one,
    /// there is no sealing the file, and nobody could unmap it.
    [[nodiscard]] int call_sealed_too_early() const {
        return in_child([&] { return call(map_sealed()); });
    }
    [[nodiscard]] int content() const {
        int value = -1;
        (void)!::pread(file_.get(), &value, sizeof value, 0);
        return value;
    }

    UniqueFd file_;
};

/// A dma-buf of the first page of a memfd; empty with errno.
UniqueFd udmabuf_of(int memfd) {
    const UniqueFd device(::open("/dev/udmabuf", O_RDWR | O_CLOEXEC));
    udmabuf_create create{};
    create.memfd = static_cast<uint32_t>(memfd);
    create.flags = UDMABUF_FLAGS_CLOEXEC;
    create.size = kPage;
    if (!device) return UniqueFd();
    return UniqueFd(::ioctl(device.get(), UDMABUF_CREATE, &create));
}

TEST_F(GuardPinTest, UdmabufMadeBefore) {
    if (!ruled_) return;
    // It wants a file that cannot shrink.
    ASSERT_EQ(0, ::fcntl(file_.get(), F_ADD_SEALS, F_SEAL_SHRINK));
    UniqueFd buffer = udmabuf_of(file_.get());
    ASSERT_TRUE(buffer) << std::strerror(errno);
    void* through = ::mmap(nullptr, kPage, kRw, MAP_SHARED, buffer.get(), 0);
    ASSERT_NE(MAP_FAILED, through);
    *static_cast<volatile int*>(through) = 5;
    EXPECT_EQ(5, content());  // the control: it is the same memory
    *static_cast<volatile int*>(through) = kAllowed;
    // As long as it lives there is no seal, and no block.
    EXPECT_EQ(EBUSY, seal());
    EXPECT_EQ(EPERM, call_sealed_too_early());
    ::munmap(through, kPage);
    buffer.reset();
    EXPECT_TRUE(eventually([&] { return seal() == 0; }));
    EXPECT_EQ(0, call(map_sealed()));
}

TEST_F(GuardPinTest, UdmabufMadeAfter) {
    if (!ruled_) return;
    ASSERT_EQ(0, seal());
    EXPECT_FALSE(udmabuf_of(file_.get()));
    EXPECT_EQ(EINVAL, errno);
    EXPECT_EQ(0, call(map_sealed()));
}

TEST_F(GuardPinTest, IoUringBufferRegisteredBefore) {
    if (!ruled_) return;
    // In a child: whoever has used io_uring once may not read guarded files again.
    const auto body = [&] {
        hostile::Uring ring;
        ASSERT_TRUE(ring.open(0)) << std::strerror(errno);
        void* writable = ::mmap(nullptr, kPage, kRw, MAP_SHARED, file_.get(), 0);
        ASSERT_NE(MAP_FAILED, writable);
        iovec buffer{writable, kPage};
        const auto register_buffers = [&](unsigned what, const iovec* buffers, unsigned count) {
            return outcome([&] { return ::syscall(SYS_io_uring_register, ring.fd(), what, buffers, count); });
        };
        ASSERT_EQ(0, register_buffers(IORING_REGISTER_BUFFERS, &buffer, 1));
        // The mapping is gone, the pages are still pinned.
        ::munmap(writable, kPage);
        EXPECT_EQ(EBUSY, seal());
        EXPECT_EQ(EPERM, call_sealed_too_early());
        const UniqueFd zeros(::open("/dev/zero", O_RDONLY | O_CLOEXEC));
        io_uring_sqe* entry = ring.next();
        entry->opcode = IORING_OP_READ_FIXED;
        entry->fd = zeros.get();
        entry->addr = reinterpret_cast<uint64_t>(writable);
        entry->len = sizeof(int);
        entry->user_data = 1;
        ASSERT_TRUE(ring.run());
        ASSERT_EQ(static_cast<int>(sizeof(int)), ring.result(1));
        EXPECT_EQ(0, content());  // the control: it writes there
        ASSERT_EQ(0, register_buffers(IORING_UNREGISTER_BUFFERS, nullptr, 0));
        ASSERT_EQ(static_cast<ssize_t>(sizeof kAllowed),
                  ::pwrite(file_.get(), &kAllowed, sizeof kAllowed, 0));
        EXPECT_TRUE(eventually([&] { return seal() == 0; }));

        // And afterwards nobody gets it registered.
        void* block = map_sealed();
        buffer.iov_base = block;
        EXPECT_EQ(EFAULT, register_buffers(IORING_REGISTER_BUFFERS, &buffer, 1));
        EXPECT_EQ(kAllowed, content());
        // A ruled ioctl does not mind io_uring: it decides by what cannot change.
        EXPECT_EQ(0, call(block));
    };
    EXPECT_EQ(0, in_child([&] {
                  body();
                  return HasFailure() ? 1 : 0;
              }));
}

/// DMA of the edu device into the block. FIONBIO is ruled on the device's own file.
class GuardDmaTest : public EduTest {
  protected:
    void SetUp() override {
        EduTest::SetUp();
        if (HasFatalFailure()) return;
        FilePolicy ruled = with_ioctl(policy(), fionbio(0, 4, kAllowed));
        ruled.windows.clear();
        const Status registered = guard_->register_file(fd(), ruled);
        EXPECT_EQ(has_mseal(), static_cast<bool>(registered))
            << (registered ? "" : registered.error().message);
        ruled_ = static_cast<bool>(registered);
    }

    bool ruled_ = false;
};

TEST_F(GuardDmaTest, MappedForDmaBeforeSealing) {
    if (!ruled_) return;
    const UniqueFd file(::memfd_create("block", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    ASSERT_EQ(0, ::ftruncate(file.get(), kPage));
    void* writable = ::mmap(nullptr, kPage, kRw, MAP_SHARED, file.get(), 0);
    ASSERT_NE(MAP_FAILED, writable);
    ASSERT_TRUE(ok(vfio::map_dma(container_.get(), writable, kPage, 0, true, true)));
    ::munmap(writable, kPage);
    // The control: the device still writes there.
    const uint64_t one = kAllowed;
    write_by_dma(0, &one, sizeof one);
    int content = 0;
    ASSERT_EQ(static_cast<ssize_t>(sizeof content), ::pread(file.get(), &content, sizeof content, 0));
    EXPECT_EQ(kAllowed, content);

    const auto seal = [&] {
        return outcome([&] { return ::fcntl(file.get(), F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK); });
    };
    EXPECT_EQ(EBUSY, seal());
    EXPECT_EQ(EPERM, in_child([&] {
                  void* block = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, file.get(), 0);
                  return seal_mapping(block, kPage) == 0 ? ruled_ioctl(fd(), FIONBIO, block) : 250;
              }));
    ASSERT_TRUE(ok(vfio::unmap_dma(container_.get(), 0, kPage)));
    EXPECT_TRUE(eventually([&] { return seal() == 0; }));
    void* later = ::mmap(nullptr, kPage, PROT_READ, MAP_SHARED, file.get(), 0);
    ASSERT_EQ(0, seal_mapping(later, kPage));
    EXPECT_EQ(0, ruled_ioctl(fd(), FIONBIO, later));
}

TEST_F(GuardDmaTest, MappedForDmaAfterSealing) {
    if (!ruled_) return;
    const LaidOut block = lay_out(&kAllowed, sizeof kAllowed);
    ASSERT_NE(nullptr, block.block);
    EXPECT_FALSE(vfio::map_dma(container_.get(), block.mapping, kPage, 0, true, true));
    // The device may read it, and no more: what it tries to write goes nowhere.
    ASSERT_TRUE(ok(vfio::map_dma(container_.get(), block.mapping, kPage, 0, true, false)));
    const uint64_t zero = 0;
    write_by_dma(0, &zero, sizeof zero);
    EXPECT_EQ(kAllowed, peek(block.block).value_or(-1));
    EXPECT_EQ(0, ruled_ioctl(fd(), FIONBIO, block.block));
    EXPECT_TRUE(nonblocking(fd()));
    EXPECT_TRUE(ok(vfio::unmap_dma(container_.get(), 0, kPage)));
}

// ---- all at once
// ---------------------------------------------------------------------------------------------------

TEST_F(GuardRaceTest, HammeringAttackersNeverGetARefusedArgumentThrough) {
    if (!ruled_) return;
    const int zero = 0;
    const LaidOut allowed = one();
    const LaidOut refused = lay_out(&zero, sizeof zero);
    ASSERT_NE(nullptr, refused.block);
    // One that is sealed as a file and not in its place, so that it can be replaced by what is not sealed.
    LaidOut moving = one({.mseal = false});
    alignas(8) std::atomic<int> plain = kAllowed;
    ASSERT_EQ(0, call(allowed.block));

    std::atomic<bool> stop = false;
    std::atomic<unsigned long> attempts = 0;
    const auto repeat = [&](const std::function<void()>& attack) {
        while (!stop) {
            attack();
            attempts++;
        }
    };
    std::vector<std::thread> threads;
    threads.emplace_back(repeat, [&] { plain = plain == 0 ? kAllowed : 0; });
    threads.emplace_back(repeat, [&] {
        // In and out: now the sealed file, in memory so that the guard can look, now memory of zeros.
        (void)::mmap(moving.mapping, kPage, kRw, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        (void)::mmap(moving.mapping, kPage, PROT_READ, MAP_SHARED | MAP_FIXED | MAP_POPULATE,
                     moving.file.get(), 0);
    });
    threads.emplace_back(repeat, [&] {
        (void)::mmap(allowed.mapping, kPage, kRw, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
        (void)::munmap(allowed.mapping, kPage);
        (void)::mprotect(allowed.mapping, kPage, kRw);
        (void)::mremap(allowed.mapping, kPage, kPage, MREMAP_MAYMOVE | MREMAP_FIXED, moving.mapping + kPage);
        (void)::syscall(SYS_remap_file_pages, allowed.mapping, kPage, 0, 1, 0);
    });
    threads.emplace_back(repeat, [&] {
        (void)!::pwrite(allowed.file.get(), &zero, sizeof zero, 0);
        if (::ftruncate(allowed.file.get(), 0) == 0) (void)!::ftruncate(allowed.file.get(), 2 * kPage);
        (void)::fallocate(allowed.file.get(), FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0, kPage);
        (void)::madvise(allowed.mapping, kPage, MADV_DONTNEED);
        (void)::madvise(allowed.mapping, kPage, MADV_REMOVE);
    });
    const UniqueFd memory(::open("/proc/self/mem", O_RDWR | O_CLOEXEC));
    threads.emplace_back(repeat, [&] {
        (void)!::pwrite(memory.get(), &zero, sizeof zero, reinterpret_cast<off_t>(allowed.block));
        const iovec from{const_cast<int*>(&zero), sizeof zero};
        const iovec to{allowed.block, sizeof zero};
        (void)::process_vm_writev(::getpid(), &from, 1, &to, 1, 0);
        const UniqueFd faults(static_cast<int>(::syscall(SYS_userfaultfd, O_CLOEXEC)));
        uffdio_api api{};
        api.api = UFFD_API;
        uffdio_register wanted{};
        wanted.range = {reinterpret_cast<uint64_t>(allowed.mapping), kPage};
        wanted.mode = UFFDIO_REGISTER_MODE_MISSING;
        if (::ioctl(faults.get(), UFFDIO_API, &api) == 0)
            (void)::ioctl(faults.get(), UFFDIO_REGISTER, &wanted);
    });

    unsigned long went_through = 0;
    unsigned long slipped = 0;
    unsigned long other = 0;
    // Six seconds, and on a machine that is busy otherwise as long as it takes to have tried enough.
    const auto begin = std::chrono::steady_clock::now();
    const auto is_over = [&] {
        const auto passed = std::chrono::steady_clock::now() - begin;
        return passed > std::chrono::seconds(90) ||
               (passed > std::chrono::seconds(6) && went_through > 100 && attempts > 1000);
    };
    while (!is_over()) {
        for (int i = 0; i < 20; ++i) {
            const int answer = call(allowed.block);
            if (answer == 0) went_through++;
            if (answer != 0 && answer != EAGAIN) other++;
            for (const void* block :
                 {static_cast<const void*>(refused.block), static_cast<const void*>(&plain),
                  static_cast<const void*>(moving.mapping)}) {
                const int result = outcome([&] { return ::ioctl(fd(), FIONBIO, block); });
                if (result != EPERM && result != EAGAIN) slipped++;
            }
            if (!nonblocking(fd())) slipped++;
        }
    }
    stop = true;
    for (std::thread& thread : threads) thread.join();
    RecordProperty("allowed", std::to_string(went_through));
    RecordProperty("attempts", std::to_string(attempts.load()));
    EXPECT_GT(went_through, 100U);
    EXPECT_GT(attempts, 1000U);
    EXPECT_EQ(0U, other);
    EXPECT_EQ(0U, slipped);
    EXPECT_TRUE(nonblocking(fd()));
    EXPECT_EQ(kAllowed, peek(allowed.block).value_or(-1));
}

}  // namespace
}  // namespace postern::test
