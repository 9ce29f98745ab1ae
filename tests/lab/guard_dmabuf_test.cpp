// SPDX-License-Identifier: Apache-2.0
// Grants of windows whose dma-bufs can be mapped. No kernel maps those of BARs yet, so here they come from
// the kernel's other exporters, /dev/udmabuf and the system heap; all that is done with them is what is done
// with a BAR's: probing, choosing, guarding, vending, and the client with postern.h. The device is an edu.

#include <fcntl.h>
#include <linux/dma-buf.h>
#include <linux/dma-heap.h>
#include <linux/udmabuf.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <set>
#include <string_view>
#include <thread>
#include <utility>
#include <vector>

#include "broker-core/device_files.h"
#include "broker-core/dmabuf_probe.h"
#include "broker-core/guard_pins.h"
#include "broker-core/guard_proof.h"
#include "broker-core/live_grant.h"
#include "broker-core/manifest.h"
#include "broker-core/owner_device.h"
#include "broker-core/vfio.h"
#include "client/postern.hpp"
#include "tests/lab/guard_edu.h"
#include "tests/support/passing.h"

namespace postern::test {
namespace {

constexpr const char* kUdmabuf = "/dev/udmabuf";
constexpr const char* kHeap = "/dev/dma_heap/system";
constexpr uint64_t kSize = 2 * kPage;
constexpr Access kReadWrite{true, true};
constexpr Access kReadOnly{true, false};
constexpr Access kWriteOnly{false, true};

bool is_there(const char* path) {
    return ::access(path, F_OK) == 0;
}

/// A dma-buf of the system heap, which makes what is open for reading only as well.
Result<UniqueFd> from_heap(uint64_t size, int mode) {
    const UniqueFd heap(::open(kHeap, O_RDONLY | O_CLOEXEC));
    dma_heap_allocation_data ask{};
    ask.len = size;
    ask.fd_flags = static_cast<uint32_t>(mode | O_CLOEXEC);
    if (!heap || ::ioctl(heap.get(), DMA_HEAP_IOCTL_ALLOC, &ask) != 0) {
        const int error = errno;
        return fail_errno(error, "{}", kHeap);
    }
    return UniqueFd(static_cast<int>(ask.fd));
}

/// A memfd of 4 pages, each full of its letter, and a dma-buf of the two in the middle.
struct Udmabuf {
    static constexpr std::string_view kLetters = "ABCD";
    UniqueFd memory;

