// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <sys/types.h>

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "broker-core/result.h"
#include "launcher/sandbox_spec.h"

namespace postern {

/// One option of bubblewrap's command line, for its help and ours.
struct BwrapOption {
    std::string_view name;
    std::string_view words;  ///< "SRC DEST"
    std::string_view help;
};
[[nodiscard]] const std::vector<BwrapOption>& bwrap_options();

/// Who calls, as far as bubblewrap's defaults depend on it.
struct BwrapCaller {
    uid_t uid = 0;
    gid_t gid = 0;
    std::string folder = "/";              ///< what relative sources are relative to
    std::vector<std::string> environment;  ///< NAME=value
    std::string terminal;                  ///< of standard output; empty: it is none
    bool can_make_user_namespaces = true;  ///< what --unshare-user-try asks
    std::vector<unsigned> capabilities;    ///< effective ones; those of root are what --cap-drop begins with
};

/// A command line of bubblewrap's, decided. Numbers of fds are the caller's; nothing was read from them but
/// the arguments of --args.
struct BwrapRequest {
    enum class Kind { Run, Help, Version };
    Kind kind = Kind::Run;
    SandboxSpec spec;
    std::vector<int> filters;  ///< fds with seccomp programs
    std::vector<int> used;     ///< every fd that an option names: the client does not get it
    std::optional<int> info_fd;
    std::optional<int> status_fd;
    std::optional<int> user_fd;        ///< --userns
    std::optional<int> pid_fd;         ///< --pidns
    std::optional<int> user_block_fd;  ///< --userns-block-fd
    bool die_with_parent = false;
    bool level_prefix = false;
    std::vector<std::string> warnings;
};

/// `words` is what stands behind the program's name. Error: what bubblewrap would refuse, too.
/// `level_prefix`, if given, is set even when there is an error: how that is to be printed.
[[nodiscard]] Result<BwrapRequest> parse_bwrap(const std::vector<std::string>& words,
                                               const BwrapCaller& caller, bool* level_prefix = nullptr);

}  // namespace postern
