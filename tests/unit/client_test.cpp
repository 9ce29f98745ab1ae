// SPDX-License-Identifier: Apache-2.0
//
// client/postern.h from the side of a client: what it takes from a manifest, what it refuses, and that no
// text makes it read or write where it should not (the sanitizer builds look at that).
#include <fcntl.h>
#include <gtest/gtest.h>
#include <linux/vfio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <cstdlib>
#include <fstream>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <thread>
#include <vector>

#include "bpf/policy.h"
#include "broker-core/ioctl_table.h"
#include "client/postern.hpp"

namespace {

constexpr const char* kNames = "manifest:device:window.doorbell:dma.ring:irq.vq";

// The example of contract.md, with "fd" in dma and irqs.
constexpr const char* kManifest = R"({ "postern": 1, "grant": "g1", "device": "0000:00:02.0", "slice": 1,
  "fds": { "manifest": 3, "device": 4, "window.doorbell": 5, "dma.ring": 6, "irq.vq": 7 },
  "windows": [ { "name": "doorbell", "region": 4, "offset": 12288, "length": 4096, "access": "rw",
                 "mmap": { "fd": "device", "offset": 4398046523392 } } ],
  "dma": [ { "name": "ring", "size": 2097152, "iova": 268435456, "access": "rw", "fd": "dma.ring" } ],
  "irqs": [ { "name": "vq", "index": 2, "vector": 1, "fd": "irq.vq" } ],
  "ioctls": [ "VFIO_DEVICE_GET_INFO" ] })";

struct Free {
    void operator()(postern_grant* grant) const { postern_free(grant); }
};
using GrantPointer = std::unique_ptr<postern_grant, Free>;

struct Parsed {
    GrantPointer grant;
    std::string error;
};

Parsed parse(const std::string& text, const std::string& names = kNames) {
    char error[256] = "";
    // A copy of exactly that size, so that a read past its end is seen.
    const std::unique_ptr<char[]> exact(new char[text.size()]);
    text.copy(exact.get(), text.size());
    GrantPointer grant(
        postern_parse(exact.get(), text.size(), names.c_str(), POSTERN_FIRST_FD, error, sizeof error));
    return {std::move(grant), error};
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
    const size_t at = text.find(from);
    EXPECT_NE(at, std::string::npos) << from;
    return at == std::string::npos ? text : text.replace(at, from.size(), to);
}

// The manifest with one piece changed is refused, and the message says `expected`.
void expect_refused(const std::string& from, const std::string& to, const std::string& expected) {
    const Parsed parsed = parse(replaced(kManifest, from, to));
    EXPECT_FALSE(parsed.grant) << from << " → " << to;
    EXPECT_NE(parsed.error.find(expected), std::string::npos) << parsed.error;
    EXPECT_EQ(parsed.error.find('\n'), std::string::npos) << "errors are one line: " << parsed.error;
}

TEST(ClientManifest, GivesWhatTheContractSays) {
    const Parsed parsed = parse(kManifest);
    ASSERT_TRUE(parsed.grant) << parsed.error;
    const postern_grant& grant = *parsed.grant;
    EXPECT_STREQ(grant.id, "g1");
    EXPECT_STREQ(grant.device, "0000:00:02.0");
    EXPECT_EQ(grant.slice, 1);
    EXPECT_EQ(grant.device_fd, 4);
    EXPECT_EQ(grant.fd_count, 5U);
    EXPECT_EQ(postern_fd(&grant, "irq.vq"), 7);

    const postern_window* window = postern_get_window(&grant, "doorbell");
    ASSERT_NE(window, nullptr);
    EXPECT_EQ(window->region, 4U);
    EXPECT_EQ(window->offset, 12288U);
    EXPECT_EQ(window->length, 4096U);
    EXPECT_EQ(window->access, POSTERN_READ | POSTERN_WRITE);
    EXPECT_EQ(window->mmap_fd, 4);
    EXPECT_EQ(window->mmap_offset, 4398046523392U);
    EXPECT_EQ(window->io_fd, 4);
    EXPECT_EQ(window->io_offset, 4398046523392U);
    EXPECT_EQ(window->slice, 1);

    const postern_dma* dma = postern_get_dma(&grant, "ring");
    ASSERT_NE(dma, nullptr);
    EXPECT_EQ(dma->size, 2097152U);
    EXPECT_EQ(dma->iova, 268435456U);
    EXPECT_EQ(dma->fd, 6);

    const postern_irq* irq = postern_get_irq(&grant, "vq");
    ASSERT_NE(irq, nullptr);
    EXPECT_EQ(irq->index, 2U);
    EXPECT_EQ(irq->vector, 1U);
    EXPECT_EQ(irq->fd, 7);
}