    Udmabuf() : memory(::memfd_create("pages", MFD_CLOEXEC | MFD_ALLOW_SEALING)) {
        for (const char letter : kLetters) {
            const std::string page(kPage, letter);
            EXPECT_EQ(static_cast<ssize_t>(kPage), ::write(memory.get(), page.data(), page.size()));
        }
        EXPECT_EQ(0, ::fcntl(memory.get(), F_ADD_SEALS, F_SEAL_SHRINK));
    }
    [[nodiscard]] Result<UniqueFd> make(uint64_t size = kSize) const {
        const UniqueFd device(::open(kUdmabuf, O_RDWR | O_CLOEXEC));
        udmabuf_create create{};
        create.memfd = static_cast<uint32_t>(memory.get());
        create.flags = UDMABUF_FLAGS_CLOEXEC;
        create.offset = kPage;
        create.size = size;
        const int made = device ? ::ioctl(device.get(), UDMABUF_CREATE, &create) : -1;
        const int error = errno;
        if (made < 0) return fail_errno(error, "{}", kUdmabuf);
        return UniqueFd(made);
    }
    [[nodiscard]] char at(uint64_t offset) const {
        char byte = 0;
        EXPECT_EQ(1, ::pread(memory.get(), &byte, 1, static_cast<off_t>(offset)));
        return byte;
    }
};

/// Mapped, 0; else errno. Unmapped again.
int map_outcome(int fd, uint64_t offset, uint64_t length, int protection) {
    void* at = ::mmap(nullptr, length, protection, MAP_SHARED, fd, static_cast<off_t>(offset));
    if (at == MAP_FAILED) return errno;
    ::munmap(at, length);
    return 0;
}

/// What can be tried with a mapping: errno or 0.
int grow_outcome(int fd, int protection) {
    void* at = ::mmap(nullptr, kSize, protection, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) return kWrong;
    void* grown = ::mremap(at, kSize, 2 * kSize, MREMAP_MAYMOVE);
    const int error = grown == MAP_FAILED ? errno : 0;
    ::munmap(grown == MAP_FAILED ? at : grown, grown == MAP_FAILED ? kSize : 2 * kSize);
    return error;
}

int protect_outcome(int fd, int protection, int then) {
    void* at = ::mmap(nullptr, kSize, protection, MAP_SHARED, fd, 0);
    if (at == MAP_FAILED) return kWrong;
    const int error = outcome([&] { return ::mprotect(at, kSize, then); });
    ::munmap(at, kSize);
    return error;
}

/// Runs `body` with the grant that fds from 3 on and the environment say, as a client has them.
int use_grant(const Grant& grant, const std::function<int(postern_grant*)>& body) {
    std::string names;
    std::vector<int> moved;
    for (const NamedFd& each : grant.fds) {
        if (!names.empty()) names += ':';
        names += each.name;
        moved.push_back(::fcntl(each.fd.get(), F_DUPFD, 100));
    }
    for (size_t i = 0; i < moved.size(); ++i) ::dup2(moved[i], static_cast<int>(3 + i));
    ::syscall(SYS_close_range, 3U + static_cast<unsigned>(moved.size()), ~0U, 0U);
    ::setenv("LISTEN_FDS", std::to_string(moved.size()).c_str(), 1);
    ::setenv("LISTEN_PID", std::to_string(::getpid()).c_str(), 1);
    ::setenv("LISTEN_FDNAMES", names.c_str(), 1);
    char why[256] = "";
    postern_grant* opened = postern_open(why, sizeof why);
    if (opened == nullptr) {
        std::fprintf(stderr, "%s\n", why);
        return 250;
    }
    return body(opened);
}

/// Says in the child which of its expectations does not hold; the line number comes back as well as fits.
#define CHECK_HERE(condition)                                                    \
    do {                                                                         \
        if (!(condition)) {                                                      \
            std::fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition); \
            return 1;                                                            \
        }                                                                        \
    } while (false)

/// `old_`: a kernel that has neither exporter, and that is all there is to see.
class GuardDmabufTest : public EduTest {
  protected:
    void SetUp() override {
        utsname name{};
        ASSERT_EQ(0, ::uname(&name));
        old_ = std::string_view(name.release).starts_with("6.1.");
        EXPECT_EQ(!old_, is_there(kUdmabuf));
        EXPECT_EQ(!old_, is_there(kHeap));
        EduTest::SetUp();
        if (HasFatalFailure()) return;
        guarded_.reset();
        plan_.bdf = bdf_;
        plan_.profile = "dmabufs";
        plan_.forward = Forward::Sandbox;
        source_.open = [this] {
            opened_++;
            return vfio::get_device(group_.get(), bdf_);
        };
        source_.export_pages = [this](uint32_t region, Range pages, bool writable) -> Result<UniqueFd> {
            EXPECT_EQ(kSize, pages.size());
            return exporters_.at(region)(writable);
        };
        source_.owned = {owner_.get(), group_.get(), container_.get()};
        source_.remedy = "add a way";
    }

    using Exporter = std::function<Result<UniqueFd>(bool writable)>;
    static Result<UniqueFd> heap(bool writable) { return from_heap(kSize, writable ? O_RDWR : O_RDONLY); }
    [[nodiscard]] Exporter udmabuf() const {
        return [this](bool) { return pages_.make(); };
    }

    void add_window(const char* name, Access access, Exporter exporter, bool by_mmap = false) {
        PlannedWindow window;
        window.name = name;
        window.region = static_cast<uint32_t>(slice_.windows.size());
        window.length = kSize;
        window.access = access;
        window.by_dmabuf = true;
        window.by_mmap = by_mmap;
        exporters_[window.region] = std::move(exporter);
        slice_.windows.push_back(window);
    }
    /// Three windows, all of which can be mapped.
    void add_windows() {
        add_window("registers", kReadWrite, udmabuf());
        add_window("state", kReadOnly, heap);
        add_window("bell", kWriteOnly, heap);
    }

