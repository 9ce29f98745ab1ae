// SPDX-License-Identifier: Apache-2.0
#include <unistd.h>

#include "broker-core/file.h"
#include "broker-core/on_demand.h"
#include "oci-hook/container_folder.h"
#include "oci-hook/container_state.h"
#include "oci-hook/hook_commands.h"
#include "oci-hook/hook_report.h"

namespace postern {

int run_poststop(const std::vector<std::string>& words) {
    auto options = read_hook_options(words);
    if (!options) return report_hook_error({HookStatus::Usage, std::move(options.error())});
    const auto text = read_to_end(STDIN_FILENO, kMaxContainerJson);
    auto state = text ? read_container_state(*text) : Result<ContainerState>(Failure(text.error()));
    if (!state) return report_hook_error({HookStatus::BadState, std::move(state.error())});
    ContainerFolder::remove(*state);
    // The broker sees by itself that the grant's process has ended. If there is none just now, this one makes
    // it look.
    const auto broker = need_broker(options->broker, options->config);
    if (!broker) return report_hook_error({HookStatus::NoGrant, broker.error()});
    return 0;
}

}  // namespace postern
