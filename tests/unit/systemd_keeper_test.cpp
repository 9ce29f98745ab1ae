// SPDX-License-Identifier: Apache-2.0
#include "broker-core/systemd_keeper.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <climits>
#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "broker-core/file.h"
#include "broker-core/packet.h"
#include "broker-core/service_manager.h"

namespace postern {
namespace {

/// The other end of $NOTIFY_SOCKET, which stores fds as service_add_fd_store() of systemd's
/// src/core/service.c does: an open file that is there already, or one beyond the limit, is dropped without a
/// word.
class Store {
  public:
    explicit Store(size_t limit = 1000) : limit_(limit) {
        static std::atomic<int> number = 0;
        address_ = fmt::format("@postern-store-{}-{}", ::getpid(), ++number);
        sockaddr_un name{};
        name.sun_family = AF_UNIX;
        std::memcpy(name.sun_path + 1, address_.data() + 1, address_.size() - 1);
        socket_.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
        EXPECT_EQ(::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&name),
                         static_cast<socklen_t>(offsetof(sockaddr_un, sun_path) + address_.size())),
                  0);
        thread_ = std::thread([this] { run(); });
    }
    Store(const Store&) = delete;
    Store& operator=(const Store&) = delete;
    ~Store() {
        stop_ = true;
        thread_.join();
    }

    [[nodiscard]] ServiceManager manager() const {
        auto manager = ServiceManager::at(address_);
        EXPECT_TRUE(manager) << manager.error().message;
        return std::move(*manager);
    }
    [[nodiscard]] const std::string& address() const { return address_; }

    /// From now on `count` messages are obeyed, barriers aside, and all later ones come from a dead process.
    void obey(int count) { left_ = count; }
    /// How many were obeyed since.
    [[nodiscard]] int obeyed() const { return obeyed_; }
    void forget_count() { obeyed_ = 0; }

    /// What a restarted service is passed.
    [[nodiscard]] std::vector<NamedFd> passed() {
        const std::lock_guard lock(mutex_);
        std::vector<NamedFd> copies;
        // systemd puts the newest in front.
        for (auto each = stored_.rbegin(); each != stored_.rend(); ++each)
            copies.push_back({each->name, UniqueFd(::fcntl(each->fd.get(), F_DUPFD_CLOEXEC, 3))});
        return copies;
    }
    [[nodiscard]] std::vector<std::string> names() {
        std::vector<std::string> names;
        for (const NamedFd& each : passed()) names.push_back(each.name);
        return names;
    }

  private:
    void run() {
        while (!stop_) {
            pollfd event{socket_.get(), POLLIN, 0};
            if (::poll(&event, 1, 10) <= 0) continue;
            auto message = receive_packet(socket_.get(), 4096, kMaxPacketFds);
            if (!message) {
                ADD_FAILURE() << message.error().message;
                continue;
            }
            if (message->text == "BARRIER=1") continue;
            if (left_ <= 0) continue;
            --left_;
            ++obeyed_;
            obey_message(std::move(*message));
        }
    }

    void obey_message(Packet message) {
        const std::lock_guard lock(mutex_);
        std::string name = "stored";
        bool add = false;
        bool poll = true;
        std::stringstream lines(message.text);
        for (std::string line; std::getline(lines, line);) {
            if (line == "FDSTORE=1") add = true;
            if (line == "FDPOLL=0") poll = false;
            if (line.starts_with("FDNAME=")) name = line.substr(7);
        }
        EXPECT_LE(name.size(), 255U);
        EXPECT_EQ(name.find(':'), std::string::npos);
        if (!add) {
            EXPECT_THAT(message.text, testing::HasSubstr("FDSTOREREMOVE=1"));
            std::erase_if(stored_, [&](const NamedFd& each) { return each.name == name; });
            return;
        }
        EXPECT_FALSE(poll);
        for (UniqueFd& fd : message.fds) {
            bool there = false;
            for (const NamedFd& each : stored_) {
                there = there ||
                        ::syscall(SYS_kcmp, ::getpid(), ::getpid(), KCMP_FILE, fd.get(), each.fd.get()) == 0;
            }
            if (!there && stored_.size() < limit_) stored_.push_back({name, std::move(fd)});
        }
    }

