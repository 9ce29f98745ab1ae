// SPDX-License-Identifier: Apache-2.0
#pragma once

#include "launcher/child.h"

namespace postern {

/// Where a step stopped; errno holds why. `call` is a literal.
struct StepFailure {
    const char* call = nullptr;
    int item = -1;
    char detail[256] = {};  ///< what was found instead, if there is more to say than errno does
};

/// Opens what a bind needs from the host's tree, as a mount that is attached nowhere yet. Also called by a
/// launcher with CAP_SYS_ADMIN before the clone, whose rights reach folders that the child's do not. A source
/// that is missing and optional leaves -1.
bool open_bind(const MountStep& step, int& tree, StepFailure& failure);
/// An overlay, attached nowhere yet: by a launcher with CAP_SYS_ADMIN, so that root's folders can be layers.
bool make_overlay_as_launcher(const MountStep& step, int& tree, StepFailure& failure);
/// The same by the child of any other launcher, with what a user namespace allows; as the client's user, to
/// whom the layers belong. `own_xattr`: in a user namespace the layers' marks cannot be trusted.* attributes.
bool make_overlay_as_client(const MountStep& step, bool own_xattr, int& tree, StepFailure& failure);
/// The command's file as a read-only mount of its own: through it a client cannot write to its own program
/// on the host, whoever owns that.
bool open_target(const char* path, int& tree, StepFailure& failure);

/// A root that is a folder.
bool open_root(const MountPlan& plan, int& tree, StepFailure& failure);

/// The steps NewRoot, Mounts, SealRoot and EnterRoot. Only async-signal-safe calls.
bool make_new_root(const MountPlan& plan, ChildPlan& child, int& root, StepFailure& failure);
/// `root` becomes what is mounted on "/" itself, if anything is.
bool attach_mounts(ChildPlan& child, int& root, StepFailure& failure);
bool enter_root(const ChildPlan& child, int root, StepFailure& failure);

}  // namespace postern
