// SPDX-License-Identifier: Apache-2.0
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <csignal>
#include <utility>

#include "broker-core/broker_client.h"
#include "broker-core/cgroup_file.h"
#include "broker-core/cgroup_path.h"
#include "broker-core/file.h"
#include "broker-core/on_demand.h"
#include "broker-core/peer.h"
#include "broker-core/scope_guard.h"
#include "broker-core/user_namespace.h"
#include "oci-hook/configured_slices.h"
#include "oci-hook/container_folder.h"
#include "oci-hook/container_mounts.h"
#include "oci-hook/container_state.h"
#include "oci-hook/delivery.h"
#include "oci-hook/hook_commands.h"
#include "oci-hook/hook_report.h"
#include "oci-hook/taken_slice.h"

namespace postern {
namespace {

/// The value of a Result, or the hook's failure of that kind.
#define HOOK_ASSIGN_(temporary, status, declaration, ...)                                  \
    auto temporary = (__VA_ARGS__);                                                        \
    if (!temporary) return hook_failure(HookStatus::status, std::move(temporary.error())); \
    declaration = std::move(*temporary)
#define HOOK_ASSIGN(status, declaration, ...) \
    HOOK_ASSIGN_(POSTERN_CONCAT(hook_result_, __LINE__), status, declaration, __VA_ARGS__)
#define HOOK_TRY(status, ...)                                                  \
    do {                                                                       \
        if (auto tried = (__VA_ARGS__); !tried)                                \
            return hook_failure(HookStatus::status, std::move(tried.error())); \
    } while (false)

Result<std::string> own_cgroup_folder() {
    POSTERN_ASSIGN(const CgroupPath own, own_cgroup(read_cgroup_file("/proc/self/mountinfo"),
                                                    read_cgroup_file("/proc/self/cgroup")));
    return own.folder;
}

/// Has nothing but what the delivery needs, and nothing of the runtime's: that may wait for the end of a
/// pipe, and unmounts and moves what somebody still has open.
void leave_runtime(const Delivery& delivery, const std::string& cgroup) {
    (void)::setsid();
    // Runtimes block all signals for their hooks; the end of a session or a unit is to end this, too.
    sigset_t none;
    ::sigemptyset(&none);
    (void)::sigprocmask(SIG_SETMASK, &none, nullptr);
    (void)!::chdir("/");
    (void)write_cgroup_file(cgroup + "/cgroup.procs", "0");
    const UniqueFd null(::open("/dev/null", O_RDWR | O_CLOEXEC));
    for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO}) (void)::dup2(null.get(), fd);
    std::vector<int> kept{delivery.listener.get(), delivery.init.get()};
    for (const NamedFd& each : delivery.fds) kept.push_back(each.fd.get());
    std::sort(kept.begin(), kept.end());
    unsigned next = STDERR_FILENO + 1;
    for (const int fd : kept) {
        const auto number = static_cast<unsigned>(fd);
        if (number > next) (void)::close_range(next, number - 1, 0);
        next = number + 1;
    }
    (void)::close_range(next, ~0U, 0);
}

[[noreturn]] void deliver(const Delivery& delivery, const ContainerFolder& folder,
                          const std::string& cgroup) {
    leave_runtime(delivery, cgroup);
    const auto end = serve_delivery(delivery, [](const std::string& line) { log_hook(line); });
    if (!end) log_hook(end.error().message);
    folder.remove();
    ::_exit(0);
}

/// Nobody waits for the deliverer: its parent ends at once.
Status start_deliverer(const Delivery& delivery, const ContainerFolder& folder, const std::string& cgroup) {
    const pid_t between = ::fork();
    if (between == 0) {
        const pid_t deliverer = ::fork();
        if (deliverer == 0) deliver(delivery, folder, cgroup);
        ::_exit(deliverer > 0 ? 0 : 1);
    }
    int status = 0;
    if (between > 0 && ::waitpid(between, &status, 0) == between && status == 0) return {};
    const int error = errno;
    return fail_errno(error, "cannot start the process that gives the grant to the container");
}

HookResult create(const HookOptions& options) {
    HOOK_ASSIGN(BadState, const std::string text, read_to_end(STDIN_FILENO, kMaxContainerJson));
    HOOK_TRY(Denied, refuse_root_of_a_namespace());
    HOOK_ASSIGN(BadState, const ContainerState state, read_container_state(text));
    HOOK_ASSIGN(BadState, const std::string config,
                read_file(state.bundle + "/config.json", kMaxContainerJson));
    HOOK_ASSIGN(BadState, const std::string root, container_root(config, state.bundle));
    HOOK_ASSIGN(NoSuchSlice, const std::vector<NamedSlice> slices, configured_slices(options.config));
    HOOK_ASSIGN(NoSuchSlice, const NamedSlice slice, find_slice(slices, options.slice));

    Delivery delivery;
    HOOK_ASSIGN(BadState, delivery.init, pidfd_of(state.pid));
    // All that can be refused is, before the broker has done anything.
    HOOK_ASSIGN(NotMounted, ContainerMounts mounts, ContainerMounts::open(state.pid, root));
    HOOK_TRY(NotMounted, mounts.find_placeholder());
    HOOK_ASSIGN(NotServed, const std::string cgroup, own_cgroup_folder());

    HOOK_ASSIGN(NoGrant, const UniqueFd broker, need_broker(options.broker, options.config));
    auto grant = take_slice(options.broker, slice);
    if (!grant) return hook_failure(status_of(grant.error().refusal), std::move(grant.error().error));
    delivery.fds = std::move(grant->fds);
    HOOK_TRY(NotEntered, enter_container(options.broker, grant->id, state.pid));
    HOOK_ASSIGN(NotEntered, delivery.container, read_identity(state.pid));

    ContainerFolder folder(state);
    HOOK_ASSIGN(NotServed, delivery.listener, folder.listen());
    ScopeGuard removes([&folder] { folder.remove(); });
    HOOK_TRY(NotMounted, mounts.bind_socket(folder.socket_path()));
    HOOK_TRY(NotServed, start_deliverer(delivery, folder, cgroup));
    removes.dismiss();
    return {};
}

}  // namespace

int run_create_runtime(const std::vector<std::string>& words) {
    auto options = read_hook_options(words);
    if (!options) return report_hook_error({HookStatus::Usage, std::move(options.error())});
    auto created = create(*options);
    if (created) return 0;
    HookError error = std::move(created.error());
    return report_hook_error({error.status, std::move(error.error).within("slice " + options->slice)});
}

}  // namespace postern