TEST(ClientManifest, DmaBufWindowHasNoPreadUnlessSaid) {
    const std::string text = replaced(kManifest, R"("mmap": { "fd": "device", "offset": 4398046523392 })",
                                      R"("mmap": { "fd": "window.doorbell", "offset": 0 })");
    const Parsed parsed = parse(text);
    ASSERT_TRUE(parsed.grant) << parsed.error;
    EXPECT_EQ(postern_get_window(parsed.grant.get(), "doorbell")->mmap_fd, 5);
    EXPECT_EQ(postern_get_window(parsed.grant.get(), "doorbell")->io_fd, -1);

    const Parsed both =
        parse(replaced(text, R"("access": "rw",
                 "mmap")",
                       R"("access": "rw", "pread": { "fd": "device", "offset": 7 }, "mmap")"));
    ASSERT_TRUE(both.grant) << both.error;
    EXPECT_EQ(postern_get_window(both.grant.get(), "doorbell")->io_fd, 4);
    EXPECT_EQ(postern_get_window(both.grant.get(), "doorbell")->io_offset, 7U);
}

TEST(ClientManifest, LookupOfAnotherNameIsEnoent) {
    const Parsed parsed = parse(kManifest);
    ASSERT_TRUE(parsed.grant) << parsed.error;
    for (const char* name : {"", "ring2", "rin", "doorbell ", "irq"}) {
        errno = 0;
        EXPECT_EQ(postern_get_dma(parsed.grant.get(), name), nullptr);
        EXPECT_EQ(errno, ENOENT);
        EXPECT_EQ(postern_get_window(parsed.grant.get(), name), nullptr);
        EXPECT_EQ(postern_get_irq(parsed.grant.get(), name), nullptr);
        EXPECT_EQ(postern_fd(parsed.grant.get(), name), -1);
    }
    errno = 0;
    EXPECT_EQ(postern_map_window(nullptr, PROT_READ), nullptr);
    EXPECT_EQ(errno, ENOENT);
    EXPECT_EQ(postern_map_dma(nullptr), nullptr);
    EXPECT_EQ(postern_irq_wait(nullptr, nullptr), -1);
}

// What setup programs get: every slice's memory under its own fd name.
TEST(ClientManifest, SetupProgramsNameTheSlice) {
    const Parsed parsed = parse(R"({"postern":1,"grant":"g","device":"0000:00:02.0",
      "fds":{"manifest":3,"device":4,"dma.ring.0":5,"dma.ring.1":6,"irq.vq.0":7,"irq.vq.1":8},
      "windows":[{"name":"w","slice":1,"region":0,"offset":0,"length":1,"access":"r"}],
      "dma":[{"name":"ring","slice":0,"size":4096,"iova":0,"access":"rw","fd":"dma.ring.0"},
             {"name":"ring","slice":1,"size":4096,"iova":4096,"access":"r","fd":"dma.ring.1"}],
      "irqs":[{"name":"vq","slice":0,"index":2,"vector":1,"fd":"irq.vq.0"},
              {"name":"vq","slice":1,"index":2,"vector":2,"fd":"irq.vq.1"}]})",
                                "manifest:device:dma.ring.0:dma.ring.1:irq.vq.0:irq.vq.1");
    ASSERT_TRUE(parsed.grant) << parsed.error;
    EXPECT_EQ(parsed.grant->slice, POSTERN_NO_SLICE);
    EXPECT_EQ(postern_get_dma_in_slice(parsed.grant.get(), "ring", 0)->fd, 5);
    EXPECT_EQ(postern_get_dma_in_slice(parsed.grant.get(), "ring", 1)->iova, 4096U);
    EXPECT_EQ(postern_get_dma_in_slice(parsed.grant.get(), "ring", 2), nullptr);
    EXPECT_EQ(postern_get_irq_in_slice(parsed.grant.get(), "vq", 1)->vector, 2U);
    EXPECT_EQ(postern_get_window_in_slice(parsed.grant.get(), "w", 0), nullptr);
    EXPECT_EQ(postern_get_window_in_slice(parsed.grant.get(), "w", 1)->access, POSTERN_READ);
    EXPECT_EQ(postern_get_dma(parsed.grant.get(), "ring"), nullptr) << "no slice of its own";
}

TEST(ClientManifest, UnknownKeysAreForNewerClients) {
    const Parsed parsed = parse(replaced(kManifest, R"("slice": 1,)",
                                         R"("slice": 1, "later": {"a": [1.5e3, -2, null, true, "x"]},)"));
    EXPECT_TRUE(parsed.grant) << parsed.error;
}

TEST(ClientManifest, EmptyGrantIsAGrant) {
    const Parsed parsed =
        parse(R"({"postern":1,"grant":"g","device":null,"slice":0,"fds":{"manifest":3}})", "manifest");
    ASSERT_TRUE(parsed.grant) << parsed.error;
    EXPECT_EQ(parsed.grant->device, nullptr);
    EXPECT_EQ(parsed.grant->device_fd, -1);
    EXPECT_EQ(parsed.grant->window_count + parsed.grant->dma_count + parsed.grant->irq_count, 0U);
}

