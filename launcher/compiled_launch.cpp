// SPDX-License-Identifier: Apache-2.0
#include "launcher/compiled_launch.h"

#include <tuple>

#include "launcher/byte_archive.h"

namespace postern {
namespace {

// Each struct is taken apart by a structured binding, which names all of its members: one that is added and
// forgotten here does not compile. A kept launch that lacks a restriction would be a sandbox that lacks it.

template <typename Archive, typename Text>
void visit_root(Archive& archive, Text& root) {
    auto& [kind, path] = root;
    archive.one(kind);
    archive.one(path);
}

template <typename Archive, typename Entry>
void visit_mount(Archive& archive, Entry& mount) {
    auto& [type, source, target, options, fd] = mount;
    static_cast<void>(fd);  // only flags that make a launch one that is not kept can have it
    archive.one(type);
    archive.one(source);
    archive.one(target);
    archive.one(options);
}

template <typename Archive, typename Rules>
void visit_landlock(Archive& archive, Rules& rules) {
    auto& [read, write, execute, ioctl, bind_tcp, connect_tcp, scope_sockets, scope_signals, require] = rules;
    archive.one(read);
    archive.one(write);
    archive.one(execute);
    archive.one(ioctl);
    archive.one(bind_tcp);
    archive.one(connect_tcp);
    archive.one(scope_sockets);
    archive.one(scope_signals);
    archive.one(require);
}

template <typename Archive, typename Spec>
void visit_scalars(Archive& archive, Spec& spec) {
    auto& [namespaces, root, mounts, seccomp, capabilities, keep_capabilities, no_new_privs, landlock,
           rlimits, uid, gid, subids, uid_map, gid_map, own_ids, keep_groups, hostname, env, pid_variables,
           cwd, tell_folder, time_limit, cpu_limit, cgroup_fd, tell_namespaces, new_session, new_keyring,
           loopback_up, argv, argv0, fds, inherited_fds, make_targets, as_pid_1, no_more_user_namespaces,
           assert_no_more_user_namespaces, monotonic_offset, boottime_offset, net_path, joined_pid_namespace,
           late_user_fd, block_fd, sync_fd, lock_files, await_user_map] = spec;
    // Those are the launch's own: launch_key() knows no option that sets them.
    static_cast<void>(std::tie(env, pid_variables, cgroup_fd, tell_namespaces, argv, argv0, fds,
                               inherited_fds, joined_pid_namespace, late_user_fd, block_fd, sync_fd,
                               lock_files, await_user_map, mounts));
    visit_root(archive, root);
    archive.one(namespaces);
    archive.one(seccomp);
    archive.one(capabilities);
    archive.one(no_new_privs);
    visit_landlock(archive, landlock);
    archive.one(rlimits);
    archive.one(uid);
    archive.one(gid);
    archive.one(subids);
    archive.one(uid_map);
    archive.one(gid_map);
    archive.one(hostname);
    archive.one(cwd);
    archive.one(time_limit);
    archive.one(cpu_limit);
    archive.one(new_session);
    archive.one(new_keyring);
    archive.one(loopback_up);
    archive.one(keep_capabilities);
    archive.one(own_ids);
    archive.one(keep_groups);
    archive.one(tell_folder);
    archive.one(make_targets);
    archive.one(as_pid_1);
    archive.one(no_more_user_namespaces);
    archive.one(assert_no_more_user_namespaces);
    archive.one(monotonic_offset);
    archive.one(boottime_offset);
    archive.one(net_path);
}

template <typename Archive, typename Launch>
void visit_rest(Archive& archive, Launch& launch) {
    auto& [spec, env_keep, env_set, cgroup_limits, weakenings, quiet] = launch;
    visit_scalars(archive, spec);
    archive.one(env_keep);
    archive.one(env_set);
    archive.one(cgroup_limits);
    archive.one(weakenings);
    archive.one(quiet);
}

}  // namespace

std::string encode_launch(const CompiledLaunch& launch) {
    ByteWriter writer;
    visit_rest(writer, launch);
    writer.one(launch.spec.mounts.size());
    for (const Mount& mount : launch.spec.mounts) visit_mount(writer, mount);
    return writer.take();
}

std::optional<CompiledLaunch> decode_launch(std::string_view bytes) {
    ByteReader reader(bytes);
    // Why in its optional from the start: g++ 12 takes the move into one for the use of an uninitialized
    // value.
    std::optional<CompiledLaunch> launch(std::in_place);
    visit_rest(reader, *launch);
    std::size_t mounts = 0;
    reader.one(mounts);
    for (std::size_t i = 0; i < mounts && reader.good(); ++i)
        visit_mount(reader, launch->spec.mounts.emplace_back());
    if (!reader.finished()) launch.reset();
    return launch;
}

}  // namespace postern
