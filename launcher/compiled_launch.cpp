// SPDX-License-Identifier: Apache-2.0
#include "launcher/compiled_launch.h"

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
    auto& [type, source, target, options] = mount;
    archive.one(type);
    archive.one(source);
    archive.one(target);
    archive.one(options);
}

template <typename Archive, typename Spec>
void visit_scalars(Archive& archive, Spec& spec) {
    auto& [namespaces, root, mounts, seccomp, capabilities, no_new_privs, landlock, rlimits, uid, gid,
           hostname, env, cwd, time_limit, cgroup_fd, tell_namespaces, new_session, loopback_up, argv, fds] = spec;
    // Those are the launch's own.
    static_cast<void>(env);
    static_cast<void>(cgroup_fd);
    static_cast<void>(tell_namespaces);
    static_cast<void>(argv);
    static_cast<void>(fds);
    visit_root(archive, root);
    archive.one(namespaces);
    archive.one(seccomp);
    archive.one(capabilities);
    archive.one(no_new_privs);
    archive.one(landlock);
    archive.one(rlimits);
    archive.one(uid);
    archive.one(gid);
    archive.one(hostname);
    archive.one(cwd);
    archive.one(time_limit);
    archive.one(new_session);
    archive.one(loopback_up);
    static_cast<void>(mounts);
}

template <typename Archive, typename Launch>
void visit_rest(Archive& archive, Launch& launch) {
    auto& [spec, env_keep, env_set, cgroup_limits, weakenings] = launch;
    visit_scalars(archive, spec);
    archive.one(env_keep);
    archive.one(env_set);
    archive.one(cgroup_limits);
    archive.one(weakenings);
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
    CompiledLaunch launch;
    visit_rest(reader, launch);
    std::size_t mounts = 0;
    reader.one(mounts);
    for (std::size_t i = 0; i < mounts && reader.good(); ++i)
        visit_mount(reader, launch.spec.mounts.emplace_back());
    if (!reader.finished()) return std::nullopt;
    return launch;
}

}  // namespace postern