TEST(ClientManifest, IntegersAreExactTo64Bits) {
    const Parsed large = parse(replaced(kManifest, "268435456", "18446744073707454463"));  // 2^64 - 1 - 2 MiB
    ASSERT_TRUE(large.grant) << large.error;
    EXPECT_EQ(postern_get_dma(large.grant.get(), "ring")->iova, 18446744073707454463U);
    expect_refused("268435456", "18446744073707454464", "dma[0].iova: must be an integer");
    expect_refused("268435456", "18446744073709551616", "dma[0].iova: must be an integer");
    expect_refused("268435456", "184467440737095516160", "dma[0].iova: must be an integer");
    expect_refused("268435456", "268435456.0", "dma[0].iova: must be an integer");
    expect_refused("268435456", "1e3", "dma[0].iova: must be an integer");
    expect_refused("268435456", "-1", "dma[0].iova: must be an integer");
    expect_refused("268435456", "\"268435456\"", "dma[0].iova: must be an integer");
}

TEST(ClientManifest, RangesThatOverflowAreRefused) {
    expect_refused("12288", "9223372036854775807", "windows[0].length");
    expect_refused("4398046523392", "9223372036854775807", "windows[0].mmap.offset");
    expect_refused("\"length\": 4096", "\"length\": 0", "windows[0].length");
    expect_refused("2097152", "0", "dma[0].size");
    expect_refused("\"region\": 4", "\"region\": 4294967296", "windows[0].region");
    expect_refused("\"vector\": 1", "\"vector\": 4294967296", "irqs[0].vector");
    expect_refused("\"slice\": 1", "\"slice\": 2147483648", "slice");
}

TEST(ClientManifest, MissingAndMistypedKeysAreNamed) {
    expect_refused("\"postern\": 1,", "", "postern: is missing");
    expect_refused("\"postern\": 1,", "\"postern\": 2,", "version");
    expect_refused("\"grant\": \"g1\",", "", "grant: is missing");
    expect_refused("\"g1\"", "1", "grant: must be a string");
    expect_refused("\"0000:00:02.0\"", "[]", "device: must be a string");
    expect_refused("\"name\": \"doorbell\", ", "", "windows[0].name: is missing");
    expect_refused("\"access\": \"rw\",\n", "\"access\": \"x\",\n", "windows[0].access");
    expect_refused("\"fd\": \"device\"", "\"fd\": \"dev\"",
                   "windows[0].mmap.fd: names an fd that was not passed");
    expect_refused("{ \"fd\": \"device\", \"offset\": 4398046523392 }", "3",
                   "windows[0].mmap: must be an object");
    expect_refused(", \"fd\": \"dma.ring\"", "", "dma[0].fd: is missing");
    expect_refused("\"irqs\": [", "\"irqs\": 5, \"irks\": [", "irqs: must be an array");
    expect_refused("\"irqs\": [", "\"irqs\": [ 7, ", "irqs[0].name: is missing");
}

TEST(ClientManifest, FdNumbersMustAgreeWithTheEnvironment) {
    expect_refused("\"dma.ring\": 6", "\"dma.ring\": 7", "fds.dma.ring: is not the fd");
    expect_refused("\"dma.ring\": 6", "\"dma.ring\": -6", "fds.dma.ring: must be an fd number");
    expect_refused("\"irq.vq\": 7", "\"irq.vq\": 7, \"more\": 8", "fds.more: is not the fd");
    expect_refused("\"fds\": {", "\"fds\": 1, \"fdz\": {", "fds: must be an object");
    const Parsed twice = parse(kManifest, "manifest:device:window.doorbell:dma.ring:dma.ring");
    EXPECT_FALSE(twice.grant);
    EXPECT_NE(twice.error.find("appears twice"), std::string::npos) << twice.error;
}

TEST(ClientJson, TextThatIsNoJsonIsRefused) {
    for (const char* text : {"",
                             " ",
                             "{",
                             "}",
                             "[",
                             "nul",
                             "{\"a\"}",
                             "{\"a\":}",
                             "{\"a\":1,}",
                             "{,}",
                             "[1,]",
                             "[1 2]",
                             "{a:1}",
                             "{'a':1}",
                             "01",
                             "+1",
                             ".5",
                             "1.",
                             "1e",
                             "-",
                             "0x10",
                             "\"\\x\"",
                             "\"\\u12\"",
                             "\"\\ud800\"",
                             "\"\\udc00\"",
                             "\"\\ud800\\u0041\"",
                             "\"\\u0000\"",
                             "\"a",
                             "\"\n\"",
                             "\"\x80\"",
                             "\"\xc0\xaf\"",
                             "\"\xed\xa0\x80\"",
                             "\"\xf5\x80\x80\x80\"",
                             "\"\xe2\x82\"",
                             "{} {}",
                             "[] x",
                             "// c\n{}",
                             "NaN",
                             "Infinity",
                             "tru",
                             "nulll"}) {
        const Parsed parsed = parse(text);
        EXPECT_FALSE(parsed.grant) << text;
        EXPECT_NE(parsed.error.find("manifest"), std::string::npos) << parsed.error;
    }
    for (const char* text : {"[]", "3", "\"x\"", "null", "true"}) {
        EXPECT_EQ(parse(text).error, std::string("postern: manifest: byte ") + std::to_string(strlen(text)) +
                                         ": not a JSON object");
    }
}

