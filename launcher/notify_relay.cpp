// SPDX-License-Identifier: Apache-2.0
#include "launcher/notify_relay.h"

#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/timerfd.h>
#include <sys/types.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>

#include "broker-core/file.h"
#include "broker-core/packet.h"
#include "broker-core/result.h"
#include "broker-core/runtime_dir.h"
#include "broker-core/service_manager.h"
#include "launcher/notify_message.h"
#include "launcher/report.h"
#include "launcher/sandbox.h"
#include "launcher/sandbox_spec.h"
#include "launcher/supervisor.h"

namespace postern {
namespace {

/// A second's worth; a client needs a few. More wait in the socket, and then the client does.
constexpr unsigned kMessagesPerSecond = 64;
/// A barrier has one.
constexpr std::size_t kMaxFds = 4;
/// Deeper than any real tree of processes: the walk up ends.
constexpr unsigned kMaxAncestors = 256;
constexpr std::size_t kMaxStat = 4096;

constexpr const char* kSocketName = "/notify";
constexpr const char* kPlace = "/run/postern/notify";
/// With a folder as root, nothing but its /tmp is sure to be the sandbox's own.
constexpr const char* kPlaceInFolder = "/tmp/.postern-notify";

std::optional<std::string> take_variable(const char* name) {
    const char* text = std::getenv(name);
    std::optional<std::string> value;
    if (text != nullptr) value = text;
    ::unsetenv(name);
    return value;
}

/// "4711 (any name) S 4710 …"; 0: it is gone.
pid_t parent_of(pid_t pid) {
    const auto text = read_file(fmt::format("/proc/{}/stat", pid), kMaxStat);
    if (!text) return 0;
    // The name may hold anything, parentheses too.
    const std::size_t end = text->rfind(") ");
    if (end == std::string::npos || text->size() < end + 5) return 0;
    return static_cast<pid_t>(std::strtol(text->c_str() + end + 4, nullptr, 10));
}

Status add_event(int epoll, int operation, int fd) {
    epoll_event event = {};
    event.events = EPOLLIN;
    event.data.fd = fd;
    if (::epoll_ctl(epoll, operation, fd, &event) == 0) return {};
    const int errnum = errno;
    return fail_errno(errnum, "epoll_ctl");
}

/// Where a folder for the socket is made.
Result<std::string> base_folder() {
    if (::geteuid() == 0) {
        POSTERN_TRY(make_runtime_dir());
        return std::string(kRuntimeDir);
    }
    const char* own = std::getenv("XDG_RUNTIME_DIR");
    return std::string(own != nullptr && *own == '/' ? own : "/tmp");
}

}  // namespace

NotifyRelay::NotifyRelay(ServiceManager manager)
    : manager_(std::make_unique<ServiceManager>(std::move(manager))) {}

Result<std::unique_ptr<NotifyRelay>> NotifyRelay::open() {
    auto manager = ServiceManager::from_environment();
    if (!manager) return propagate(std::move(manager), "--notify");
    if (!*manager) {
        return fail(
            "--notify: NOTIFY_SOCKET is not set, so nobody waits for the client to be ready; start postern "
            "by `postern systemd-run --notify` or in a unit with Type=notify, or leave --notify out");
    }
    std::unique_ptr<NotifyRelay> relay(new NotifyRelay(std::move(**manager)));
    const auto period = take_variable("WATCHDOG_USEC");
    const auto whose = take_variable("WATCHDOG_PID");
    // sd_watchdog_enabled(3): without a pid it is whoever reads it.
    if (!whose || *whose == std::to_string(::getpid())) relay->watchdog_ = period;
    if (auto made = relay->make_socket(); !made) return propagate(std::move(made), "--notify");
    return relay;
}

Status NotifyRelay::make_socket() {
    POSTERN_ASSIGN(const std::string base, base_folder());
    std::string folder = base + "/notify-XXXXXX";
    if (::mkdtemp(folder.data()) == nullptr) {
        const int errnum = errno;
        return fail_errno(errnum, "cannot make a folder in {}", base);
    }
    folder_ = folder;
    sockaddr_un address = {};
    address.sun_family = AF_UNIX;
    const std::string path = folder_ + kSocketName;
    if (path.size() >= sizeof address.sun_path)
        return fail("socket {}: is longer than {} bytes (unix(7))", path, sizeof address.sun_path - 1);
    std::memcpy(address.sun_path, path.data(), path.size());
    constexpr int kOn = 1;
    socket_.reset(::socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
    if (!socket_ || ::setsockopt(socket_.get(), SOL_SOCKET, SO_PASSCRED, &kOn, sizeof kOn) != 0 ||
        ::bind(socket_.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) != 0 ||
        // The client may have another uid. Nobody else gets through the folder.
        ::chmod(path.c_str(), 0666) != 0) {
        const int errnum = errno;
        return fail_errno(errnum, "socket {}", path);
    }
    timer_.reset(::timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK));
    ready_.reset(::epoll_create1(EPOLL_CLOEXEC));
    if (!timer_ || !ready_) {
        const int errnum = errno;
        return fail_errno(errnum, "timerfd_create, epoll_create1");
    }
    POSTERN_TRY(add_event(ready_.get(), EPOLL_CTL_ADD, timer_.get()));
    return add_event(ready_.get(), EPOLL_CTL_ADD, socket_.get());
}

NotifyRelay::~NotifyRelay() {
    if (supervisor_ != nullptr) supervisor_->unwatch(ready_.get());
    remove_files();
}

void NotifyRelay::remove_files() {
    if (folder_.empty()) return;
    ::unlink((folder_ + kSocketName).c_str());
    ::rmdir(folder_.c_str());
    folder_.clear();
}

Status NotifyRelay::add_to(SandboxSpec& spec) const {
    if (!spec.namespaces.mount) {
        return fail(
            "--notify: the client's socket is mounted in its sandbox, which has no mount namespace; add "
            "\"mount\" to the profile's namespaces");
    }
    const std::string place = spec.root.kind == Root::Kind::Path ? kPlaceInFolder : kPlace;
    spec.mounts.push_back({Mount::Type::Bind, folder_ + kSocketName, place, {"rw"}, -1});
    std::erase_if(spec.env, [](const std::string& entry) {
        return entry.starts_with("NOTIFY_SOCKET=") || entry.starts_with("WATCHDOG_USEC=") ||
               entry.starts_with("WATCHDOG_PID=");
    });
    spec.env.push_back("NOTIFY_SOCKET=" + place);
    if (watchdog_) {
        spec.env.push_back("WATCHDOG_USEC=" + *watchdog_);
        spec.pid_variables.emplace_back("WATCHDOG_PID");
    }
    return {};
}

void NotifyRelay::begin(Supervisor& supervisor, const RunningClient& client) {
    // What is mounted stays reachable; what a killed launcher would leave is gone.
    remove_files();
    init_ = client.init_pid();
    client_ = client.identity().pid;
    supervisor_ = &supervisor;
    supervisor.watch(ready_.get(), [this] { read(); });
}

void NotifyRelay::read() {
    std::uint64_t expired = 0;
    if (::read(timer_.get(), &expired, sizeof expired) == static_cast<ssize_t>(sizeof expired)) {
        taken_ = 0;
        (void)add_event(ready_.get(), EPOLL_CTL_MOD, socket_.get());
    }
    while (taken_ < kMessagesPerSecond) {
        // Its fds are closed here, whatever it says: that is the whole answer to a barrier, for which all
        // that came before it was passed on.
        const auto packet = receive_packet(socket_.get(), kMaxNotifyMessage, kMaxFds);
        if (!packet && packet.error().errnum == EAGAIN) return;
        if (taken_++ == 0) {
            itimerspec second = {};
            second.it_value.tv_sec = 1;
            ::timerfd_settime(timer_.get(), 0, &second, nullptr);
        }
        if (!packet || packet->end || !packet->sender || !is_clients(packet->sender->pid)) continue;
        pass_on(packet->text);
    }
    pause();
}

void NotifyRelay::pause() {
    epoll_event event = {};
    event.data.fd = socket_.get();
    ::epoll_ctl(ready_.get(), EPOLL_CTL_MOD, socket_.get(), &event);
}

bool NotifyRelay::is_clients(pid_t sender) const {
    if (sender <= 0) return false;
    // It may be gone already, and nobody else can have its number in here before it is.
    if (sender == client_) return true;
    for (unsigned i = 0; i < kMaxAncestors && sender > 1; ++i) {
        if (sender == init_) return true;
        sender = parent_of(sender);
    }
    return false;
}

void NotifyRelay::pass_on(std::string_view message) {
    const std::string passed = filter_notify_message(message);
    if (passed.empty()) return;
    const auto sent = manager_->notify(passed);
    if (sent || std::exchange(told_loss_, true)) return;
    tell("postern: --notify: {}; the client runs on\n", sent.error().message);
}

}  // namespace postern