    size_t limit_;
    std::string address_;
    UniqueFd socket_;
    std::atomic<bool> stop_ = false;
    std::atomic<int> left_ = INT_MAX;
    std::atomic<int> obeyed_ = 0;
    std::mutex mutex_;
    std::vector<NamedFd> stored_;
    std::thread thread_;
};

std::unique_ptr<SystemdKeeper> successor(Store& store, size_t limit = 1000) {
    auto passed = store.passed();
    auto keeper = SystemdKeeper::from(store.manager(), passed, limit);
    EXPECT_TRUE(keeper) << keeper.error().message;
    return keeper ? std::move(*keeper) : nullptr;
}

UniqueFd file_saying(const std::string& text) {
    auto file = sealed_memfd("kept", text);
    EXPECT_TRUE(file);
    return std::move(*file);
}

std::string said_by(const UniqueFd& file) {
    std::array<char, 200> text{};
    const ssize_t got = ::pread(file.get(), text.data(), text.size(), 0);
    return {text.data(), got > 0 ? static_cast<size_t>(got) : 0};
}

/// Entries as "name=text[file,file]".
std::vector<std::string> shown(Keeper& keeper) {
    auto entries = keeper.take_all();
    EXPECT_TRUE(entries) << entries.error().message;
    std::vector<std::string> all;
    for (const KeptEntry& entry : *entries) {
        std::vector<std::string> files;
        for (const UniqueFd& fd : entry.fds) files.push_back(said_by(fd));
        all.push_back(fmt::format("{}={}[{}]", entry.name, entry.text, fmt::join(files, ",")));
    }
    return all;
}

using Shown = std::vector<std::string>;

TEST(SystemdKeeper, EntriesOutliveTheirBroker) {
    Store store;
    const UniqueFd device = file_saying("device");
    const UniqueFd irq = file_saying("irq");
    const std::string longest(kMaxKeptName, 'n');
    {
        const auto keeper = successor(store);
        const std::array<int, 1> one{device.get()};
        const std::array<int, 3> three{irq.get(), device.get(), irq.get()};
        ASSERT_TRUE(keeper->put("device/0000:00:02.0", "a\nb", one));
        ASSERT_TRUE(keeper->put("slice/0000:00:02.0/3", "", three));
        ASSERT_TRUE(keeper->put(longest, std::string(kMaxKeptText, 't'), {}));
        EXPECT_FALSE(keeper->put("a+b", "", {}));
    }
    // Two files, three entries.
    EXPECT_EQ(store.names().size(), 5U);
    for (int round = 0; round < 2; ++round) {
        const auto keeper = successor(store);
        EXPECT_EQ(shown(*keeper), (Shown{"device/0000:00:02.0=a\nb[device]",
                                         longest + "=" + std::string(kMaxKeptText, 't') + "[]",
                                         "slice/0000:00:02.0/3=[irq,device,irq]"}));
    }
    const auto keeper = successor(store);
    ASSERT_TRUE(keeper->remove("device/0000:00:02.0"));
    ASSERT_TRUE(keeper->remove("device/0000:00:02.0"));
    EXPECT_EQ(store.names().size(), 4U);  // the other entry has its file still
    ASSERT_TRUE(keeper->remove("slice/0000:00:02.0/3"));
    ASSERT_TRUE(keeper->remove(longest));
    EXPECT_TRUE(shown(*keeper).empty());
    ASSERT_TRUE(keeper->manager().barrier());
    EXPECT_TRUE(store.names().empty());
}

TEST(SystemdKeeper, AFileIsStoredOnceAndAReplacedEntryKeepsIt) {
    Store store;
    const UniqueFd file = file_saying("same");
    const auto keeper = successor(store);
    for (int i = 0; i < 100; ++i) {
        const UniqueFd copy(::fcntl(file.get(), F_DUPFD_CLOEXEC, 3));
        const int fd = copy.get();
        ASSERT_TRUE(keeper->put("entry", std::to_string(i), {&fd, 1}));
    }
    ASSERT_TRUE(keeper->manager().barrier());
    EXPECT_EQ(store.names().size(), 2U);
    EXPECT_EQ(shown(*successor(store)), (Shown{"entry=99[same]"}));
}

