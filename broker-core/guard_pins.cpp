// SPDX-License-Identifier: Apache-2.0
#include "broker-core/guard_pins.h"

#include <bpf/bpf.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstring>
#include <map>
#include <thread>

#include "broker-core/cgroup_child.h"
#include "broker-core/file.h"
#include "broker-core/guard_loader.h"
#include "broker-core/scope_guard.h"

namespace postern {
namespace {

constexpr uint32_t kZero = 0;
/// A look at some ten thousand processes is a second's work.
constexpr ChildPatience kPatienceToLook{std::chrono::seconds(10), std::chrono::seconds(2)};

std::string prog_path(const std::string& folder, const char* name) {
    return folder + "/prog_" + name;
}
std::string link_path(const std::string& folder, const char* name) {
    return folder + "/link_" + name;
}
std::string map_path(const std::string& folder, const char* name) {
    return folder + "/map_" + name;
}

bool exists(const std::string& path) {
    return ::access(path.c_str(), F_OK) == 0;
}

Result<UniqueFd> open_pin(const std::string& path) {
    UniqueFd fd(::bpf_obj_get(path.c_str()));
    if (!fd) {
        const int error = errno;
        return fail_errno(error, "the guard: cannot open {}", path);
    }
    return fd;
}

/// A bpffs may be writable for everybody; whoever owns the folder could take the guard down.
Status make_own_folder(const std::string& path) {
    if (auto made = make_folder(path, 0700); !made) return propagate(std::move(made), "the guard");
    struct stat found {};
    if (::lstat(path.c_str(), &found) != 0) {
        const int error = errno;
        return fail_errno(error, "the guard: cannot look at {}", path);
    }
    if (S_ISDIR(found.st_mode) && found.st_uid == ::geteuid() && (found.st_mode & 022) == 0) return {};
    return fail("the guard: {} is not a folder that only its owner, uid {}, may write; remove it", path,
                ::geteuid());
}

Status unpin(const std::string& path) {
    if (::unlink(path.c_str()) == 0 || errno == ENOENT) return {};
    const int error = errno;
    return fail_errno(error, "the guard: cannot remove {}", path);
}

Result<bool> is_empty(int map) {
    uint64_t key = 0;
    if (::bpf_map_get_next_key(map, nullptr, &key) == 0) return false;
    const int error = errno;
    if (error == ENOENT) return true;
    return fail_errno(error, "the guard: cannot read its map of files");
}

/// In the order that keeps "map_about is there" true to its meaning and map_files as long as anything else.
Status remove_set(const std::string& folder) {
    POSTERN_TRY(unpin(map_path(folder, "about")));
    for (const GuardHook& hook : kGuardHooks) POSTERN_TRY(unpin(link_path(folder, hook.program)));
    for (const GuardHook& hook : kGuardHooks) POSTERN_TRY(unpin(prog_path(folder, hook.program)));
    for (const char* program : kGuardHelpers) POSTERN_TRY(unpin(prog_path(folder, program)));
    for (size_t i = kGuardMaps.size(); i > 0; i--) POSTERN_TRY(unpin(map_path(folder, kGuardMaps[i - 1])));
    return {};
}

/// True if removing the set, or what there is of it, leaves no registered file without its guard.
Result<bool> is_removable(const std::string& folder) {
    if (exists(map_path(folder, "files"))) {
        POSTERN_ASSIGN(const UniqueFd files, open_pin(map_path(folder, "files")));
        return is_empty(files.get());
    }
    for (const GuardHook& hook : kGuardHooks) {
        if (exists(link_path(folder, hook.program))) return false;
    }
    return true;
}

Status load_set(const std::string& folder) {
    ScopeGuard undo([&folder] { (void)remove_set(folder); });
    POSTERN_TRY(load_guard(folder));
    undo.dismiss();
    return {};
}

/// The pinned iterator over the files of the process `pid`, or over what all of them have (0).
Result<UniqueFd> open_iterator(const std::string& pinned, pid_t pid) {
    POSTERN_ASSIGN(const UniqueFd program, open_pin(pinned));
    bpf_iter_link_info which{};
    which.task.pid = static_cast<uint32_t>(pid);
    LIBBPF_OPTS(bpf_link_create_opts, options, .iter_info = &which, .iter_info_len = sizeof which);
    const UniqueFd link(::bpf_link_create(program.get(), 0, BPF_TRACE_ITER, pid != 0 ? &options : nullptr));
    UniqueFd iterator(link ? ::bpf_iter_create(link.get()) : -1);
    if (iterator) return iterator;
    const int error = errno;
    return fail_errno(error, "the guard: cannot iterate with {}", pinned);
}

Status run_iterator(const UniqueFd& iterator, const char* pinned) {
    // Nothing is printed by the program; reading to the end is what makes it run.
    char none[64];
    ssize_t got = 0;
    int error = 0;
    do {
        got = ::read(iterator.get(), none, sizeof none);
        error = got < 0 ? errno : 0;
    } while (got > 0 || error == EINTR || error == EAGAIN);
    if (error == 0) return {};
    return fail_errno(error, "the guard: cannot read the iterator {}", pinned);
}

Status iterate(const std::string& pinned, pid_t pid) {
    POSTERN_ASSIGN(const UniqueFd iterator, open_iterator(pinned, pid));
    return run_iterator(iterator, pinned.c_str());
}

/// The keys of a map, `limit` at most: entries come and go meanwhile, and a deletion sends the walk back to
/// its start.
template <typename Key>
std::vector<Key> keys_of(int map, size_t limit) {
    std::vector<Key> found;
    Key key{};
    Key previous{};
    for (size_t i = 0; i < 2 * limit; ++i) {
        if (::bpf_map_get_next_key(map, i == 0 ? nullptr : &previous, &key) != 0) break;
        const bool seen = std::any_of(found.begin(), found.end(), [&](const Key& each) {
            return std::memcmp(&each, &key, sizeof key) == 0;
        });
        if (!seen) found.push_back(key);
        previous = key;
    }
    return found;
}

using Clock = std::chrono::steady_clock;

/// Creates a link; it is not pinned yet. A program whose last link was unpinned a moment ago is busy until
/// the kernel has taken it down, which waits for every task to have been scheduled (RCU tasks): some 10 ms on
/// an idle machine, more on a busy one.
Result<UniqueFd> attach_program(int program, const char* name, Clock::time_point deadline) {
    while (true) {
        UniqueFd link(::bpf_link_create(program, 0, BPF_LSM_MAC, nullptr));
        if (link) return link;
        const int error = errno;
        if (error != EBUSY || Clock::now() >= deadline) {
            return fail_errno(error, "the guard: cannot attach {}", name);
        }
        std::this_thread::sleep_for(std::chrono::milliseconds(2));
    }
}

}  // namespace

namespace {

struct About {
    bool same_abi = false;
    uint64_t stamp = 0;
};

/// What the pinned set in `folder` says of itself.
Result<About> read_about(const std::string& folder) {
    POSTERN_ASSIGN(const UniqueFd map, open_pin(map_path(folder, "about")));
    postern_about about{};
    bpf_map_info info{};
    uint32_t size = sizeof info;
    const bool readable = ::bpf_obj_get_info_by_fd(map.get(), &info, &size) == 0 &&
                          info.value_size == sizeof about &&
                          ::bpf_map_lookup_elem(map.get(), &kZero, &about) == 0;
    if (!readable || about.abi != POSTERN_GUARD_ABI || about.policy_size != sizeof(postern_policy))
        return About{};
    return About{true, about.stamp};
}

std::string set_folder(const std::string& bpffs) {
    return fmt::format("{}/postern/abi-{}", bpffs, POSTERN_GUARD_ABI);
}

}  // namespace

Result<std::optional<GuardPins>> GuardPins::find(const std::string& bpffs) {
    const std::string folder = set_folder(bpffs);
    if (!exists(map_path(folder, "about"))) return std::optional<GuardPins>();
    POSTERN_ASSIGN(const About found, read_about(folder));
    if (!found.same_abi) {
        return fail("the guard: the pinned set {} is of another make; use the postern that made it", folder);
    }
    POSTERN_ASSIGN(GuardPins pins, open_pinned(folder));
    return std::optional<GuardPins>(std::move(pins));
}

Result<UniqueFd> GuardPins::owners(const std::string& bpffs) {
    const std::string path = map_path(set_folder(bpffs), "owners");
    return exists(path) ? open_pin(path) : Result<UniqueFd>();
}

Status GuardPins::remove() {
    POSTERN_TRY(detach());
    POSTERN_TRY(remove_set(folder_));
    // Not an error: a set of another ABI may stand beside this one.
    ::rmdir(folder_.c_str());
    ::rmdir(folder_.substr(0, folder_.rfind('/')).c_str());
    return {};
}

Result<GuardPins> GuardPins::open(const std::string& bpffs, bool alone) {
    const std::string folder = set_folder(bpffs);
    POSTERN_TRY(make_own_folder(bpffs + "/postern"));
    POSTERN_TRY(make_own_folder(folder));

    if (exists(map_path(folder, "about"))) {
        POSTERN_ASSIGN(const About found, read_about(folder));
        if (found.same_abi && found.stamp == guard_stamp()) return open_pinned(folder);
        POSTERN_ASSIGN(const bool removable, is_removable(folder));
        if (!alone || !removable) {
            if (found.same_abi) return open_pinned(folder);
            return fail(
                "the guard: the pinned set {} is of another make and in use; end the clients of that postern",
                folder);
        }
    } else {
        POSTERN_ASSIGN(const bool removable, is_removable(folder));
        if (!removable) {
            return fail(
                "the guard: the pinned set {} is damaged and guards open files; end all clients and remove "
                "it",
                folder);
        }
    }
    POSTERN_TRY(remove_set(folder));
    POSTERN_TRY(load_set(folder));
    return open_pinned(folder);
}

Result<GuardPins> GuardPins::open_pinned(const std::string& folder) {
    GuardPins pins(folder);
    const std::pair<const char*, UniqueFd*> maps[] = {
        {"files", &pins.files_},   {"sandboxes", &pins.sandboxes_}, {"only_ways", &pins.only_ways_},
        {"shares", &pins.shares_}, {"search", &pins.search_},       {"pending", &pins.pending_},
        {"rings", &pins.rings_},   {"listeners", &pins.listeners_}, {"state", &pins.state_}};
    for (const auto& [name, map] : maps) {
        POSTERN_ASSIGN(*map, open_pin(map_path(folder, name)));
    }
    return pins;
}

bool GuardPins::any_attached() const {
    for (const GuardHook& hook : kGuardHooks) {
        if (exists(link_path(folder_, hook.program))) return true;
    }
    return false;
}

std::vector<std::string> GuardPins::attached() const {
    std::vector<std::string> found;
    for (const GuardHook& hook : kGuardHooks) {
        if (exists(link_path(folder_, hook.program))) found.emplace_back(hook.program);
    }
    return found;
}

bool GuardPins::is_current() const {
    const auto id = [](int map) {
        bpf_map_info info{};
        uint32_t size = sizeof info;
        return ::bpf_obj_get_info_by_fd(map, &info, &size) == 0 ? info.id : 0;
    };
    const UniqueFd pinned(::bpf_obj_get(map_path(folder_, "rings").c_str()));
    return pinned && id(pinned.get()) != 0 && id(pinned.get()) == id(rings_.get());
}

Result<postern_about> GuardPins::about() const {
    POSTERN_ASSIGN(const UniqueFd map, open_pin(map_path(folder_, "about")));
    postern_about found{};
    if (::bpf_map_lookup_elem(map.get(), &kZero, &found) == 0) return found;
    const int error = errno;
    return fail_errno(error, "the guard: cannot read its version");
}

Status GuardPins::attach() {
    std::vector<const char*> missing;
    for (const GuardHook& hook : kGuardHooks) {
        if (hook.optional && !exists(prog_path(folder_, hook.program))) continue;
        if (!exists(link_path(folder_, hook.program))) missing.push_back(hook.program);
    }
    if (missing.empty()) return {};
    POSTERN_ASSIGN(const bool any, any_file());
    if (any) {
        return fail("the guard: somebody removed {} while files were guarded; end all clients and remove {}",
                    link_path(folder_, missing.front()), folder_);
    }
    if (!any_attached()) {
        // What was learned in an earlier life may be the address of a module that is gone.
        POSTERN_ASSIGN(postern_state fresh, state());
        fresh.kinds = {};
        if (::bpf_map_update_elem(state_.get(), &kZero, &fresh, BPF_ANY) != 0) {
            const int error = errno;
            return fail_errno(error, "the guard: cannot reset the kinds of file it knows");
        }
    }

    std::vector<std::string> pinned;
    ScopeGuard undo([&pinned] {
        for (const std::string& path : pinned) (void)unpin(path);
    });
    const Clock::time_point deadline = Clock::now() + std::chrono::seconds(30);
    for (const char* program : missing) {
        POSTERN_ASSIGN(const UniqueFd fd, open_pin(prog_path(folder_, program)));
        POSTERN_ASSIGN(const UniqueFd link, attach_program(fd.get(), program, deadline));
        const std::string path = link_path(folder_, program);
        if (::bpf_obj_pin(link.get(), path.c_str()) != 0) {
            const int error = errno;
            return fail_errno(error, "the guard: cannot pin {}", path);
        }
        pinned.push_back(path);
    }
    undo.dismiss();
    return {};
}

Status GuardPins::detach() {
    POSTERN_ASSIGN(const bool any, any_file());
    if (any) return fail("the guard: files are still guarded; it stays attached until they are closed");
    for (const GuardHook& hook : kGuardHooks) POSTERN_TRY(unpin(link_path(folder_, hook.program)));
    return {};
}

Result<postern_pending> GuardPins::run(const postern_pending& request) {
    const auto write_request = [this](const postern_pending& value) -> Status {
        if (::bpf_map_update_elem(pending_.get(), &kZero, &value, BPF_ANY) == 0) return {};
        const int error = errno;
        return fail_errno(error, "the guard: cannot write the request");
    };
    POSTERN_TRY(write_request(request));
    const Status ran = iterate(prog_path(folder_, kGuardRegistrar), ::getpid());
    postern_pending answer{};
    const bool answered = ::bpf_map_lookup_elem(pending_.get(), &kZero, &answer) == 0;
    const int error = errno;
    // Whatever happened, a later iteration must not find this request.
    POSTERN_TRY(write_request({}));
    POSTERN_TRY(ran);
    if (!answered) return fail_errno(error, "the guard: cannot read the answer");
    return answer;
}

Status GuardPins::ask(uint32_t action, int fd, uint64_t value) {
    postern_pending request{};
    request.action = action;
    request.fd = static_cast<uint32_t>(fd);
    request.value = value;
    POSTERN_ASSIGN(const postern_pending answer, run(request));
    if (answer.seen != 1) return fail("the guard: the kernel did not find the file of fd {}", fd);
    if (answer.error == 0) return {};
    return fail_errno(static_cast<int>(answer.error), "the guard: request {} about fd {}", action, fd);
}

Result<bool> GuardPins::is_mapped(const Key& key, const postern_policy& share) {
    if (share.n_windows == 0) return false;
    postern_search wanted{};
    wanted.file = key.file;
    wanted.n_windows = share.n_windows;
    std::copy(std::begin(share.windows), std::end(share.windows), wanted.windows);
    const auto write_search = [this](const postern_search& value) -> Status {
        if (::bpf_map_update_elem(search_.get(), &kZero, &value, BPF_ANY) == 0) return {};
        const int error = errno;
        return fail_errno(error, "the guard: cannot write what mappings it is to look for");
    };
    POSTERN_TRY(write_search(wanted));
    const std::string program = prog_path(folder_, kGuardSearcher);
    POSTERN_ASSIGN(const UniqueFd iterator, open_iterator(program, 0));
    // The lock of each process's mappings is waited for, and whoever has files of their own (FUSE) can hold
    // theirs for ever: in a child, whose wait a signal ends.
    if (auto looked = in_child([&] { return run_iterator(iterator, program.c_str()); }, kPatienceToLook);
        !looked)
        return propagate(std::move(looked), "the guard: looking at the mappings of all processes");
    postern_search found{};
    if (::bpf_map_lookup_elem(search_.get(), &kZero, &found) != 0) {
        const int error = errno;
        return fail_errno(error, "the guard: cannot read what mappings it found");
    }
    return found.found != 0;
}

Status GuardPins::add_sandbox(uint64_t cgroup_id, uint32_t level) {
    if (::bpf_map_update_elem(sandboxes_.get(), &cgroup_id, &level, BPF_ANY) == 0) return {};
    const int error = errno;
    return fail_errno(error, "the guard: cannot add the sandbox with cgroup {}", cgroup_id);
}

Status GuardPins::forget_sandbox(uint64_t cgroup_id) {
    if (::bpf_map_delete_elem(sandboxes_.get(), &cgroup_id) != 0 && errno != ENOENT) {
        const int error = errno;
        return fail_errno(error, "the guard: cannot remove the sandbox with cgroup {}", cgroup_id);
    }
    for (const postern_only_way& way : keys_of<postern_only_way>(only_ways_.get(), POSTERN_MAX_FILES)) {
        if (way.cgroup == cgroup_id) (void)::bpf_map_delete_elem(only_ways_.get(), &way);
    }
    return {};
}

Status GuardPins::remove_sandbox(uint64_t cgroup_id) {
    POSTERN_TRY(forget_sandbox(cgroup_id));
    for (const postern_share& share : keys_of<postern_share>(shares_.get(), POSTERN_MAX_SHARES)) {
        if (share.cgroup != cgroup_id) continue;
        if (::bpf_map_delete_elem(shares_.get(), &share) != 0 && errno != ENOENT) {
            const int error = errno;
            return fail_errno(error, "the guard: cannot end what the sandbox with cgroup {} shares",
                              cgroup_id);
        }
    }
    return {};
}

Result<std::vector<uint64_t>> GuardPins::sandboxes() const {
    std::vector<uint64_t> found;
    uint64_t key = 0;
    const void* previous = nullptr;
    // Under GuardLock nobody deletes, so the walk does not start anew.
    while (::bpf_map_get_next_key(sandboxes_.get(), previous, &key) == 0) {
        found.push_back(key);
        previous = &found.back();
        if (found.size() > POSTERN_MAX_SANDBOXES) break;
    }
    const int error = errno;
    if (error != ENOENT) return fail_errno(error, "the guard: cannot read its map of sandboxes");
    return found;
}

Result<bool> GuardPins::any_file() const {
    POSTERN_ASSIGN(const bool empty, is_empty(files_.get()));
    return !empty;
}

Result<GuardPins::Policies> GuardPins::shared_files() const {
    Policies found;
    for (const uint64_t key : keys_of<uint64_t>(files_.get(), POSTERN_MAX_FILES)) {
        postern_policy policy{};
        if (::bpf_map_lookup_elem(files_.get(), &key, &policy) != 0) continue;
        if ((policy.flags & POSTERN_POLICY_SHARED) != 0) found.emplace_back(Key{key, 0}, policy);
    }
    return found;
}

Result<GuardPins::Policies> GuardPins::files() const {
    Policies found;
    std::map<uint64_t, uint64_t> shared;  // by serial
    for (const uint64_t key : keys_of<uint64_t>(files_.get(), POSTERN_MAX_FILES)) {
        postern_policy policy{};
        if (::bpf_map_lookup_elem(files_.get(), &key, &policy) != 0) continue;
        if ((policy.flags & POSTERN_POLICY_SHARED) != 0) {
            shared.emplace(policy.serial, key);
        } else {
            found.emplace_back(Key{key, 0}, policy);
        }
    }
    if (shared.empty()) return found;
    for (const postern_share& share : keys_of<postern_share>(shares_.get(), POSTERN_MAX_SHARES)) {
        const auto file = shared.find(share.serial);
        postern_policy policy{};
        if (file == shared.end() || ::bpf_map_lookup_elem(shares_.get(), &share, &policy) != 0) continue;
        found.emplace_back(Key{file->second, share.cgroup}, policy);
    }
    return found;
}

Status GuardPins::sweep_shares() {
    POSTERN_ASSIGN(const Policies files, shared_files());
    for (const postern_share& share : keys_of<postern_share>(shares_.get(), POSTERN_MAX_SHARES)) {
        const bool lives = std::any_of(files.begin(), files.end(),
                                       [&](const auto& each) { return each.second.serial == share.serial; });
        if (!lives) (void)::bpf_map_delete_elem(shares_.get(), &share);
    }
    return {};
}

Result<std::optional<postern_share>> GuardPins::share_key(const Key& key) const {
    postern_policy shared{};
    if (::bpf_map_lookup_elem(files_.get(), &key.file, &shared) == 0)
        return std::optional<postern_share>(postern_share{shared.serial, key.share});
    const int error = errno;
    if (error == ENOENT) return std::optional<postern_share>();
    return fail_errno(error, "the guard: cannot read its map of files");
}

Result<uint64_t> GuardPins::denied(const std::string& grant) const {
    POSTERN_ASSIGN(const auto all, files());
    uint64_t sum = 0;
    for (const auto& [key, policy] : all) sum += grant == policy.grant ? policy.denied : 0;
    return sum;
}

Result<bool> GuardPins::change(const Key& key, const std::string& grant, uint32_t what,
                               const SandboxIdentity& sandbox) {
    POSTERN_ASSIGN(const UniqueFd program, open_pin(prog_path(folder_, kGuardRevoker)));
    postern_revocation wanted{};
    wanted.file = key.file;
    wanted.share = key.share;
    wanted.what = what;
    wanted.sandbox_cgroup = sandbox.cgroup_id;
    wanted.cgroup_level = sandbox.cgroup_level;
    std::copy_n(grant.begin(), std::min<size_t>(grant.size(), POSTERN_GRANT_SIZE - 1), wanted.grant);
    // The kernel writes the context back where it came from, and refuses a ctx_out.
    LIBBPF_OPTS(bpf_test_run_opts, run, .ctx_in = &wanted, .ctx_size_in = sizeof wanted);
    if (::bpf_prog_test_run_opts(program.get(), &run) != 0) {
        const int error = errno;
        return fail_errno(error, "the guard: cannot change the policy of grant {}", grant);
    }
    return wanted.done != 0;
}

Result<bool> GuardPins::revoke(const Key& key, const std::string& grant) {
    return change(key, grant, POSTERN_REVOKE);
}

Status GuardPins::restart_count(const std::string& grant) {
    POSTERN_ASSIGN(const auto all, files());
    for (const auto& [key, found] : all) {
        if (grant == found.grant) POSTERN_TRY(change(key, grant, POSTERN_FORGET));
    }
    return {};
}

Status GuardPins::move(const std::string& grant, const SandboxIdentity& sandbox) {
    POSTERN_ASSIGN(const auto all, files());
    for (const auto& [key, found] : all) {
        if (grant != found.grant) continue;
        if ((found.flags & POSTERN_POLICY_ONLY_WAY) != 0) {
            return fail(
                "the guard: grant {} has a file that is the only way to its inode in its sandbox, which "
                "therefore cannot become another one",
                grant);
        }
        if (key.share != 0) {
            POSTERN_TRY(move_share(key, sandbox));
            continue;
        }
        // Not done: it was closed a moment ago.
        POSTERN_TRY(change(key, grant, POSTERN_MOVE, sandbox));
    }
    return {};
}

/// Nobody's in between: what its holder gave up before is taken along, and nothing is allowed twice.
Status GuardPins::move_share(const Key& key, const SandboxIdentity& sandbox) {
    POSTERN_ASSIGN(auto at, share_key(key));
    if (!at || sandbox.cgroup_id == key.share) return {};
    postern_policy policy{};
    if (::bpf_map_lookup_and_delete_elem(shares_.get(), &*at, &policy) != 0) {
        const int error = errno;
        if (error == ENOENT) return {};
        return fail_errno(error, "the guard: cannot take a share from the sandbox with cgroup {}", key.share);
    }
    policy.sandbox_cgroup = sandbox.cgroup_id;
    policy.cgroup_level = sandbox.cgroup_level;
    at->cgroup = sandbox.cgroup_id;
    if (::bpf_map_update_elem(shares_.get(), &*at, &policy, BPF_NOEXIST) == 0) return {};
    const int error = errno;
    return fail_errno(error, "the guard: cannot give a share to the sandbox with cgroup {}",
                      sandbox.cgroup_id);
}

Status GuardPins::forget(const std::string& grant) {
    POSTERN_ASSIGN(const auto all, files());
    for (const auto& [key, found] : all) {
        if (grant != found.grant) continue;
        if (key.share != 0) {
            POSTERN_TRY(forget_share(key));
        } else if (::bpf_map_delete_elem(files_.get(), &key.file) != 0 && errno != ENOENT) {
            const int error = errno;
            return fail_errno(error, "the guard: cannot forget a file of grant {}", grant);
        }
    }
    return {};
}

Status GuardPins::forget_share(const Key& key) {
    POSTERN_ASSIGN(const auto share, share_key(key));
    if (!share || ::bpf_map_delete_elem(shares_.get(), &*share) == 0 || errno == ENOENT) return {};
    const int error = errno;
    return fail_errno(error, "the guard: cannot end what the sandbox with cgroup {} shares", key.share);
}

Result<uint64_t> GuardPins::key_of(int fd) {
    postern_pending look{};
    look.action = POSTERN_PENDING_LOOK;
    look.fd = static_cast<uint32_t>(fd);
    POSTERN_ASSIGN(const postern_pending answer, run(look));
    // That nothing is mapped at address 0 does not matter here.
    if (answer.seen != 1) return fail("the guard: the kernel did not find the file of fd {}", fd);
    return answer.file;
}

Result<postern_state> GuardPins::state() const {
    postern_state found{};
    if (::bpf_map_lookup_elem(state_.get(), &kZero, &found) == 0) return found;
    const int error = errno;
    return fail_errno(error, "the guard: cannot read its state");
}

}  // namespace postern