    Result<Grant> make_grant() {
        opened_ = 0;
        Grant grant = begin_grant(0);
        POSTERN_TRY(
            add_device_files(grant, plan_, slice_, source_, &*guard_, {sandbox_->id(), sandbox_->level()}));
        POSTERN_TRY(guard_->forget_refusals(grant.id));
        POSTERN_TRY(finish_grant(grant));
        return grant;
    }
    static std::vector<std::string> names(const Grant& grant) {
        std::vector<std::string> found;
        for (const NamedFd& each : grant.fds) found.push_back(each.name);
        return found;
    }
    static int fd_of(const Grant& grant, std::string_view name) {
        for (const NamedFd& each : grant.fds) {
            if (each.name == name) return each.fd.get();
        }
        return -1;
    }
    int in_client(const Grant& grant, const std::function<int(postern_grant*)>& body) {
        return in_child([&] { return use_grant(grant, body); }, [&](pid_t pid) { sandbox_->move_here(pid); });
    }

    bool old_ = false;
    int opened_ = 0;
    Udmabuf pages_;
    DevicePlan plan_;
    SlicePlan slice_;
    DeviceSource source_;
    std::map<uint32_t, Exporter> exporters_;  ///< by region, which is the window's number
};

TEST_F(GuardDmabufTest, WhatOneCanDoWithADmabufAlone) {
    ASSERT_FALSE(old_);
    const auto by_heap = from_heap(kSize, O_RDWR);
    ASSERT_TRUE(ok(by_heap));
    const auto by_udmabuf = pages_.make();
    ASSERT_TRUE(ok(by_udmabuf));
    for (const int fd : {by_heap->get(), by_udmabuf->get()}) {
        // The control: all of it and each page of it.
        EXPECT_EQ(0, map_outcome(fd, 0, kSize, kRw));
        EXPECT_EQ(0, map_outcome(fd, kPage, kPage, kRw));
        EXPECT_EQ(EINVAL, map_outcome(fd, 0, kSize + kPage, kRw));
        EXPECT_EQ(EINVAL, map_outcome(fd, kPage, kSize, kRw));
        EXPECT_EQ(EINVAL, map_outcome(fd, kSize, kPage, kRw));
        EXPECT_EQ(EFAULT, grow_outcome(fd, kRw));
        EXPECT_NE(0, outcome([&] { return ::ftruncate(fd, 4 * kPage); }));
        EXPECT_NE(0, outcome([&] { return ::fallocate(fd, 0, 0, 4 * kPage); }));
        char byte = 0;
        EXPECT_NE(0, outcome([&] { return ::pread(fd, &byte, 1, 0); }));
        EXPECT_NE(0, outcome([&] { return ::pwrite(fd, &byte, 1, 0); }));
        EXPECT_NE(0, outcome([&] { return reopened(fd, O_RDWR) ? 0 : -1; }));
        EXPECT_EQ(static_cast<off_t>(kSize), ::lseek(fd, 0, SEEK_END));
        void* at = ::mmap(nullptr, kSize, kRw, MAP_SHARED, fd, 0);
        ASSERT_NE(MAP_FAILED, at);
        std::memset(at, 'x', kSize);
        EXPECT_NE(0, outcome([&] { return ::madvise(at, kSize, MADV_REMOVE); }));
        EXPECT_NE(0, outcome([&] { return ::syscall(SYS_remap_file_pages, at, kPage, 0, 2, 0); }));
        ::munmap(at, kSize);
    }
    // The neighbours of what was written are the memfd's, and as they were.
    EXPECT_EQ('A', pages_.at(kPage - 1));
    EXPECT_EQ('x', pages_.at(kPage));
    EXPECT_EQ('x', pages_.at(3 * kPage - 1));
    EXPECT_EQ('D', pages_.at(3 * kPage));
}

TEST_F(GuardDmabufTest, OneToBeReadStaysOneToBeRead) {
    ASSERT_FALSE(old_);
    const auto read_only = from_heap(kSize, O_RDONLY);
    const auto writable = from_heap(kSize, O_RDWR);
    ASSERT_TRUE(ok(read_only));
    ASSERT_TRUE(ok(writable));
    EXPECT_EQ(0, map_outcome(read_only->get(), 0, kSize, PROT_READ));
    EXPECT_EQ(EACCES, map_outcome(read_only->get(), 0, kSize, kRw));
    EXPECT_EQ(0, map_outcome(writable->get(), 0, kSize, kRw));
    EXPECT_EQ(EACCES, protect_outcome(read_only->get(), PROT_READ, kRw));
    EXPECT_EQ(EACCES, protect_outcome(read_only->get(), PROT_NONE, kRw));
    EXPECT_EQ(0, protect_outcome(writable->get(), PROT_READ, kRw));
}

TEST_F(GuardDmabufTest, WhatTheProbeFindsOut) {
    ASSERT_FALSE(old_);
    const auto probe = [](const Result<UniqueFd>& dmabuf, uint64_t length, Access access) {
        EXPECT_TRUE(ok(dmabuf));
        const auto facts = probe_dmabuf(dmabuf ? dmabuf->get() : -1, length, access);
        EXPECT_TRUE(ok(facts));
        return facts.value_or(DmabufFacts());
    };
    for (const auto& make : {heap, +[](bool) { return Udmabuf().make(); }}) {
        for (const Access access : {kReadWrite, kWriteOnly}) {
            const DmabufFacts facts = probe(make(true), kSize, access);
            EXPECT_EQ(kSize, facts.size);
            EXPECT_TRUE(facts.maps);
            EXPECT_TRUE(facts.maps_window);
            EXPECT_FALSE(facts.maps_longer);
            EXPECT_FALSE(facts.grows);
            EXPECT_TRUE(facts.can_be_written);
        }
        EXPECT_FALSE(probe(make(true), kSize + kPage, kReadWrite).maps_window);
        EXPECT_TRUE(probe(make(true), kPage, kReadWrite).maps_longer);
    }
    const DmabufFacts facts = probe(heap(false), kSize, kReadOnly);
    EXPECT_TRUE(facts.maps_window);
    EXPECT_FALSE(facts.can_be_written);
    const DmabufFacts less = probe(heap(false), kSize, kReadWrite);
    EXPECT_TRUE(less.maps);
    EXPECT_FALSE(less.maps_window);
    // Linux maps nothing that is not open for reading.
    EXPECT_FALSE(probe(from_heap(kSize, O_WRONLY), kSize, kWriteOnly).maps);
    EXPECT_FALSE(probe_dmabuf(pages_.memory.get(), kSize, kReadWrite));
}

TEST_F(GuardDmabufTest, WhatTheKernelDoesNotTellIsNoAnswer) {
    ASSERT_FALSE(old_);
    const auto dmabuf = from_heap(kSize, O_RDWR);
    ASSERT_TRUE(ok(dmabuf));
    EXPECT_EQ(0, in_child([&] {
                  const auto told = probe_dmabuf(dmabuf->get(), kSize, kReadWrite);
                  CHECK_HERE(told && told->maps_window);
                  // Nothing can be mapped any more: not even what can be later.
                  const rlimit none{0, 0};
                  CHECK_HERE(::setrlimit(RLIMIT_AS, &none) == 0);
                  const auto untold = probe_dmabuf(dmabuf->get(), kSize, kReadWrite);
                  CHECK_HERE(!untold && untold.error().errnum == ENOMEM);
                  return 0;
              }));
}

TEST_F(GuardDmabufTest, TheProbeTouchesNothing) {
    ASSERT_FALSE(old_);
    const auto dmabuf = pages_.make();
    ASSERT_TRUE(ok(dmabuf));
    const auto faults = [] {
        rusage usage{};
        ::getrusage(RUSAGE_SELF, &usage);
        return usage.ru_minflt + usage.ru_majflt;
    };
    // What the probe itself needs is there after the first time.
    for (int i = 0; i < 3; ++i) ASSERT_TRUE(ok(probe_dmabuf(dmabuf->get(), kSize, kReadWrite)));
    const long before = faults();
    ASSERT_TRUE(ok(probe_dmabuf(dmabuf->get(), kSize, kReadWrite)));
    EXPECT_EQ(before, faults());
    for (uint64_t page = 0; page < 4; ++page) EXPECT_EQ(Udmabuf::kLetters[page], pages_.at(page * kPage));
    // The control: a page of it that is touched is a fault.
    void* at = ::mmap(nullptr, kSize, PROT_READ, MAP_SHARED, dmabuf->get(), 0);
    ASSERT_NE(MAP_FAILED, at);
    const long untouched = faults();
    EXPECT_EQ('B', *static_cast<volatile char*>(at));
    EXPECT_LT(untouched, faults());
    ::munmap(at, kSize);
}

TEST_F(GuardDmabufTest, AreAllThatAClientGets) {
    ASSERT_FALSE(old_);
    add_windows();
    const auto grant = make_grant();
    ASSERT_TRUE(ok(grant));
    EXPECT_EQ(0, opened_);
    EXPECT_EQ((std::vector<std::string>{"manifest", "window.registers", "window.state", "window.bell"}),
              names(*grant));
    EXPECT_EQ(Json(false), grant->manifest.at("device"));
    EXPECT_FALSE(grant->manifest.at("fds").contains("device"));
    for (const Json& window : grant->manifest.at("windows")) {
        const std::string fd = "window." + window.at("name").get<std::string>();
        EXPECT_EQ(Json({{"fd", fd}, {"offset", 0}}), window.at("mmap"));
        EXPECT_EQ(fd, window.at("fd"));
    }
    EXPECT_EQ(0, in_client(*grant, [](postern_grant* client) {
                  CHECK_HERE(client->device_fd == -1 && client->device == nullptr);
                  const postern_window* registers = postern_get_window(client, "registers");
                  volatile void* at = postern_map_window(registers, kRw);
                  CHECK_HERE(at != nullptr);
                  CHECK_HERE(*static_cast<volatile char*>(at) == 'B');
                  static_cast<volatile char*>(at)[kSize - 1] = 'y';
                  const postern_window* state = postern_get_window(client, "state");
                  CHECK_HERE(postern_map_window(state, PROT_READ) != nullptr);
                  CHECK_HERE(postern_map_window(state, PROT_WRITE) == nullptr && errno == EACCES);
                  volatile void* bell = postern_map_window(postern_get_window(client, "bell"), PROT_WRITE);
                  CHECK_HERE(bell != nullptr);
                  *static_cast<volatile char*>(bell) = 1;
                  return 0;
              }));
    EXPECT_EQ('y', pages_.at(3 * kPage - 1));
}

TEST_F(GuardDmabufTest, AClientOfThemReachesNothingElse) {
    ASSERT_FALSE(old_);
    add_windows();
    const auto grant = make_grant();
    ASSERT_TRUE(ok(grant));
    EXPECT_EQ(0, in_client(*grant, [](postern_grant* client) {
                  const int registers = postern_fd(client, "window.registers");
                  const int state = postern_fd(client, "window.state");
                  for (const int fd : {registers, state}) {
                      CHECK_HERE(map_outcome(fd, 0, kSize, PROT_READ) == 0);
                      CHECK_HERE(map_outcome(fd, kPage, kPage, PROT_READ) == 0);
                      CHECK_HERE(map_outcome(fd, 0, kSize + kPage, PROT_READ) == EPERM);
                      CHECK_HERE(map_outcome(fd, kPage, kSize, PROT_READ) == EPERM);
                      CHECK_HERE(map_outcome(fd, kSize, kPage, PROT_READ) == EPERM);
                      CHECK_HERE(grow_outcome(fd, PROT_READ) == EFAULT);
                      CHECK_HERE(protect_outcome(fd, PROT_READ, PROT_READ | PROT_EXEC) != 0);
                      dma_buf_sync sync{};
                      sync.flags = DMA_BUF_SYNC_START | DMA_BUF_SYNC_READ;
                      CHECK_HERE(outcome([&] { return ::ioctl(fd, DMA_BUF_IOCTL_SYNC, &sync); }) == EPERM);
                      CHECK_HERE(!reopened(fd, O_RDWR));
                  }
                  CHECK_HERE(map_outcome(registers, 0, kSize, kRw) == 0);
                  CHECK_HERE(map_outcome(state, 0, kSize, kRw) != 0);
                  CHECK_HERE(protect_outcome(registers, PROT_READ, kRw) == 0);
                  CHECK_HERE(protect_outcome(state, PROT_READ, kRw) != 0);
                  CHECK_HERE(protect_outcome(state, PROT_NONE, PROT_WRITE) != 0);
                  return 0;
              }));
    // The control of the ioctl: it is one of dma-bufs.
    const auto plain = pages_.make();
    ASSERT_TRUE(ok(plain));
    dma_buf_sync sync{};
    sync.flags = DMA_BUF_SYNC_START | DMA_BUF_SYNC_READ;
    EXPECT_EQ(0, outcome([&] { return ::ioctl(plain->get(), DMA_BUF_IOCTL_SYNC, &sync); }));
}

/// Nobody registered a file of the device: it is learned from the owner's.
TEST_F(GuardDmabufTest, OtherFilesOfTheDeviceAreRefusedInTheSandbox) {
    ASSERT_FALSE(old_);
    add_windows();
    const auto grant = make_grant();
    ASSERT_TRUE(ok(grant));
    ASSERT_EQ(-1, fd_of(*grant, "device"));
    const auto ask = [this] {
        vfio_device_info info{};
        info.argsz = sizeof info;
        return outcome([&] { return ::ioctl(owner(), VFIO_DEVICE_GET_INFO, &info); });
    };
    EXPECT_EQ(0, in_child(ask));
    EXPECT_EQ(EPERM, in_child(ask, [&](pid_t pid) { sandbox_->move_here(pid); }));
}

TEST_F(GuardDmabufTest, OneThingThatIsNoneNeedsTheDevice) {
    ASSERT_FALSE(old_);
    const auto has_device = [this] {
        const auto grant = make_grant();
        EXPECT_TRUE(ok(grant));
        if (!grant) return false;
        const bool has = fd_of(*grant, "device") >= 0;
        EXPECT_EQ(has ? 1 : 0, opened_);
        EXPECT_EQ(has ? Json(bdf_) : Json(false), grant->manifest.at("device"));
        // Whatever can be mapped is mapped by its dma-buf.
        EXPECT_EQ("window.registers", grant->manifest.at("windows")[0].at("mmap").at("fd"));
        return has;
    };
    add_windows();
    EXPECT_FALSE(has_device());
    IoctlRule rule;
    rule.name = "VFIO_DEVICE_GET_INFO";
    rule.number = VFIO_DEVICE_GET_INFO;
    plan_.ioctls = {rule};
    EXPECT_TRUE(has_device());
    plan_.ioctls.clear();
    EXPECT_FALSE(has_device());
    slice_.windows[1].by_pread = true;
    EXPECT_TRUE(has_device());
    slice_.windows[1].by_pread = false;
    slice_.windows[1].by_dmabuf = false;
    slice_.windows[1].by_mmap = true;
    EXPECT_TRUE(has_device());
    slice_.windows[1].by_dmabuf = true;
    EXPECT_FALSE(has_device());
    // One that only importers can use.
    exporters_[2] = [](bool) { return from_heap(kSize, O_WRONLY); };
    EXPECT_TRUE(has_device());
}

TEST_F(GuardDmabufTest, OneThatIsMoreThanTheWindowIsNotHandedOut) {
    ASSERT_FALSE(old_);
    const std::pair<Access, Exporter> more[] = {
        {kReadWrite, [this](bool) { return pages_.make(3 * kPage); }},
        {kReadWrite, [](bool) { return from_heap(3 * kPage, O_RDWR); }},
        // Both can be written.
        {kReadOnly, udmabuf()},
        {kReadOnly, [](bool) { return from_heap(kSize, O_RDWR); }},
        // Less than the window, and still one that can be mapped.
        {kReadWrite, [](bool) { return from_heap(kPage, O_RDWR); }},
        {kReadWrite, [](bool) { return from_heap(kSize, O_RDONLY); }},
    };
    for (const auto& [access, exporter] : more) {
        slice_.windows.clear();
        add_window("w", access, exporter);
        const auto refused = make_grant();
        ASSERT_FALSE(refused);
        EXPECT_NE(std::string::npos, refused.error().message.find("window \"w\": its dma-buf"))
            << refused.error().message;
        // With another way to the window that is taken, and the dma-buf is not there.
        slice_.windows[0].by_mmap = true;
        const auto grant = make_grant();
        ASSERT_TRUE(ok(grant));
        EXPECT_EQ((std::vector<std::string>{"manifest", "device"}), names(*grant));
        EXPECT_EQ("device", grant->manifest.at("windows")[0].at("mmap").at("fd"));
        // The control: the same window of a dma-buf that fits.
        exporters_[0] = heap;
        const auto fits = make_grant();
        ASSERT_TRUE(ok(fits));
        EXPECT_EQ((std::vector<std::string>{"manifest", "window.w"}), names(*fits));
    }
    slice_.windows.clear();
    add_window("w", kReadWrite,
               [this](bool) { return Result<UniqueFd>(UniqueFd(::dup(pages_.memory.get()))); });
    EXPECT_FALSE(make_grant());
}

/// Registered for as long as it is open or mapped, by whomever: so a slice is nobody else's before that.
TEST_F(GuardDmabufTest, AGrantOfThemIsOverWhenTheyAreUnmapped) {
    ASSERT_FALSE(old_);
    add_windows();
    void* left = nullptr;
    std::string id;
    {
        const auto grant = make_grant();
        ASSERT_TRUE(ok(grant));
        id = grant->id;
        EXPECT_TRUE(guard_->has_files(id).value_or(false));
        left = ::mmap(nullptr, kSize, PROT_READ, MAP_SHARED, fd_of(*grant, "window.state"), 0);
        ASSERT_NE(MAP_FAILED, left);
    }
    std::this_thread::sleep_for(std::chrono::seconds(1));
    EXPECT_TRUE(guard_->has_files(id).value_or(false));
    ::munmap(left, kSize);
    EXPECT_TRUE(eventually([&] { return !guard_->has_files(id).value_or(true); }));
}

/// What `postern ps`, `monitor` and `revoke` go by; `revoke --reset` finds the owner's file.
TEST_F(GuardDmabufTest, AGrantOfThemIsListedAsTheDevices) {
    ASSERT_FALSE(old_);
    add_windows();
    const auto grant = make_grant();
    ASSERT_TRUE(ok(grant));
    auto pins = GuardPins::find(kBpffs);
    ASSERT_TRUE(ok(pins));
    ASSERT_TRUE(*pins);
    const auto files = (*pins)->files();
    ASSERT_TRUE(ok(files));
    const std::vector<LiveGrant> live = live_grants(*files);
    ASSERT_EQ(1U, live.size());
    EXPECT_EQ(grant->id, live[0].id);
    EXPECT_EQ(bdf_, live[0].device);
    EXPECT_EQ("dmabufs", live[0].profile);
    EXPECT_EQ(::getpid(), live[0].launcher);
    EXPECT_EQ(sandbox_->id(), live[0].sandbox);
    EXPECT_EQ(0U, live[0].refused);
    EXPECT_EQ(3U, live[0].files.size());
    std::set<uint32_t> numbers;
    for (const auto& [key, policy] : *files) numbers.insert(policy.file);
    EXPECT_EQ(3U, numbers.size());
    const auto owned = take_owner_device(**pins, ::getpid(), bdf_);
    ASSERT_TRUE(ok(owned));
    EXPECT_TRUE(ok(prove_unguarded(owned->get())));
}

TEST_F(GuardDmabufTest, ARevokedOneCannotBeMappedAnew) {
    ASSERT_FALSE(old_);
    add_windows();
    const auto grant = make_grant();
    ASSERT_TRUE(ok(grant));
    const int registers = fd_of(*grant, "window.registers");
    void* mapped = ::mmap(nullptr, kSize, PROT_READ, MAP_SHARED, registers, 0);
    ASSERT_NE(MAP_FAILED, mapped);
    EXPECT_EQ(3U, guard_->revoke(grant->id).value_or(0));
    for (const char* name : {"window.registers", "window.state", "window.bell"})
        EXPECT_EQ(EPERM, map_outcome(fd_of(*grant, name), 0, kSize, PROT_READ)) << name;
    // What is mapped stays: loads make no call.
    EXPECT_EQ('B', *static_cast<volatile char*>(mapped));
    ::munmap(mapped, kSize);
}

TEST_F(GuardDmabufTest, ForwardSaysWhoMayReceiveOne) {
    ASSERT_FALSE(old_);
    add_windows();
    const auto received = [this](int fd, bool inside) {
        int pair[2];
        EXPECT_EQ(0, ::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
        const UniqueFd ours(pair[0]);
        const UniqueFd theirs(pair[1]);
        EXPECT_EQ(0, send_fd(ours.get(), fd));
        return in_child([&] { return receive_fd(theirs.get()) ? 0 : EPERM; },
                        [&](pid_t pid) {
                            if (inside) sandbox_->move_here(pid);
                        }) == 0;
    };
    const auto grant = make_grant();
    ASSERT_TRUE(ok(grant));
    const int registers = fd_of(*grant, "window.registers");
    EXPECT_TRUE(received(registers, true));
    EXPECT_FALSE(received(registers, false));
    const auto plain = pages_.make();
    ASSERT_TRUE(ok(plain));
    EXPECT_TRUE(received(plain->get(), false));
}

TEST_F(GuardDmabufTest, RightsOfThemAreGivenUpEachForItself) {
    ASSERT_FALSE(old_);
    add_windows();
    const auto grant = make_grant();
    ASSERT_TRUE(ok(grant));
    EXPECT_EQ(0, in_client(*grant, [](postern_grant* client) {
                  const postern_window* registers = postern_get_window(client, "registers");
                  CHECK_HERE(postern_map_window(registers, kRw) != nullptr);
                  CHECK_HERE(postern_restrict_window(client, registers, POSTERN_WRITE) == 0);
                  CHECK_HERE(postern_map_window(registers, kRw) == nullptr && errno == EPERM);
                  CHECK_HERE(postern_map_window(registers, PROT_READ) != nullptr);
                  const postern_window* bell = postern_get_window(client, "bell");
                  CHECK_HERE(postern_map_window(bell, PROT_WRITE) != nullptr);
                  // Of all of them.
                  const postern::client::Grant all(client);
                  all.restrict_write();
                  CHECK_HERE(postern_map_window(bell, PROT_WRITE) == nullptr && errno == EPERM);
                  CHECK_HERE(postern_map_window(postern_get_window(client, "state"), PROT_READ) != nullptr);
                  return 0;
              }));
}

/// The device's own, as far as this kernel goes: none, or one that cannot be mapped. When a kernel can, its
/// clients get what the tests above show.
TEST_F(GuardDmabufTest, WhatThisKernelMakesOfABar) {
    add_window("registers", kReadWrite,
               [this](bool writable) { return vfio::export_dmabuf(owner_.get(), 0, 0, kSize, writable); });
    const auto bar = vfio::export_dmabuf(owner_.get(), 0, 0, kSize, true);
    utsname kernel{};
    ASSERT_EQ(0, ::uname(&kernel));
    unsigned major = 0;
    unsigned minor = 0;
    ASSERT_EQ(2, std::sscanf(kernel.release, "%u.%u", &major, &minor));
    EXPECT_EQ(std::pair(major, minor) >= std::pair(6U, 19U), static_cast<bool>(bar)) << kernel.release;
    if (!bar) {
        const auto refused = make_grant();
        ASSERT_FALSE(refused);
        EXPECT_NE(std::string::npos, refused.error().message.find("add a way")) << refused.error().message;
        slice_.windows[0].by_mmap = true;
        const auto grant = make_grant();
        ASSERT_TRUE(ok(grant));
        EXPECT_EQ((std::vector<std::string>{"manifest", "device"}), names(*grant));
        return;
    }
    const auto facts = probe_dmabuf(bar->get(), kSize, kReadWrite);
    ASSERT_TRUE(ok(facts));
    EXPECT_EQ(kSize, facts->size);
    const auto grant = make_grant();
    ASSERT_TRUE(ok(grant));
    EXPECT_EQ(!facts->maps, fd_of(*grant, "device") >= 0);
    EXPECT_GE(fd_of(*grant, "window.registers"), 0);
    EXPECT_EQ(facts->maps, grant->manifest.at("windows")[0].contains("mmap"));
}

}  // namespace
}  // namespace postern::test