/// Runs `change` on a broker whose messages are obeyed up to the k-th only, for every k; what its successor
/// finds must be `before` or `after`, first the one and then the other.
void check_every_kill(const std::function<void(Keeper&)>& prepare,
                      const std::function<void(Keeper&)>& change) {
    bool was_after = false;
    int messages = INT_MAX;
    for (int k = 0; k <= messages; ++k) {
        Store store;
        prepare(*successor(store));
        const Shown before = shown(*successor(store));
        {
            const auto broker = successor(store);
            ASSERT_TRUE(broker->manager().barrier());
            store.forget_count();
            store.obey(k);
            change(*broker);
            ASSERT_TRUE(broker->manager().barrier());
        }
        if (store.obeyed() < k) {
            messages = store.obeyed();  // it has sent all that it sends
        }
        store.obey(INT_MAX);
        Store whole;
        prepare(*successor(whole));
        change(*successor(whole));
        const Shown after = shown(*successor(whole));
        ASSERT_NE(before, after);

        const auto next = successor(store);
        const Shown found = shown(*next);
        EXPECT_TRUE(found == before || found == after)
            << "k " << k << ": " << fmt::format("{}", fmt::join(found, " "));
        EXPECT_FALSE(was_after && found == before) << "k " << k;
        was_after = found == after;
        EXPECT_TRUE(k > 0 || found == before);
        // Nothing is left of the half-sent: as many fds as a broker that was never killed has.
        ASSERT_TRUE(next->manager().barrier());
        ASSERT_TRUE(next->manager().barrier());
        Store clean;
        prepare(*successor(clean));
        if (was_after) change(*successor(clean));
        const auto last = successor(clean);
        ASSERT_EQ(shown(*last), found);
        ASSERT_TRUE(last->manager().barrier());
        EXPECT_EQ(store.names().size(), clean.names().size()) << "k " << k;
        // And it goes on.
        change(*next);
        ASSERT_TRUE(next->manager().barrier());
        EXPECT_EQ(shown(*successor(store)), after) << "k " << k;
        if (testing::Test::HasFailure()) return;
    }
    EXPECT_TRUE(was_after);
    EXPECT_GT(messages, 0);
}

/// Files that are the same open files in all runs.
struct Files {
    UniqueFd a = file_saying("a");
    UniqueFd b = file_saying("b");
    UniqueFd c = file_saying("c");
    UniqueFd d = file_saying("d");
};

void put(Keeper& keeper, const std::string& name, const std::string& text, const std::vector<int>& fds) {
    const Status done = keeper.put(name, text, fds);
    EXPECT_TRUE(done) << done.error().message;
}

TEST(SystemdKeeper, AKillWhileAnEntryIsNewLeavesNoneOrAll) {
    const Files files;
    check_every_kill(
        [&](Keeper& keeper) { put(keeper, "other", "1", {files.a.get()}); },
        [&](Keeper& keeper) {
            put(keeper, "new", "2", {files.a.get(), files.b.get(), files.c.get(), files.d.get()});
        });
}

TEST(SystemdKeeper, AKillWhileAnEntryIsReplacedLeavesTheOldOrTheNew) {
    const Files files;
    check_every_kill(
        [&](Keeper& keeper) {
            put(keeper, "entry", "old", {files.a.get(), files.b.get()});
            put(keeper, "other", "1", {files.a.get()});
        },
        [&](Keeper& keeper) {
            put(keeper, "entry", "new", {files.c.get(), files.b.get(), files.d.get()});
        });
}

TEST(SystemdKeeper, AKillWhileAnEntryIsRemovedLeavesAllOrNone) {
    const Files files;
    check_every_kill(
        [&](Keeper& keeper) {
            put(keeper, "entry", "old", {files.a.get(), files.b.get(), files.c.get()});
            put(keeper, "other", "1", {files.a.get()});
        },
        [&](Keeper& keeper) { EXPECT_TRUE(keeper.remove("entry")); });
}