TEST(ClientJson, DuplicateKeysAreRefused) {
    expect_refused("\"slice\": 1,", "\"slice\": 1, \"slice\": 2,", "twice");
    expect_refused("\"slice\": 1,", "\"slice\": 1, \"sl\\u0069ce\": 2,", "twice");
}

TEST(ClientJson, StringsAreUnescaped) {
    const Parsed parsed =
        parse(replaced(kManifest, "\"g1\"", R"("\"\\\/\b\f\n\r\t \u0041\u00e9\u20ac\ud83d\ude00 é€😀")"));
    ASSERT_TRUE(parsed.grant) << parsed.error;
    EXPECT_STREQ(parsed.grant->id, "\"\\/\b\f\n\r\t Aé€😀 é€😀");
}

TEST(ClientJson, DepthIsBounded) {
    const auto nested = [](size_t depth) {
        return R"({"postern":1,"grant":"g","fds":{"manifest":3},"x":)" + std::string(depth, '[') +
               std::string(depth, ']') + "}";
    };
    EXPECT_TRUE(parse(nested(POSTERN_JSON_DEPTH_ - 1), "manifest").grant);
    const Parsed deep = parse(nested(POSTERN_JSON_DEPTH_), "manifest");
    EXPECT_FALSE(deep.grant);
    EXPECT_NE(deep.error.find("nested too deeply"), std::string::npos) << deep.error;
    EXPECT_FALSE(parse(std::string(500000, '['), "manifest").grant);
    std::string objects;
    for (int i = 0; i < 100000; i++) objects += "{\"a\":";
    EXPECT_FALSE(parse(objects, "manifest").grant);
}

TEST(ClientJson, SizeIsBounded) {
    const std::string padded = std::string(kManifest) + std::string(POSTERN_MANIFEST_SIZE_, ' ');
    EXPECT_NE(parse(padded).error.find("larger than"), std::string::npos);
    std::string members = "{\"m0\":0";
    for (int i = 1; i <= POSTERN_JSON_MEMBERS_; i++) members += ",\"m" + std::to_string(i) + "\":0";
    EXPECT_NE(parse(members + "}").error.find("too many"), std::string::npos);
}

TEST(ClientJson, EveryTruncationIsRefused) {
    const std::string whole = kManifest;
    for (size_t size = 0; size < whole.size(); size++) {
        EXPECT_FALSE(parse(whole.substr(0, size)).grant) << size;
    }
}

// Whatever one byte is turned into: it is refused, or it is JSON in the eyes of another parser too.
TEST(ClientJson, IsNoLaxerThanAnotherParser) {
    const std::string whole = kManifest;
    int accepted = 0;
    for (size_t at = 0; at < whole.size(); at++) {
        for (const char byte : {'"', '\\', '{', '}', '[',  ']',    ',',    ':',    '0', '-',
                                '.', 'e',  'u', ' ', '\0', '\x80', '\xff', '\x1f', 'n', '/'}) {
            std::string text = whole;
            text[at] = byte;
            if (!parse(text).grant) continue;
            accepted++;
            EXPECT_TRUE(nlohmann::json::accept(text)) << text;
        }
    }
    EXPECT_GT(accepted, 100);
}

TEST(ClientJson, ErrorIsCutToItsBuffer) {
    char error[8];
    memset(error, 'x', sizeof error);
    EXPECT_EQ(postern_parse("nonsense", 8, "manifest", 3, error, sizeof error), nullptr);
    EXPECT_STREQ(error, "postern");
    EXPECT_EQ(postern_parse("nonsense", 8, "manifest", 3, nullptr, 0), nullptr);
}

// ---- mapping ----

class ClientMapping : public testing::Test {
  protected:
    void SetUp() override {
        fd_ = memfd_create("client_test", MFD_CLOEXEC);
        ASSERT_GE(fd_, 0);
        ASSERT_EQ(ftruncate(fd_, 3 * 4096), 0);
        window_ = {"w", 0, 0, 0, 4096, POSTERN_READ | POSTERN_WRITE, fd_, 4096, fd_, 4096, -1};
    }
    void TearDown() override { close(fd_); }

    int fd_ = -1;
    postern_window window_{};
};

TEST_F(ClientMapping, FirstByteIsTheWindowsWhereverItLies) {
    for (const uint64_t inside : {0U, 8U, 0x800U, 0xffcU}) {
        window_.mmap_offset = 4096 + inside;
        window_.length = 16;  // the last one crosses a page
        volatile void* first = postern_map_window(&window_, PROT_READ | PROT_WRITE);
        ASSERT_NE(first, nullptr) << strerror(errno);
        EXPECT_EQ((uintptr_t)first % 4096, inside);
        postern_mmio_write32((volatile char*)first + 4, 0x01020304);
        unsigned char bytes[4] = {};
        ASSERT_EQ(pread(fd_, bytes, 4, (off_t)(4096 + inside + 4)), 4);
        EXPECT_EQ(bytes[0], 4);
        EXPECT_EQ(bytes[3], 1);
        EXPECT_EQ(postern_mmio_read16((volatile char*)first + 6), 0x0102);
        EXPECT_EQ(postern_unmap(first, window_.length), 0);
    }
}

TEST_F(ClientMapping, AccessIsCheckedBeforeTheKernelIsAsked) {
    window_.access = POSTERN_READ;
    errno = 0;
    EXPECT_EQ(postern_map_window(&window_, PROT_READ | PROT_WRITE), nullptr);
    EXPECT_EQ(errno, EACCES);
    volatile void* first = postern_map_window(&window_, PROT_READ);
    ASSERT_NE(first, nullptr);
    EXPECT_EQ(postern_unmap(first, window_.length), 0);
    window_.mmap_fd = -1;
    EXPECT_EQ(postern_map_window(&window_, PROT_READ), nullptr);
    EXPECT_EQ(errno, ENODEV);
}

TEST_F(ClientMapping, PreadStaysInTheWindow) {
    uint32_t value = 0x11223344;
    EXPECT_EQ(postern_window_write(&window_, 4092, &value, 4), 0);
    value = 0;
    EXPECT_EQ(postern_window_read(&window_, 4092, &value, 4), 0);
    EXPECT_EQ(value, 0x11223344U);
    errno = 0;
    EXPECT_EQ(postern_window_read(&window_, 4093, &value, 4), -1);
    EXPECT_EQ(errno, ERANGE);
    EXPECT_EQ(postern_window_read(&window_, UINT64_MAX, &value, 4), -1);
    EXPECT_EQ(errno, ERANGE);
}

TEST(ClientIrq, WaitCountsAndTakesNonblockingFds) {
    for (const int flags : {0, static_cast<int>(EFD_NONBLOCK)}) {
        const postern_irq irq{"i", 0, 2, 1, eventfd(3, EFD_CLOEXEC | flags)};
        ASSERT_GE(irq.fd, 0);
        uint64_t count = 0;
        EXPECT_EQ(postern_irq_wait(&irq, &count), 0);
        EXPECT_EQ(count, 3U);
        close(irq.fd);
    }
}

// ---- the process's own environment; each case in a child, for it needs fds 3 and up and its own pid ----

struct Delivery {
    std::string fds = "2";
    std::string names = "manifest:dma.ring";
    std::string manifest = R"({"postern":1,"grant":"g","slice":0,"fds":{"manifest":3,"dma.ring":4},
      "dma":[{"name":"ring","size":4096,"iova":0,"access":"rw","fd":"dma.ring"}]})";
    int pid_offset = 0;
    bool close_ring = false;
};

