// SPDX-License-Identifier: Apache-2.0
#include "launcher/prepared_sandbox.h"

#include <fcntl.h>
#include <poll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <utility>
#include <vector>

#include "broker-core/packet.h"
#include "launcher/sandbox_launch.h"

namespace postern {
namespace {

tl::unexpected<LaunchError> refuse(const char* what) {
    const int error = errno;
    return tl::unexpected(LaunchError{fail_errno(error, "sandbox: {}", what).value(), 125});
}

}  // namespace

/// Room for a command and its environment; only what is used of it is memory.
constexpr size_t kRoom = 1 << 20;

/// Memory at the same address in this process and in the one that it makes next.
class SharedRoom {
  public:
    SharedRoom()
        : at_(::mmap(nullptr, kRoom, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1,
                     0)) {}
    SharedRoom(const SharedRoom&) = delete;
    SharedRoom& operator=(const SharedRoom&) = delete;
    ~SharedRoom() {
        if (*this) ::munmap(at_, kRoom);
    }
    explicit operator bool() const { return at_ != MAP_FAILED; }
    [[nodiscard]] void* at() const { return at_; }
    /// No further process gets it.
    void keep_from_others() const { ::madvise(at_, kRoom, MADV_DONTFORK); }

  private:
    void* at_;
};

struct PreparedSandbox::Waiting {
    explicit Waiting(SandboxSpec wanted) : spec(std::move(wanted)), launch(spec) {}
    SandboxSpec spec;
    SharedRoom room;
    UniqueFd socket;
    SandboxLaunch launch;
};

PreparedSandbox::PreparedSandbox(std::unique_ptr<Waiting> waiting) : waiting_(std::move(waiting)) {}
PreparedSandbox::PreparedSandbox(PreparedSandbox&&) noexcept = default;
PreparedSandbox::~PreparedSandbox() = default;

bool PreparedSandbox::is_possible(const SandboxSpec& spec) {
    // What the command names is opened by the launcher, which then has to be able to.
    const bool opened = !spec.namespaces.mount || may_open_for_child();
    const bool reads = std::any_of(spec.mounts.begin(), spec.mounts.end(), [](const Mount& mount) {
        return mount.type == Mount::Type::File || mount.type == Mount::Type::Data;
    });
    return opened && !reads && !spec.tell_folder && spec.block_fd < 0 && !spec.await_user_map &&
           spec.inherited_fds.empty() && spec.root.kind != Root::Kind::Bare;
}

tl::expected<PreparedSandbox, LaunchError> PreparedSandbox::make(SandboxSpec spec) {
    auto waiting = std::make_unique<Waiting>(std::move(spec));
    if (!waiting->room) return refuse("mmap");
    std::array<int, 2> ends = {-1, -1};
    if (::socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, ends.data()) != 0)
        return refuse("socketpair");
    waiting->socket.reset(ends[0]);
    const UniqueFd child_end(ends[1]);
    ChildPlan& plan = waiting->launch.plan;
    plan.command_socket = child_end.get();
    plan.late_command = static_cast<const ChildCommand*>(waiting->room.at());
    if (auto begun = begin_launch(waiting->launch); !begun) return tl::unexpected(std::move(begun.error()));
    waiting->room.keep_from_others();
    return PreparedSandbox(std::move(waiting));
}

std::optional<tl::expected<RunningClient, LaunchError>> PreparedSandbox::start(const SandboxSpec& spec) {
    SandboxLaunch& launch = waiting_->launch;
    // Ended, or failed: then its report is there.
    std::array<pollfd, 2> ended = {pollfd{launch.client.pidfd(), POLLIN, 0},
                                   pollfd{launch.fds.report_read.get(), POLLIN, 0}};
    if (!launch.prepared || ::poll(ended.data(), ended.size(), 0) != 0) return std::nullopt;
    UniqueFd target;
    auto text = find_command(spec, launch.plan, target);
    if (!text) return tl::unexpected(std::move(text.error()));
    if (text->size() > kRoom) return std::nullopt;
    std::vector<int> files = {STDOUT_FILENO, STDERR_FILENO};
    if (target) files.push_back(target.get());
    launch.plan.command = text->lay_out(waiting_->room.at());
    launch.client.time_limit_ = spec.time_limit;
    if (Status sent = send_packet(waiting_->socket.get(), "g", files); !sent) return std::nullopt;
    // What the child waits for is here; if it is gone, its end is what is to be heard.
    waiting_->socket.reset();
    return end_launch(launch, spec.argv.front());
}

}  // namespace postern