TEST(SystemdKeeper, AKillWhileItCleansUpLeavesTheSame) {
    const Files files;
    for (int k = 0; k < 8; ++k) {
        Store store;
        put(*successor(store), "entry", "old", {files.a.get(), files.b.get()});
        {
            // Killed behind the new entry, before the old one is removed: both are there.
            const auto broker = successor(store);
            store.obey(3);
            put(*broker, "entry", "new", {files.c.get(), files.d.get()});
            ASSERT_TRUE(broker->manager().barrier());
        }
        const std::vector<std::string> both = store.names();
        EXPECT_EQ(both.size(), 6U);
        store.obey(k);
        EXPECT_EQ(shown(*successor(store)), (Shown{"entry=new[c,d]"}));
        ASSERT_TRUE(store.manager().barrier());
        store.obey(INT_MAX);
        EXPECT_EQ(shown(*successor(store)), (Shown{"entry=new[c,d]"})) << "k " << k;
        ASSERT_TRUE(store.manager().barrier());
        EXPECT_EQ(store.names().size(), 3U) << "k " << k;
    }
}

TEST(SystemdKeeper, ANewerEntryThatLacksAFileDoesNotCount) {
    const Files files;
    Store store;
    put(*successor(store), "entry", "old", {files.a.get()});
    {
        // Killed behind the new entry, before the old one is removed.
        const auto broker = successor(store);
        store.obey(3);
        put(*broker, "entry", "new", {files.b.get(), files.c.get()});
        ASSERT_TRUE(broker->manager().barrier());
        store.obey(INT_MAX);
    }
    for (const std::string lacks : {"b", "c", "none"}) {
        auto passed = store.passed();
        EXPECT_EQ(std::erase_if(passed, [&](const NamedFd& each) { return said_by(each.fd) == lacks; }),
                  lacks == "none" ? 0U : 1U);
        Store other;  // where the cleaning up goes
        auto keeper = SystemdKeeper::from(other.manager(), passed, 1000);
        ASSERT_TRUE(keeper);
        EXPECT_EQ(shown(**keeper), lacks == "none" ? Shown{"entry=new[b,c]"} : Shown{"entry=old[a]"});
    }
}

TEST(SystemdKeeper, MoreThanTheStoreTakesIsRefused) {
    const Files files;
    Store store(4);
    const auto keeper = successor(store, 4);
    put(*keeper, "entry", "old", {files.a.get()});
    const std::vector<int> fds{files.b.get(), files.c.get()};
    const Status refused = keeper->put("entry", "new", fds);
    ASSERT_FALSE(refused);
    EXPECT_EQ(refused.error().errnum, ENOSPC);
    EXPECT_THAT(refused.error().message, testing::HasSubstr("FileDescriptorStoreMax= is 4"));
    EXPECT_EQ(shown(*keeper), (Shown{"entry=old[a]"}));
    put(*keeper, "entry", "new", {files.b.get()});
    EXPECT_EQ(shown(*successor(store)), (Shown{"entry=new[b]"}));
}