// What the child says: "ok" or postern_open's error.
std::string open_in_child(const Delivery& delivery) {
    int ends[2];
    if (pipe(ends) != 0) return "pipe failed";
    const pid_t child = fork();
    if (child == 0) {
        const int out = fcntl(ends[1], F_DUPFD, 100);
        const int manifest = memfd_create("manifest", 0);
        const int ring = memfd_create("ring", 0);
        std::string said;
        if (write(manifest, delivery.manifest.data(), delivery.manifest.size()) < 0 ||
            ftruncate(ring, 4096) != 0) {
            said = "memfd failed";
        }
        const int high = fcntl(ring, F_DUPFD, 50);
        dup2(fcntl(manifest, F_DUPFD, 60), 3);
        dup2(high, 4);
        if (delivery.close_ring) close(4);
        setenv("LISTEN_FDS", delivery.fds.c_str(), 1);
        setenv("LISTEN_FDNAMES", delivery.names.c_str(), 1);
        setenv("LISTEN_PID", std::to_string(getpid() + delivery.pid_offset).c_str(), 1);
        try {
            auto grant = postern::client::Grant::open();
            auto memory = grant.map_dma("ring");
            *memory.as<uint32_t>(4092) = 7;
            bool out_of_range = false;
            try {
                (void)memory.as<uint32_t>(4093);
            } catch (const std::out_of_range&) {
                out_of_range = true;
            }
            const bool close_on_exec = (fcntl(4, F_GETFD) & FD_CLOEXEC) != 0;
            if (said.empty()) said = out_of_range && close_on_exec ? "ok" : "unexpected";
        } catch (const postern::client::GrantError& error) {
            said = error.what();
        }
        if (write(out, said.data(), said.size()) < 0) _exit(1);
        _exit(0);
    }
    close(ends[1]);
    std::string text(1024, '\0');
    const ssize_t size = read(ends[0], text.data(), text.size());
    text.resize(size > 0 ? static_cast<size_t>(size) : 0);
    close(ends[0]);
    waitpid(child, nullptr, 0);
    return text;
}

