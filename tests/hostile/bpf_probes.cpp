// SPDX-License-Identifier: Apache-2.0
// bpf(2): the guard itself lives there. Its programs, maps and links must be out of reach, and no others
// made.
#include <fcntl.h>
#include <linux/bpf.h>
#include <sched.h>
#include <sys/mount.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <vector>

#include "broker-core/unique_fd.h"
#include "tests/hostile/paths.h"
#include "tests/hostile/probe.h"

namespace postern::hostile {
namespace {

/// bpf(2); a new fd, or 0 for commands without one.
int call_bpf(bpf_cmd command, bpf_attr& attributes) {
    return static_cast<int>(syscall(SYS_bpf, command, &attributes, sizeof attributes));
}

UniqueFd load_program(bpf_prog_type type) {
    // r0 = 0; exit
    const bpf_insn program[] = {{BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0}, {BPF_JMP | BPF_EXIT, 0, 0, 0, 0}};
    bpf_attr attributes{};
    attributes.prog_type = type;
    attributes.insns = reinterpret_cast<uint64_t>(program);
    attributes.insn_cnt = 2;
    attributes.license = reinterpret_cast<uint64_t>("GPL");
    return UniqueFd(call_bpf(BPF_PROG_LOAD, attributes));
}

UniqueFd create_map() {
    bpf_attr attributes{};
    attributes.map_type = BPF_MAP_TYPE_ARRAY;
    attributes.key_size = 4;
    attributes.value_size = 8;
    attributes.max_entries = 1;
    return UniqueFd(call_bpf(BPF_MAP_CREATE, attributes));
}

/// A flow dissector of this process's network namespace: the simplest link there is.
UniqueFd create_link(int program) {
    const UniqueFd network(open("/proc/self/ns/net", O_RDONLY | O_CLOEXEC));
    bpf_attr attributes{};
    attributes.link_create.prog_fd = static_cast<uint32_t>(program);
    attributes.link_create.target_fd = static_cast<uint32_t>(network.get());
    attributes.link_create.attach_type = BPF_FLOW_DISSECTOR;
    return UniqueFd(call_bpf(BPF_LINK_CREATE, attributes));
}

/// Outside there may be no guard to be found: one of each kind, for the life of this child, takes its place.
struct StandIn {
    UniqueFd map, program, link;

    explicit StandIn(const Target& target) {
        if (!target.outside) return;
        map = create_map();
        program = load_program(BPF_PROG_TYPE_FLOW_DISSECTOR);
        link = create_link(program.get());
    }
};

/// The same in a bpffs that only this child sees.
bool pin_stand_in(const Target& target, const StandIn& stand_in) {
    if (!target.outside) return true;
    if (unshare(CLONE_NEWNS) != 0 || mount(nullptr, "/", nullptr, MS_REC | MS_PRIVATE, nullptr) != 0)
        return false;
    if (mount("bpf", "/sys/fs/bpf", "bpf", 0, nullptr) != 0) return false;
    bpf_attr attributes{};
    attributes.pathname = reinterpret_cast<uint64_t>("/sys/fs/bpf/stand-in");
    attributes.bpf_fd = static_cast<uint32_t>(stand_in.map.get());
    return call_bpf(BPF_OBJ_PIN, attributes) == 0;
}

/// Walks the ids of maps, programs or links and opens the first.
Attempt open_by_id(const Target& target, bpf_cmd next, bpf_cmd open_command) {
    const StandIn stand_in(target);
    bpf_attr attributes{};
    if (call_bpf(next, attributes) != 0) return judged(-1, "next id");
    const uint32_t id = attributes.next_id;
    attributes = {};
    attributes.map_id = id;  // prog_id and link_id lie at the same place
    const UniqueFd fd(call_bpf(open_command, attributes));
    return judged(fd.get(), "fd of an id");
}

void collect(const std::string& folder, unsigned depth, std::vector<std::string>& paths) {
    for (const std::string& path : entries_of(folder)) {
        paths.push_back(path);
        if (depth > 0) collect(path, depth - 1, paths);
    }
}

Attempt open_pinned(const Target& target) {
    const StandIn stand_in(target);
    if (!pin_stand_in(target, stand_in)) return preparation_failed("a bpf file system");
    std::vector<std::string> paths{"/sys/fs/bpf/postern", "/sys/fs/bpf/postern/files"};
    collect("/sys/fs/bpf", 3, paths);
    return try_each(paths, "nothing is pinned in sight", [](const std::string& path) {
        bpf_attr attributes{};
        attributes.pathname = reinterpret_cast<uint64_t>(path.c_str());
        const UniqueFd fd(call_bpf(BPF_OBJ_GET, attributes));
        return judged(fd.get(), path.c_str());
    });
}

Attempt list_pinned(const Target& target) {
    const StandIn stand_in(target);
    if (!pin_stand_in(target, stand_in)) return preparation_failed("a bpf file system");
    const UniqueFd fd(open("/sys/fs/bpf", O_RDONLY | O_DIRECTORY | O_CLOEXEC));
    if (!fd) return judged(-1, "/sys/fs/bpf");
    const std::vector<std::string> paths = entries_of("/sys/fs/bpf");
    // An empty folder is the mount point that every kernel has.
    return paths.empty() ? failed(ENOENT, "it is empty") : succeeded(paths.front());
}

Attempt load(bpf_prog_type type) {
    return judged(load_program(type).get());
}

}  // namespace

void add_bpf_probes(Probes& probes) {
    const struct {
        const char* name;
        const char* what;
        std::function<Attempt(const Target&)> attempt;
        std::vector<int> refusals = {};
    } ways[] = {
        {"bpf-load-socket-filter", "load a socket filter, which needs no rights on some systems",
         [](const Target&) { return load(BPF_PROG_TYPE_SOCKET_FILTER); }},
        {"bpf-load-tracepoint", "load a tracepoint program",
         [](const Target&) { return load(BPF_PROG_TYPE_TRACEPOINT); }},
        {"bpf-map-create", "make a map", [](const Target&) { return judged(create_map().get()); }},
        {"bpf-map-ids", "open the first map of the system",
         [](const Target& t) { return open_by_id(t, BPF_MAP_GET_NEXT_ID, BPF_MAP_GET_FD_BY_ID); }},
        {"bpf-prog-ids", "open the first program of the system",
         [](const Target& t) { return open_by_id(t, BPF_PROG_GET_NEXT_ID, BPF_PROG_GET_FD_BY_ID); }},
        {"bpf-link-ids", "open the first link of the system, to detach it",
         [](const Target& t) { return open_by_id(t, BPF_LINK_GET_NEXT_ID, BPF_LINK_GET_FD_BY_ID); }},
        {"bpf-pinned", "open what is pinned in /sys/fs/bpf", open_pinned, {ENOENT}},
        {"bpffs", "list /sys/fs/bpf", list_pinned, {ENOENT}},
    };
    for (const auto& way : ways) {
        probes.push_back({.name = way.name,
                          .group = "bpf",
                          .what = way.what,
                          .attempt = way.attempt,
                          .refusals = way.refusals});
    }
}

}  // namespace postern::hostile
