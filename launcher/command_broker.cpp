// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <CLI/CLI.hpp>
#include <chrono>
#include <memory>
#include <optional>
#include <string>
#include <thread>
#include <utility>

#include "broker-core/broker.h"
#include "broker-core/broker_client.h"
#include "broker-core/broker_config.h"
#include "broker-core/broker_server.h"
#include "broker-core/cgroup_file.h"
#include "broker-core/cgroup_path.h"
#include "broker-core/file.h"
#include "broker-core/keeper.h"
#include "broker-core/on_demand.h"
#include "broker-core/open_keeper.h"
#include "broker-core/packet.h"
#include "broker-core/profile_reader.h"
#include "broker-core/scope_guard.h"
#include "launcher/commands.h"

namespace postern {
namespace {

/// How long what a broker that was killed had running may take to be gone.
constexpr std::chrono::milliseconds kDying{1000};
constexpr std::chrono::milliseconds kBetweenTries{10};

struct BrokerOptions {
    std::string config = kBrokerConfig;
    std::string socket = kBrokerSocket;
    std::string keeper = "auto";
    bool check = false;
    bool on_demand = false;
};

std::string folder_of(const std::string& path) {
    const size_t slash = path.rfind('/');
    return slash == std::string::npos ? "." : path.substr(0, slash);
}

/// Everybody may enter it, and only root may write.
Status make_public_folder(const std::string& folder) {
    POSTERN_TRY(make_folder(folder, 0755));
    struct stat found {};
    if (::stat(folder.c_str(), &found) != 0) {
        const int error = errno;
        return fail_errno(error, "cannot look at {}", folder);
    }
    if (found.st_uid != ::geteuid() || (found.st_mode & 022) != 0)
        return fail("{}: others than root may write to it; remove it, or name another place with --socket",
                    folder);
    return {};
}

/// One broker a socket. The lock goes with its process, whatever way that ends.
Result<UniqueFd> lock_folder(const std::string& folder) {
    const std::string path = folder + "/lock";
    UniqueFd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    if (!file) {
        const int error = errno;
        return fail_errno(error, "cannot open {}", path);
    }
    // Its children have the lock, too, and die with it, a moment later (cgroup_child.cpp).
    int error = EWOULDBLOCK;
    for (const auto end = std::chrono::steady_clock::now() + kDying;
         error == EWOULDBLOCK && std::chrono::steady_clock::now() < end;
         std::this_thread::sleep_for(kBetweenTries)) {
        if (::flock(file.get(), LOCK_EX | LOCK_NB) == 0) return file;
        error = errno;
    }
    if (error == EWOULDBLOCK)
        return fail("{} in {}; `postern broker --stop` ends it", kBrokerRunsAlready, folder);
    return fail_errno(error, "cannot lock {}", path);
}

/// poll(2) and SCM_RIGHTS may need as many files as it is allowed to have.
void raise_file_limit() {
    rlimit limit{};
    if (::getrlimit(RLIMIT_NOFILE, &limit) != 0) return;
    limit.rlim_cur = limit.rlim_max;
    (void)::setrlimit(RLIMIT_NOFILE, &limit);
}

/// The socket of an earlier broker, if that was kept and still is what stands at the path: callers that wait
/// in its backlog are served.
UniqueFd kept_listener(std::vector<KeptEntry>& entries, const std::string& path) {
    for (KeptEntry& entry : entries) {
        if (entry.name != kListenerEntry || entry.fds.size() != 1) continue;
        const auto text = parse_json(entry.text);
        struct stat now {};
        if (text && text->is_object() && text->value("path", "") == path &&
            ::lstat(path.c_str(), &now) == 0 && text->value("inode", uint64_t{0}) == now.st_ino) {
            return std::move(entry.fds.front());
        }
    }
    return {};
}

Result<UniqueFd> listen(Keeper& keeper, const std::string& path, bool keep) {
    POSTERN_ASSIGN(std::vector<KeptEntry> entries, keeper.take_all());
    UniqueFd kept = kept_listener(entries, path);
    // Without a broker nobody should wait for one at a door that the keeper holds open.
    if (!keep) POSTERN_TRY(keeper.remove(kListenerEntry));
    if (kept) return kept;
    // Under the lock, what stands there is a dead one's, or systemd's, which starts a broker by it.
    if (connect_to(path)) return fail("{} at {}, or is about to be started there", kBrokerRunsAlready, path);
    (void)::unlink(path.c_str());
    POSTERN_ASSIGN(UniqueFd listener, listen_at(path, 0666));
    struct stat made {};
    if (keep && ::lstat(path.c_str(), &made) == 0) {
        const int fd = listener.get();
        POSTERN_TRY(
            keeper.put(kListenerEntry, Json{{"path", path}, {"inode", made.st_ino}}.dump(), {&fd, 1}));
    }
    return listener;
}

/// What is kept goes on in the program that is installed now. Only systemd can give its files back, and its
/// socket, to one that it has started itself.
int begin_anew(const BrokerOptions& options, const Keeper& keeper, bool listens_itself) {
    if (!keeper.survives_exec() || !listens_itself) return 0;
    const std::string program = program_prefix() + "/bin/postern";
    ::execl(program.c_str(), "postern", "broker", "--config", options.config.c_str(), "--socket",
            options.socket.c_str(), "--keeper", options.keeper.c_str(),
            options.on_demand ? "--on-demand" : nullptr, nullptr);
    const int error = errno;
    return report(Error{fmt::format("broker: {}: {}", program, errno_text(error)), error}, kLaunchFailed);
}

/// Whoever starts a broker on demand is in a cgroup that ends with a container, a login or a unit; the broker
/// and who keeps its files must not. At the root, where nobody else's rules hold; best effort, for it is a
/// matter of how long they live alone.
class OwnCgroup {
  public:
    /// `keeper`: the socket that one has as long as it is to stay.
    explicit OwnCgroup(std::string keeper) : keeper_(std::move(keeper)) {
        const auto top = own_cgroup(read_cgroup_file("/proc/self/mountinfo"), "0::/\n");
        if (!top) return;
        root_ = top->folder;
        folder_ = root_ + "/postern-broker";
        if (::mkdir(folder_.c_str(), 0755) == 0 || errno == EEXIST)
            (void)write_cgroup_file(folder_ + "/cgroup.procs", "0");
    }
    OwnCgroup(const OwnCgroup&) = delete;
    OwnCgroup& operator=(const OwnCgroup&) = delete;
    /// It stays if a keeper does. One that was told to quit leaves it a moment after all else.
    ~OwnCgroup() {
        if (folder_.empty()) return;
        (void)write_cgroup_file(root_ + "/cgroup.procs", "0");
        for (int attempt = 0; attempt < 100; ++attempt) {
            if (::rmdir(folder_.c_str()) == 0 || errno != EBUSY) return;
            if (::access(keeper_.c_str(), F_OK) == 0) return;
            std::this_thread::sleep_for(std::chrono::milliseconds(10));
        }
    }