TEST(ClientOpen, TakesWhatThisProcessWasStartedWith) {
    EXPECT_EQ(open_in_child({}), "ok");
}

TEST(ClientOpen, SaysWhyThereIsNoGrant) {
    Delivery other_pid;
    other_pid.pid_offset = 1;
    EXPECT_NE(open_in_child(other_pid).find("passed to another process"), std::string::npos);
    Delivery count;
    count.fds = "3";
    EXPECT_EQ(open_in_child(count), "postern: LISTEN_FDS is 3 but LISTEN_FDNAMES has 2 names");
    count.fds = "2x";
    EXPECT_EQ(open_in_child(count), "postern: LISTEN_FDS=2x is not a number");
    Delivery names;
    names.names = "a:b";
    EXPECT_NE(open_in_child(names).find("has no \"manifest\""), std::string::npos);
    Delivery closed;
    closed.close_ring = true;
    EXPECT_NE(open_in_child(closed).find("fd 4 (dma.ring)"), std::string::npos);
    Delivery empty;
    empty.manifest = "";
    EXPECT_NE(open_in_child(empty).find("0 bytes"), std::string::npos);
}

// ---- ruled ioctls, giving up rights ----

// The header stands alone, so it has constants of its own.
static_assert(POSTERN_IOC_RESTRICT_ == POSTERN_IOC_RESTRICT);
static_assert(POSTERN_GIVE_UP_IOCTL_ == POSTERN_RESTRICT_IOCTL);
static_assert(POSTERN_GIVE_UP_IOCTLS_ == POSTERN_RESTRICT_IOCTLS);
static_assert(POSTERN_GIVE_UP_WINDOW_ == POSTERN_RESTRICT_WINDOW);
static_assert(POSTERN_GIVE_UP_WINDOWS_ == POSTERN_RESTRICT_WINDOWS);
static_assert(POSTERN_GIVE_UP_FORWARD_ == POSTERN_RESTRICT_FORWARD);
static_assert(POSTERN_READ == POSTERN_WINDOW_READ && POSTERN_WRITE == POSTERN_WINDOW_WRITE);
static_assert(POSTERN_MMAP == POSTERN_WINDOW_MMAP && POSTERN_PREAD == POSTERN_WINDOW_PREAD);
static_assert(POSTERN_RESTRICT_OP(static_cast<uint64_t>(POSTERN_GIVE_UP_WINDOW_) << 56) ==
              POSTERN_RESTRICT_WINDOW);
static_assert(POSTERN_MAX_WINDOWS <= POSTERN_GUARD_WINDOWS_);

TEST(ClientIoctl, KnowsEveryIoctlThatHasToBeRepeated) {
    using namespace postern;
    unsigned repeated = 0;
    for (const IoctlEntry& entry : known_ioctls()) {
        const int expected = entry.argument != Argument::BlockTwice ? 0
                             : entry.name == "IOMMU_IOAS_UNMAP"     ? ENOENT
                                                                    : EEXIST;
        // The number alone decides, so it must not mean another thing on another file.
        EXPECT_EQ(postern_done_errno_(entry.number), expected) << entry.name;
        repeated += expected != 0;
    }
    EXPECT_EQ(repeated, 3U);
}

