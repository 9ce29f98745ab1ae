// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/guard_fixture.h"

#include <bpf/bpf.h>
#include <fcntl.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <thread>

#include "broker-core/file.h"
#include "broker-core/guard_loader.h"

namespace postern::test {

int in_child(const std::function<int()>& body, const std::function<void(pid_t)>& setup) {
    int gate[2];
    if (::pipe2(gate, O_CLOEXEC) != 0) return kWrong;
    const pid_t pid = ::fork();
    if (pid < 0) return kWrong;
    if (pid == 0) {
        ::close(gate[1]);
        char byte = 0;
        (void)!::read(gate[0], &byte, 1);
        ::_exit(body());
    }
    ::close(gate[0]);
    if (setup) setup(pid);
    ::close(gate[1]);
    int status = 0;
    while (::waitpid(pid, &status, 0) < 0 && errno == EINTR) continue;
    return WIFEXITED(status) ? WEXITSTATUS(status) : kWrong + WTERMSIG(status);
}

UniqueFd reopened(int fd, int flags) {
    return UniqueFd(::open(fmt::format("/proc/self/fd/{}", fd).c_str(), flags | O_CLOEXEC));
}

TestCgroup::TestCgroup(const std::string& name) : path_("/sys/fs/cgroup/" + name) {
    EXPECT_EQ(0, ::mkdir(path_.c_str(), 0755)) << path_ << ": " << std::strerror(errno);
    EXPECT_EQ(0, ::mkdir((path_ + "/below").c_str(), 0755));
    struct stat found {};
    EXPECT_EQ(0, ::stat(path_.c_str(), &found));
    id_ = found.st_ino;
}

TestCgroup::~TestCgroup() {
    const auto gone = [this] {
        return (::rmdir((path_ + "/below").c_str()) == 0 || errno == ENOENT) && ::rmdir(path_.c_str()) == 0;
    };
    EXPECT_TRUE(eventually(gone)) << path_;
}

void TestCgroup::move_here(pid_t pid) const {
    EXPECT_TRUE(ok(write_file(path_ + "/cgroup.procs", std::to_string(pid))));
}
void TestCgroup::move_below(pid_t pid) const {
    EXPECT_TRUE(ok(write_file(path_ + "/below/cgroup.procs", std::to_string(pid))));
}

std::string pins() {
    return fmt::format("/sys/fs/bpf/postern/abi-{}", POSTERN_GUARD_ABI);
}

bool attached() {
    return ::access((pins() + "/link_on_free").c_str(), F_OK) == 0;
}

size_t entries(const std::string& map_name) {
    const UniqueFd map(::bpf_obj_get((pins() + "/map_" + map_name).c_str()));
    size_t count = 0;
    uint64_t previous = 0;
    uint64_t key = 0;
    while (::bpf_map_get_next_key(map.get(), count == 0 ? nullptr : &previous, &key) == 0) {
        previous = key;
        count++;
    }
    return count;
}

size_t registered_files() {
    return entries("files");
}

uint64_t skipped_runs() {
    uint64_t sum = 0;
    for (const GuardHook& hook : kGuardHooks) {
        const UniqueFd program(::bpf_obj_get((pins() + "/prog_" + hook.program).c_str()));
        bpf_prog_info info{};
        uint32_t size = sizeof info;
        if (program && ::bpf_obj_get_info_by_fd(program.get(), &info, &size) == 0)
            sum += info.recursion_misses;
    }
    return sum;
}

bool eventually(const std::function<bool()>& condition) {
    for (int i = 0; i < 3000; i++) {
        if (condition()) return true;
        std::this_thread::sleep_for(std::chrono::milliseconds(10));
    }
    return false;
}

namespace {
std::optional<Guard> suite_use;
}  // namespace

void GuardTest::SetUpTestSuite() {
    auto guard = Guard::acquire();
    ASSERT_TRUE(ok(guard));
    suite_use.emplace(std::move(*guard));
}

void GuardTest::LeaveSuite() {
    suite_use->leave();
    suite_use.reset();
}

void GuardTest::TearDownTestSuite() {
    if (suite_use) {
        EXPECT_TRUE(ok(suite_use->release()));
    }
    suite_use.reset();
    EXPECT_FALSE(attached());
}

void GuardTest::SetUp() {
    auto guard = Guard::acquire();
    ASSERT_TRUE(ok(guard));
    guard_.emplace(std::move(*guard));
    sandbox_.emplace(fmt::format("guard-test-{}", ::getpid()));
    ASSERT_TRUE(ok(guard_->add_sandbox(sandbox_->id(), sandbox_->level())));
    make_files(policy());
}

void GuardTest::TearDown() {
    guarded_.reset();
    owner_.reset();
    if (!guard_) return;
    EXPECT_TRUE(eventually([] { return registered_files() == 0; }));
    EXPECT_EQ(0U, skipped_runs());
    EXPECT_TRUE(ok(guard_->release()));
    guard_.reset();
    sandbox_.reset();
}

FilePolicy GuardTest::policy() const {
    const auto window = [](uint64_t offset, uint64_t length, const char* access, const char* methods) {
        GuardWindow made;
        made.offset = made.vma_offset = offset;
        made.length = length;
        made.read = std::strchr(access, 'r') != nullptr;
        made.write = std::strchr(access, 'w') != nullptr;
        made.mmap = std::strchr(methods, 'm') != nullptr;
        made.pread = std::strchr(methods, 'p') != nullptr;
        return made;
    };
    FilePolicy policy;
    policy.grant = fmt::format("test-{}", ::getpid());
    policy.ioctls = {{.number = FIONREAD}};
    policy.windows = {window(0x2000, 0x2000, "rw", "m"),  window(0x5000, 0x1000, "r", "m"),
                      window(0x7010, 0x20, "rw", "p"),    window(0x9000, 0x1000, "w", "m"),
                      window(0xa000, 0x1000, "rw", "mp"), window(0xc010, 0x10, "r", "p")};
    policy.forward = Forward::Sandbox;
    policy.sandbox_cgroup_id = sandbox_->id();
    policy.cgroup_level = sandbox_->level();
    // Every memfd and tmpfs file is of the same kind.
    policy.exclusive = false;
    return policy;
}

void GuardTest::make_files(const FilePolicy& policy) {
    owner_.reset(::memfd_create("guarded", MFD_CLOEXEC | MFD_ALLOW_SEALING));
    ASSERT_TRUE(owner_);
    char page[kPage];
    for (int i = 0; i < 16; i++) {
        std::memset(page, 'A' + i, sizeof page);
        ASSERT_EQ(static_cast<ssize_t>(sizeof page), ::write(owner_.get(), page, sizeof page));
    }
    guarded_ = reopened(owner_.get(), O_RDWR);
    ASSERT_TRUE(guarded_);
    ASSERT_TRUE(ok(guard_->register_file(guarded_.get(), policy)));
}

int GuardTest::map(uint64_t offset, uint64_t length, int prot, int flags) const {
    void* address = ::mmap(nullptr, length, prot, flags, fd(), static_cast<off_t>(offset));
    if (address == MAP_FAILED) return errno;
    ::munmap(address, length);
    return 0;
}

}  // namespace postern::test