  private:
    std::string keeper_;
    std::string root_;
    std::string folder_;
};

/// Bytes. Then it begins anew: nobody else looks after it, and it is in memory.
constexpr off_t kMostOfLog = 1 << 20;

/// From here on it speaks there: whoever has started it has heard enough when it serves.
Status log_to(const std::string& path) {
    const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_APPEND | O_NOFOLLOW | O_CLOEXEC, 0600));
    struct stat found {};
    if (file && ::fstat(file.get(), &found) == 0 && found.st_size > kMostOfLog)
        (void)::ftruncate(file.get(), 0);
    if (file && ::dup2(file.get(), STDERR_FILENO) >= 0) return {};
    const int error = errno;
    return fail_errno(error, "cannot write to {}", path);
}

/// Where there is one; it may be another one's by now.
uint64_t inode_of(const std::string& path) {
    struct stat found {};
    return ::lstat(path.c_str(), &found) == 0 ? found.st_ino : 0;
}

Result<BrokerServer::End> run_until_idle(BrokerServer& server, const BrokerOptions& options) {
    const uint64_t own = inode_of(options.socket);
    const std::string closed = options.socket + ".closed";
    while (true) {
        POSTERN_ASSIGN(const BrokerServer::End end, server.run());
        if (end != BrokerServer::End::Idle) return end;
        // Nobody comes any more. For who has come before the door opens again: a runtime asks by a second
        // connection. Meanwhile no other broker opens one, for this one has the folder's lock; systemd may,
        // for the next broker, and that one stays.
        if (inode_of(options.socket) == own) (void)::rename(options.socket.c_str(), closed.c_str());
        if (!server.let_in()) {
            (void)::unlink(closed.c_str());
            return end;
        }
        if (::renameat2(AT_FDCWD, closed.c_str(), AT_FDCWD, options.socket.c_str(), RENAME_NOREPLACE) != 0)
            (void)::unlink(closed.c_str());
    }
}

/// A device that its profile lets reach a window must be the broker's, too.
Status check_peers(const Profile& profile, const std::vector<BrokerDevice>& config) {
    if (!profile.device) return {};
    const std::vector<PeerMapping>& peers = profile.device->peers;
    for (size_t i = 0; i < peers.size(); ++i) {
        if (auto found = find_peer(config, peers[i].device); !found)
            return propagate(std::move(found), fmt::format("profile {}: device.peers[{}]", profile.name, i));
    }
    return {};
}