// Blocks stay for good: each test in a process of its own.
int in_process(int (*body)()) {
    const pid_t child = fork();
    if (child == 0) _exit(body());
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

TEST(ClientIoctl, MappingAnywhereNeedsItsAnswer) {
    EXPECT_EQ(0, in_process([] {
                  const auto* map = postern::find_ioctl(postern::IoctlFile::Iommufd, "IOMMU_IOAS_MAP");
                  if (map == nullptr) return 1;
                  uint32_t block[10] = {sizeof block, 6};  // readable, writable
                  if (postern_ioctl(-1, map->number, block, sizeof block) != -1 || errno != EINVAL) return 2;
                  block[1] |= 1;  // IOMMU_IOAS_MAP_FIXED_IOVA
                  if (postern_ioctl(-1, map->number, block, sizeof block) != -1 || errno != EBADF) return 3;
                  return 0;
              }));
}

unsigned blocks_used() {
    unsigned used = 0;
    for (const postern_block_& block : postern_blocks_) used += block.state != POSTERN_BLOCK_FREE_;
    return used;
}

bool has_mseal() {
    return syscall(462, nullptr, size_t{0}, 0UL) == 0;
}

// FIONBIO: an ioctl of every file whose argument is an int that the kernel only reads.
bool set_nonblocking(int fd, int value) {
    const int before = fcntl(fd, F_GETFL);
    if (postern_ioctl(fd, FIONBIO, &value, sizeof value) != 0) return false;
    const int expected = value != 0 ? before | O_NONBLOCK : before & ~O_NONBLOCK;
    return fcntl(fd, F_GETFL) == expected;
}

TEST(ClientIoctl, CallsWithTheBlocksContent) {
    EXPECT_EQ(0, in_process([] {
                  const int fd = eventfd(0, EFD_CLOEXEC);
                  return set_nonblocking(fd, 1) && set_nonblocking(fd, 0) && set_nonblocking(fd, 7) ? 0 : 1;
              }));
}

TEST(ClientIoctl, KeepsABlockAndFindsItAgain) {
    EXPECT_EQ(0, in_process([] {
                  const int fd = eventfd(0, EFD_CLOEXEC);
                  for (int i = 0; i < 3000; i++) {
                      if (!set_nonblocking(fd, i % 3)) return 1;
                  }
                  return blocks_used() == (has_mseal() ? 3U : 0U) ? 0 : 2;
              }));
}

TEST(ClientIoctl, BlockCannotBeChangedOrTakenAway) {
    if (!has_mseal()) return;
    EXPECT_EQ(
        0, in_process([] {
            const long value = 0x1234;
            const void* sealed = postern_sealed_block_(&value, sizeof value);
            if (sealed == nullptr || memcmp(sealed, &value, sizeof value) != 0) return 1;
            void* at = const_cast<void*>(sealed);
            if (munmap(at, 4096) != -1 || errno != EPERM) return 2;
            if (mprotect(at, 4096, PROT_READ | PROT_WRITE) != -1) return 3;
            if (mmap(at, 4096, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) != MAP_FAILED) {
                return 4;
            }
            std::fstream memory("/proc/self/mem", std::ios::in | std::ios::out | std::ios::binary);
            memory.seekp(reinterpret_cast<std::streamoff>(at));
            memory.write("xxxx", 4).flush();
            if (memory) return 5;
            return memcmp(sealed, &value, sizeof value) == 0 ? 0 : 6;
        }));
}

TEST(ClientIoctl, BlocksAreBounded) {
    if (!has_mseal()) return;
    EXPECT_EQ(0, in_process([] {
                  const int fd = eventfd(0, EFD_CLOEXEC);
                  for (int i = 0; i < POSTERN_BLOCKS; i++) {
                      if (!set_nonblocking(fd, i)) return 1;
                  }
                  int value = POSTERN_BLOCKS;
                  errno = 0;
                  if (postern_ioctl(fd, FIONBIO, &value, sizeof value) != -1 || errno != ENOSPC) return 2;
                  // Those that are there can be used on.
                  return set_nonblocking(fd, 5) && blocks_used() == POSTERN_BLOCKS ? 0 : 3;
              }));
    const char byte = 0;
    errno = 0;
    EXPECT_EQ(postern_ioctl(0, FIONBIO, &byte, 0), -1);
    EXPECT_EQ(errno, EINVAL);
    const std::vector<char> large(POSTERN_BLOCK_SIZE + 1);
    EXPECT_EQ(postern_ioctl(0, FIONBIO, large.data(), large.size()), -1);
    EXPECT_EQ(errno, E2BIG);
}

TEST(ClientIoctl, FailureToMakeABlockTakesNoPlace) {
    if (!has_mseal()) return;
    EXPECT_EQ(0, in_process([] {
                  const int fd = eventfd(0, EFD_CLOEXEC);
                  rlimit before{};
                  getrlimit(RLIMIT_NOFILE, &before);
                  const rlimit full{static_cast<rlim_t>(fd) + 1, before.rlim_max};
                  setrlimit(RLIMIT_NOFILE, &full);
                  const int value = 1;
                  if (postern_ioctl(fd, FIONBIO, &value, sizeof value) != -1 || errno != EMFILE) return 1;
                  if (blocks_used() != 0) return 2;
                  setrlimit(RLIMIT_NOFILE, &before);
                  return set_nonblocking(fd, 1) ? 0 : 3;
              }));
}

TEST(ClientIoctl, ThreadsShareTheBlocks) {
    EXPECT_EQ(0, in_process([] {
                  std::vector<std::thread> threads;
                  std::atomic<unsigned> wrong = 0;
                  for (int t = 0; t < 4; t++) {
                      threads.emplace_back([&wrong] {
                          const int fd = eventfd(0, EFD_CLOEXEC);
                          for (int i = 0; i < 400; i++) wrong += set_nonblocking(fd, i % 16) ? 0U : 1U;
                          close(fd);
                      });
                  }
                  for (std::thread& thread : threads) thread.join();
                  // Two may make the same one at once, and that is all.
                  return wrong == 0 && blocks_used() <= 64 ? 0 : 1;
              }));
}

/// A grant of dma-bufs, which are memfds here, without a device fd.
constexpr const char* kWithoutDevice = R"({ "postern": 1, "grant": "g1", "device": false, "slice": 0,
  "fds": { "manifest": 3, "window.doorbell": 4 },
  "windows": [ { "name": "doorbell", "region": 4, "offset": 12288, "length": 4096, "access": "r",
                 "fd": "window.doorbell", "mmap": { "fd": "window.doorbell", "offset": 0 }, "guard": 0 } ],
  "dma": [], "irqs": [], "ioctls": [] })";

