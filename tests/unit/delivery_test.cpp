// SPDX-License-Identifier: Apache-2.0
// A grant over a container's socket: to a process that is in the container, once, and to nobody else. This
// test is the container; what is in another is a child.
#include "oci-hook/delivery.h"

#include <gmock/gmock.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <filesystem>
#include <string>
#include <thread>
#include <vector>

#include "broker-core/file.h"
#include "broker-core/packet.h"
#include "broker-core/peer.h"
#include "postern.h"

namespace postern {
namespace {

using testing::HasSubstr;
using testing::IsEmpty;

constexpr const char* kManifest =
    R"({"postern":1,"grant":"0123456789abcdef","slice":2,"fds":{"manifest":3,"dma.ring":4},
        "dma":[{"name":"ring","size":4096,"iova":65536,"access":"rw","fd":"dma.ring"}]})";

TEST(ContainerPeer, CgroupsAreWithinOneAnother) {
    EXPECT_TRUE(is_within("/sys/fs/cgroup/box", "/sys/fs/cgroup/box"));
    EXPECT_TRUE(is_within("/sys/fs/cgroup/box/init.scope", "/sys/fs/cgroup/box"));
    EXPECT_FALSE(is_within("/sys/fs/cgroup/box2", "/sys/fs/cgroup/box"));
    EXPECT_FALSE(is_within("/sys/fs/cgroup", "/sys/fs/cgroup/box"));
    EXPECT_FALSE(is_within("/sys/fs/cgroup/bo", "/sys/fs/cgroup/box"));
}

TEST(ContainerPeer, OwnNamespaceIsWithinItself) {
    const auto own = read_identity(::getpid());
    ASSERT_TRUE(own) << own.error().message;
    const auto within = is_pid_namespace_within(::getpid(), own->pid_namespace);
    ASSERT_TRUE(within) << within.error().message;
    EXPECT_TRUE(*within);
    const auto other = is_pid_namespace_within(::getpid(), own->pid_namespace + 1);
    ASSERT_TRUE(other) << other.error().message;
    EXPECT_FALSE(*other);
}

class Deliveries : public testing::Test {
  protected:
    void SetUp() override {
        folder_ = std::filesystem::path(testing::TempDir()) / ("delivery-" + random_id());
        std::filesystem::create_directory(folder_);
        path_ = folder_ / "grant.sock";
        auto listener = listen_at(path_, 0666);
        ASSERT_TRUE(listener) << listener.error().message;
        delivery_.listener = std::move(*listener);
        auto init = pidfd_of(::getpid());
        ASSERT_TRUE(init);
        delivery_.init = std::move(*init);
        auto identity = read_identity(::getpid());
        ASSERT_TRUE(identity) << identity.error().message;
        delivery_.container = *identity;
        auto manifest = sealed_memfd("manifest", kManifest);
        ASSERT_TRUE(manifest);
        delivery_.fds.push_back({"manifest", std::move(*manifest)});
        UniqueFd ring(::memfd_create("ring", MFD_CLOEXEC));
        ASSERT_EQ(::ftruncate(ring.get(), 4096), 0);
        delivery_.fds.push_back({"dma.ring", std::move(ring)});
    }
    void TearDown() override { std::filesystem::remove_all(folder_); }

    /// Serves on a thread until it ends; what was refused is in refused_.
    void serve() {
        server_ = std::thread([this] {
            auto end =
                serve_delivery(delivery_, [this](const std::string& line) { refused_.push_back(line); });
            end_ = end ? *end : DeliveryEnd::ContainerEnded;
            served_ = static_cast<bool>(end);
            // As the process ends that does this in earnest.
            delivery_.listener.reset();
        });
    }
    void join() {
        server_.join();
        EXPECT_TRUE(served_);
    }

    /// A container's init that can be ended; 0 if there is none.
    pid_t start_init() {
        const pid_t init = ::fork();
        if (init == 0) {
            ::pause();
            ::_exit(0);
        }
        auto pidfd = pidfd_of(init);
        if (!pidfd) return 0;
        delivery_.init = std::move(*pidfd);
        return init;
    }
    void expect_end_with(pid_t init) {
        ASSERT_EQ(::kill(init, SIGKILL), 0);
        join();
        EXPECT_EQ(end_, DeliveryEnd::ContainerEnded);
        ::waitpid(init, nullptr, 0);
    }
    /// A process connects, and is gone when it is looked at.
    void ask_and_end() const {
        const pid_t child = ::fork();
        if (child == 0) {
            auto connection = connect_to(path_);
            ::_exit(connection ? 0 : 1);
        }
        int status = 0;
        ASSERT_EQ(::waitpid(child, &status, 0), child);
        ASSERT_EQ(status, 0);
    }