/// Runs `body` in a child.
int status_of(const std::function<int()>& body) {
    const pid_t pid = ::fork();
    if (pid == 0) ::_exit(body());
    int status = 0;
    EXPECT_EQ(::waitpid(pid, &status, 0), pid);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

/// Makes `fds` 3, 4, … of this process, with the variables of sd_listen_fds(3).
void be_passed(const std::vector<NamedFd>& fds, pid_t pid) {
    std::string names;
    std::vector<int> high;
    for (const NamedFd& each : fds) {
        names += (names.empty() ? "" : ":") + each.name;
        high.push_back(::fcntl(each.fd.get(), F_DUPFD_CLOEXEC, 200));
    }
    for (size_t i = 0; i < high.size(); ++i) ::dup2(high[i], 3 + static_cast<int>(i));
    ::setenv("LISTEN_FDS", std::to_string(fds.size()).c_str(), 1);
    ::setenv("LISTEN_PID", std::to_string(pid).c_str(), 1);
    ::setenv("LISTEN_FDNAMES", names.c_str(), 1);
}

TEST(SystemdKeeper, StartsFromTheEnvironmentAndLeavesOtherFdsAlone) {
    Store store;
    const UniqueFd file = file_saying("file");
    put(*successor(store), "device/0000:00:02.0", "text", {file.get()});
    std::vector<NamedFd> fds = store.passed();
    fds.insert(fds.begin() + 1, NamedFd{"postern-broker.socket", file_saying("socket")});
    EXPECT_EQ(status_of([&] {
                  be_passed(fds, ::getpid());
                  ::setenv("NOTIFY_SOCKET", store.address().c_str(), 1);
                  auto manager = ServiceManager::from_environment();
                  auto passed = take_passed_fds();
                  if (!manager || !*manager || !passed || passed->size() != 3) return 1;
                  if (std::getenv("NOTIFY_SOCKET") != nullptr || std::getenv("LISTEN_FDS") != nullptr ||
                      std::getenv("LISTEN_PID") != nullptr || std::getenv("LISTEN_FDNAMES") != nullptr)
                      return 2;
                  if (::fcntl(5, F_GETFD) != FD_CLOEXEC) return 3;
                  ::unsetenv("FDSTORE");
                  if (SystemdKeeper::from_environment(std::move(**manager), *passed)) return 4;
                  ::setenv("FDSTORE", "100", 1);
                  auto again = ServiceManager::at(store.address());
                  auto keeper = SystemdKeeper::from_environment(std::move(*again), *passed);
                  if (!keeper || shown(**keeper) != Shown{"device/0000:00:02.0=text[file]"}) return 5;
                  if (passed->size() != 1 || passed->at(0).name != "postern-broker.socket") return 6;
                  return said_by(passed->at(0).fd) == "socket" ? 0 : 7;
              }),
              0);
    EXPECT_EQ(status_of([&] {
                  be_passed(fds, ::getppid());
                  const auto passed = take_passed_fds();
                  return passed && passed->empty() && std::getenv("LISTEN_FDS") == nullptr ? 0 : 1;
              }),
              0);
}

TEST(ServiceManager, SpeaksToPathsAndAbstractNames) {
    std::string folder = "/tmp/postern-notify-XXXXXX";
    ASSERT_NE(::mkdtemp(folder.data()), nullptr);
    const std::string path = folder + "/socket";
    sockaddr_un name{};
    name.sun_family = AF_UNIX;
    std::memcpy(name.sun_path, path.data(), path.size());
    const UniqueFd socket(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0));
    ASSERT_EQ(::bind(socket.get(), reinterpret_cast<const sockaddr*>(&name), sizeof name), 0);
    const auto manager = ServiceManager::at(path);
    ASSERT_TRUE(manager) << manager.error().message;
    ASSERT_TRUE(manager->notify("READY=1"));
    EXPECT_EQ(receive_packet(socket.get(), 100, 0).value().text, "READY=1");
    // A barrier is one fd in a message of its own, and over when that is closed.
    std::atomic<bool> over = false;
    std::thread waits([&] {
        EXPECT_TRUE(manager->barrier());
        over = true;
    });
    auto barrier = receive_packet(socket.get(), 100, 1);
    ASSERT_TRUE(barrier);
    EXPECT_EQ(barrier->text, "BARRIER=1");
    EXPECT_EQ(barrier->fds.size(), 1U);
    std::this_thread::sleep_for(std::chrono::milliseconds(50));
    EXPECT_FALSE(over);
    barrier->fds.clear();
    waits.join();
    EXPECT_TRUE(over);
    for (const std::string& bad : {std::string("vsock:2:1"), std::string("@"), "/" + std::string(200, 'x')})
        EXPECT_FALSE(ServiceManager::at(bad)) << bad;
    ::unlink(path.c_str());
    ::rmdir(folder.c_str());
}

}  // namespace
}  // namespace postern