TEST(ClientManifest, MayHaveNoDeviceFd) {
    const Parsed parsed = parse(kWithoutDevice, "manifest:window.doorbell");
    ASSERT_TRUE(parsed.grant) << parsed.error;
    EXPECT_EQ(parsed.grant->device, nullptr);
    EXPECT_EQ(parsed.grant->device_fd, -1);
    errno = 0;
    EXPECT_EQ(postern_fd(parsed.grant.get(), "device"), -1);
    EXPECT_EQ(errno, ENOENT);
    // In a process of its own: a block is there until its process ends.
    EXPECT_EQ(0, in_process([] {
                  vfio_irq_set set{};
                  set.argsz = sizeof set;
                  const int result = postern_ioctl(-1, VFIO_DEVICE_SET_IRQS, &set, sizeof set);
                  return result == -1 && errno == EBADF ? 0 : 1;
              }));

    postern_window window = *postern_get_window(parsed.grant.get(), "doorbell");
    EXPECT_EQ(window.mmap_fd, 4);
    EXPECT_EQ(window.io_fd, -1);
    char byte = 0;
    EXPECT_EQ(postern_window_read(&window, 0, &byte, 1), -1);
    EXPECT_EQ(errno, ENODEV);
    // What has the number 4 here is none of the grant's.
    const int memory = memfd_create("window", MFD_CLOEXEC);
    ASSERT_EQ(ftruncate(memory, 4096), 0);
    ASSERT_EQ(pwrite(memory, "A", 1, 0), 1);
    window.mmap_fd = memory;
    volatile void* at = postern_map_window(&window, PROT_READ);
    ASSERT_NE(at, nullptr);
    EXPECT_EQ(*static_cast<volatile char*>(at), 'A');
    EXPECT_EQ(postern_map_window(&window, PROT_WRITE), nullptr);
    EXPECT_EQ(errno, EACCES);
    // Of the window's own fd, which is not guarded here.
    EXPECT_EQ(postern_restrict_window(parsed.grant.get(), &window, POSTERN_READ), -1);
    EXPECT_EQ(errno, ENOTTY);
    postern_unmap(at, window.length);
    close(memory);

    // The control, and a manifest that contradicts itself.
    EXPECT_TRUE(parse(kManifest).grant);
    const Parsed both = parse(replaced(kWithoutDevice, R"("manifest": 3,)", R"("manifest": 3, "device": 5,)"),
                              "manifest:window.doorbell:device");
    EXPECT_FALSE(both.grant);
    EXPECT_NE(both.error.find("device"), std::string::npos) << both.error;
    EXPECT_FALSE(parse(replaced(kWithoutDevice, "false", "true"), "manifest:window.doorbell").grant);
}

TEST(ClientRestrict, OfAFileThatIsNotGuardedIsAnError) {
    const int fd = eventfd(0, EFD_CLOEXEC);
    errno = 0;
    EXPECT_EQ(postern_restrict_ioctl(fd, FIONBIO), -1);
    EXPECT_EQ(errno, ENOTTY);
    EXPECT_EQ(postern_restrict_forward(fd), -1);
    EXPECT_EQ(errno, ENOTTY);
    EXPECT_EQ(postern_restrict_windows(fd, 16), -1);
    EXPECT_EQ(errno, EINVAL);
    close(fd);
}

TEST(ClientRestrict, WindowsAreKnownByTheGuardsNumber) {
    const Parsed plain = parse(kManifest);
    ASSERT_TRUE(plain.grant) << plain.error;
    EXPECT_EQ(postern_get_window(plain.grant.get(), "doorbell")->guard, -1);
    errno = 0;
    EXPECT_EQ(
        postern_restrict_window(plain.grant.get(), postern_get_window(plain.grant.get(), "doorbell"), 2), -1);
    EXPECT_EQ(errno, ENODEV);
    EXPECT_EQ(postern_restrict_window(plain.grant.get(), postern_get_window(plain.grant.get(), "none"), 2),
              -1);
    EXPECT_EQ(errno, ENOENT);

    const Parsed guarded = parse(replaced(kManifest, R"("access": "rw",
                 "mmap")",
                                          R"("access": "rw", "guard": 31, "mmap")"));
    ASSERT_TRUE(guarded.grant) << guarded.error;
    EXPECT_EQ(postern_get_window(guarded.grant.get(), "doorbell")->guard, 31);
    for (const char* wrong : {"-1", "256", "\"0\"", "1.0"}) {
        const Parsed refused = parse(replaced(kManifest, R"("length": 4096,)",
                                              std::string(R"("length": 4096, "guard": )") + wrong + ","));
        EXPECT_FALSE(refused.grant) << wrong;
        EXPECT_NE(refused.error.find("windows[0].guard"), std::string::npos) << refused.error;
    }
}

}  // namespace
