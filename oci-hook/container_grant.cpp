// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <string_view>
#include <thread>

#include "broker-core/broker_client.h"
#include "broker-core/file.h"
#include "broker-core/on_demand.h"
#include "oci-hook/container_state.h"
#include "oci-hook/hook_commands.h"
#include "oci-hook/hook_report.h"

// The hooks of a container that postern-crun makes: it has its fds from the runtime, and the broker is told
// whose they are.

namespace postern {
namespace {

using Clock = std::chrono::steady_clock;

/// So that whoever starts the container anew at once has its slice.
constexpr std::chrono::seconds kPatience{10};
/// At first and at most: an end takes a millisecond or two, and the runtime waits for it.
constexpr std::chrono::milliseconds kFirstLook{1};
constexpr std::chrono::milliseconds kBetweenLooks{20};

Result<ContainerState> state_on_stdin() {
    POSTERN_ASSIGN(const std::string text, read_to_end(STDIN_FILENO, kMaxContainerJson));
    return read_container_state(text);
}

/// `crun run` in the foreground has the container's fds itself, and waits for this hook.
bool runtime_has_files() {
    const std::string folder = fmt::format("/proc/{}/fd", ::getppid());
    for (const std::string& name : names_in(folder)) {
        std::array<char, 64> target{};
        const ssize_t length =
            ::readlink(fmt::format("{}/{}", folder, name).c_str(), target.data(), target.size());
        if (length > 0 &&
            std::string_view(target.data(), static_cast<size_t>(length)).find("memfd:postern-manifest") !=
                std::string_view::npos)
            return true;
    }
    return false;
}

Result<bool> is_there(const HookOptions& options) {
    BrokerRequest request;
    request.op = BrokerRequest::Op::Grants;
    POSTERN_ASSIGN(const BrokerClient::Answer answer, ask_broker(options.broker, request, true));
    if (answer.reply.refusal) return fail("{}", answer.reply.message);
    for (const Json& each : answer.reply.answer.value("grants", Json::array())) {
        if (each.is_object() && each.value("grant", "") == options.grant) return true;
    }
    return false;
}

}  // namespace

int run_enter(const std::vector<std::string>& words) {
    const auto options = read_hook_options(words, HookSubject::Grant);
    if (!options) return report_hook_error({HookStatus::Usage, options.error()});
    const auto state = state_on_stdin();
    if (!state) return report_hook_error({HookStatus::BadState, state.error()});
    const auto broker = need_broker(options->broker, options->config);
    if (!broker) return report_hook_error({HookStatus::NoGrant, broker.error()});
    const auto entered = enter_container(options->broker, options->grant, state->pid);
    if (!entered) return report_hook_error({HookStatus::NotEntered, entered.error()});
    return 0;
}

int run_leave(const std::vector<std::string>& words) {
    const auto options = read_hook_options(words, HookSubject::Grant);
    if (!options) return report_hook_error({HookStatus::Usage, options.error()});
    // Whoever writes it must not be left with a broken pipe.
    if (const auto state = state_on_stdin(); !state)
        return report_hook_error({HookStatus::BadState, state.error()});
    // A broker that is there now sees by itself that the grant's process has ended.
    const auto broker = need_broker(options->broker, options->config);
    if (!broker) return report_hook_error({HookStatus::NoGrant, broker.error()});
    if (runtime_has_files()) return 0;
    const auto deadline = Clock::now() + kPatience;
    for (auto pause = kFirstLook; Clock::now() < deadline; pause = std::min(2 * pause, kBetweenLooks)) {
        const auto there = is_there(*options);
        if (!there) return report_hook_error({HookStatus::NoGrant, there.error()});
        if (!*there) return 0;
        std::this_thread::sleep_for(pause);
    }
    return 0;
}

}  // namespace postern