    postern_grant* fetch() {
        error_.fill('\0');
        return postern_open_path(path_.c_str(), error_.data(), error_.size());
    }

    std::filesystem::path folder_;
    std::string path_;
    Delivery delivery_;
    std::thread server_;
    std::vector<std::string> refused_;
    DeliveryEnd end_ = DeliveryEnd::ContainerEnded;
    bool served_ = false;
    std::array<char, 512> error_{};
};

TEST_F(Deliveries, GivesTheGrantOnce) {
    serve();
    postern_grant* grant = fetch();
    join();
    ASSERT_NE(grant, nullptr) << error_.data();
    EXPECT_EQ(end_, DeliveryEnd::Delivered);
    EXPECT_THAT(refused_, IsEmpty());
    EXPECT_STREQ(grant->id, "0123456789abcdef");
    EXPECT_EQ(grant->slice, 2);
    EXPECT_EQ(postern_get_dma(grant, "ring")->fd, postern_fd(grant, "dma.ring"));
    postern_close(grant);
    EXPECT_EQ(fetch(), nullptr);
    EXPECT_THAT(error_.data(), HasSubstr("is given once"));
}

TEST_F(Deliveries, RefusesWhoIsInAnotherCgroupAndGoesOn) {
    const std::string own = delivery_.container.cgroup;
    delivery_.container.cgroup = own + "/elsewhere";
    serve();
    EXPECT_EQ(fetch(), nullptr);
    EXPECT_THAT(error_.data(), HasSubstr("ended before a grant came"));
    delivery_.container.cgroup = own;
    postern_grant* grant = fetch();
    join();
    ASSERT_NE(grant, nullptr) << error_.data();
    postern_close(grant);
    ASSERT_EQ(refused_.size(), 1U);
    EXPECT_THAT(refused_[0], HasSubstr("not in the container's"));
}

TEST_F(Deliveries, RefusesWhoIsInAnotherPidNamespaceAndGoesOn) {
    const uint64_t own = delivery_.container.pid_namespace;
    delivery_.container.pid_namespace = own + 1;
    serve();
    EXPECT_EQ(fetch(), nullptr);
    delivery_.container.pid_namespace = own;
    postern_grant* grant = fetch();
    join();
    ASSERT_NE(grant, nullptr) << error_.data();
    postern_close(grant);
    ASSERT_EQ(refused_.size(), 1U);
    EXPECT_THAT(refused_[0], HasSubstr("not in its pid namespace"));
}

TEST_F(Deliveries, RefusesWhoHasEnded) {
    ask_and_end();
    serve();
    postern_grant* grant = fetch();
    join();
    ASSERT_NE(grant, nullptr) << error_.data();
    postern_close(grant);
    EXPECT_EQ(refused_.size(), 1U);
}

TEST_F(Deliveries, AFloodOfRefusalsIsToldInAFewLines) {
    for (int i = 0; i < 100; ++i) ask_and_end();
    serve();
    postern_grant* grant = fetch();
    join();
    ASSERT_NE(grant, nullptr) << error_.data();
    postern_close(grant);
    EXPECT_EQ(refused_.size(), 16U);
}

TEST_F(Deliveries, AFloodOfRefusalsDoesNotOutliveTheContainer) {
    const pid_t init = start_init();
    ASSERT_GT(init, 0);
    for (int i = 0; i < 400; ++i) ask_and_end();  // seconds of them
    serve();
    expect_end_with(init);
}

TEST_F(Deliveries, EndsWithTheContainer) {
    const pid_t init = start_init();
    ASSERT_GT(init, 0);
    serve();
    expect_end_with(init);
}

TEST(ClientPath, SaysWhyThereIsNoGrant) {
    std::array<char, 512> error{};
    EXPECT_EQ(postern_open_path("/no/such/socket", error.data(), error.size()), nullptr);
    EXPECT_THAT(error.data(), HasSubstr("/no/such/socket: No such file"));
    EXPECT_EQ(postern_open_path(std::string(200, 'x').c_str(), error.data(), error.size()), nullptr);
    EXPECT_THAT(error.data(), HasSubstr("too long"));
    // The empty file that a container has there while nobody gives anything.
    const std::string file = testing::TempDir() + "empty-" + random_id();
    UniqueFd made(::open(file.c_str(), O_CREAT | O_WRONLY | O_CLOEXEC, 0600));
    EXPECT_EQ(postern_open_path(file.c_str(), error.data(), error.size()), nullptr);
    EXPECT_THAT(error.data(), HasSubstr("is given once"));
    ::unlink(file.c_str());
}

}  // namespace
}  // namespace postern