int serve(const BrokerOptions& options) {
    const auto log = [](const std::string& line) { tell("postern broker: {}\n", line); };
    if (::geteuid() != 0)
        return report(Error{"broker: owning devices and loading their guard needs root", 0}, kLaunchFailed);
    auto config = load_broker_config(options.config);
    if (!config) return report(config.error(), kLaunchFailed);
    if (options.check) {
        if (config->empty()) fmt::print("{}: no device is configured (*.json)\n", options.config);
        for (const BrokerDevice& device : *config) {
            const auto profile = load_profile(device.profile);
            if (!profile) return report(Error(profile.error()).within(device.name), kLaunchFailed);
            if (auto peers = check_peers(profile->profile, *config); !peers)
                return report(Error(peers.error()).within(device.name), kLaunchFailed);
            fmt::print("{}: {} with profile {}, {} slices\n", device.name, device.bdf, profile->profile.name,
                       profile->profile.slices);
        }
        return 0;
    }
    raise_file_limit();
    const std::string folder = folder_of(options.socket);
    if (auto made = make_public_folder(folder); !made) return report(made.error(), kLaunchFailed);
    const auto lock = lock_folder(folder);
    if (!lock) return report(lock.error(), kLaunchFailed);
    std::optional<OwnCgroup> cgroup;
    if (options.on_demand) cgroup.emplace(folder + "/holder.sock");
    auto place = open_service_place(options.keeper, folder);
    if (!place) return report(place.error(), kLaunchFailed);
    Keeper& keeper = *place->keeper;
    const bool listens_itself = !place->listener;
    // A holder would wait for the next broker, and be taken for what the last one has left.
    ScopeGuard leaves_nothing([&keeper] { (void)quit_if_empty(keeper); });
    if (listens_itself) {
        auto made = listen(keeper, options.socket, !options.on_demand);
        if (!made) return report(made.error(), kLaunchFailed);
        place->listener = std::move(*made);
    }
    auto broker = Broker::create(std::move(*config), keeper, log);
    if (!broker) return report(broker.error(), kLaunchFailed);
    leaves_nothing.dismiss();
    BrokerServer::Limits limits;
    limits.until_idle = options.on_demand;
    auto server = BrokerServer::create(*broker, std::move(place->listener), limits);
    if (!server) return report(server.error(), kLaunchFailed);
    if (options.on_demand) {
        if (auto turned = log_to(folder + "/on-demand.log"); !turned)
            return report(turned.error(), kLaunchFailed);
    }
    log(fmt::format("serves {}; what it has is kept by {}", options.socket, keeper.kind()));
    if (const auto told = place->notify("READY=1"); !told) log(told.error().message);
    const auto end = run_until_idle(*server, options);
    if (!end) return report(end.error(), kLaunchFailed);
    if (*end == BrokerServer::End::Restart) {
        broker->leave();
        return begin_anew(options, keeper, listens_itself);
    }
    if (broker->has_grants()) {
        log("ends; its grants go on, and are kept");
        broker->leave();
        return 0;
    }
    auto closed = broker->close();
    if (Status quit = keeper.quit(); !quit && closed) closed = std::move(quit);
    if (!closed) return report(closed.error(), kLaunchFailed);
    return 0;
}

int stop(const BrokerOptions& options, bool kill) {
    auto client = BrokerClient::connect(options.socket);
    if (!client) return report(std::move(client.error()).within("broker " + options.socket), kFailed);
    BrokerRequest request;
    request.op = BrokerRequest::Op::Stop;
    request.kill = kill;
    const auto answer = client->ask(request);
    if (!answer) return report(answer.error(), kFailed);
    if (answer->reply.refusal) return report(Error{"broker: " + answer->reply.message, 0}, kFailed);
    return 0;
}

}  // namespace

Command add_broker_command(CLI::App& app) {
    auto options = std::make_shared<BrokerOptions>();
    auto stops = std::make_shared<bool>(false);
    auto kill = std::make_shared<bool>(false);
    CLI::App* command = app.add_subcommand("broker",
                                           "own devices and grant slices of them to callers, most of them "
                                           "not root; may be restarted at any time");
    command->add_option("--config", options->config, "folder with a file for each device")
        ->type_name("DIR")
        ->capture_default_str();
    command->add_option("--socket", options->socket, "where callers connect, if systemd has passed no socket")
        ->type_name("PATH")
        ->capture_default_str();
    command
        ->add_option("--keeper", options->keeper,
                     "who keeps its files while it is restarted: systemd, a process (holder), or nobody "
                     "(none); auto is "
                     "systemd where that started it, else a process")
        ->type_name("WHO")
        ->check(CLI::IsMember({"auto", "systemd", "holder", "none"}))
        ->capture_default_str();
    command->add_flag("--check", options->check, "read the configuration and the profiles, and end");
    command->add_flag("--on-demand", options->on_demand,
                      "end when nobody asks and nothing is left to do; containers go on with their slices");
    command->add_flag("--stop", *stops, "end the running broker: devices are given back, nothing is kept");
    command->add_flag("--kill", *kill, "with --stop: and all of its clients")->needs("--stop");
    return [options, stops, kill](const CommandLine&) {
        return *stops ? stop(*options, *kill) : serve(*options);
    };
}

}  // namespace postern
