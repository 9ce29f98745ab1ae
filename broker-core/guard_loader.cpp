// SPDX-License-Identifier: Apache-2.0
#include "broker-core/guard_loader.h"

// The skeleton names its types.
#include "bpf/policy.h"

#include <bpf/bpf.h>
#include <bpf/btf.h>
#include <bpf/libbpf.h>
#include <guard.skel.h>
#include <guard.stamp.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cstdarg>
#include <cstdio>
#include <memory>
#include <string_view>

#include "broker-core/scope_guard.h"

namespace postern {
namespace {

/// What libbpf would have printed: the verifier's log is long, its last line but the counts says why.
thread_local std::string libbpf_log;

int keep_log(libbpf_print_level level, const char* format, va_list args) {
    if (level != LIBBPF_WARN || libbpf_log.size() > (1U << 20)) return 0;
    char line[4096];
    const int length = std::vsnprintf(line, sizeof line, format, args);
    if (length > 0) libbpf_log.append(line);
    return length;
}

/// The first line, and the verifier's verdict if there is one.
std::string reason() {
    std::string first = libbpf_log.substr(0, libbpf_log.find('\n'));
    const size_t end = libbpf_log.find("\nprocessed ");
    if (end == std::string::npos) return first;
    const size_t begin = libbpf_log.rfind('\n', end - 1);
    return first + ": " + libbpf_log.substr(begin + 1, end - begin - 1);
}

/// The functions of the running kernel, by its BTF.
class KernelFunctions {
  public:
    [[nodiscard]] static Result<KernelFunctions> read() {
        KernelFunctions functions;
        functions.btf_.reset(::btf__load_vmlinux_btf());
        if (functions.btf_) return functions;
        const int error = errno;
        return fail_errno(error, "the guard: cannot read the kernel's type information");
    }
    [[nodiscard]] bool has(const char* name) const {
        return ::btf__find_by_name_kind(btf_.get(), name, BTF_KIND_FUNC) > 0;
    }

    /// Whether the function says, by a suffix of its first parameter's name, that it may be NULL.
    [[nodiscard]] bool takes_null(const char* name) const {
        const btf_type* function = ::btf__type_by_id(
            btf_.get(),
            static_cast<uint32_t>(std::max(0, ::btf__find_by_name_kind(btf_.get(), name, BTF_KIND_FUNC))));
        const btf_type* prototype =
            function != nullptr ? ::btf__type_by_id(btf_.get(), function->type) : nullptr;
        if (prototype == nullptr || ::btf_vlen(prototype) == 0) return false;
        const char* parameter = ::btf__name_by_offset(btf_.get(), ::btf_params(prototype)->name_off);
        return parameter != nullptr && std::string_view(parameter).ends_with("__nullable");
    }

  private:
    struct Free {
        void operator()(btf* types) const { ::btf__free(types); }
    };
    std::unique_ptr<btf, Free> btf_;
};

/// Until Linux 6.2 (commit 271de525e1d7, also in later 6.1 kernels) a program that was preempted counted as
/// running on its CPU, and was skipped for the next task there: where kernel code is preempted, the hook then
/// allowed. The kernels that do not skip LSM programs have a function of their own for the programs that can
/// be.
Status check_no_program_is_skipped(const KernelFunctions& kernel) {
    utsname name{};
    ::uname(&name);
    int major = 0;
    int minor = 0;
    (void)std::sscanf(name.release, "%d.%d", &major, &minor);
    if (major > 6 || (major == 6 && minor >= 2) || kernel.has("__bpf_prog_enter_recur")) return {};
    return fail(
        "the guard: Linux {} may skip BPF LSM programs (it lacks commit 271de525e1d7); boot Linux 6.2 or "
        "later, or a 6.1 with all its updates",
        name.release);
}

Status pin(int fd, const std::string& path) {
    if (::bpf_obj_pin(fd, path.c_str()) == 0) return {};
    const int error = errno;
    return fail_errno(error, "the guard: cannot pin {}", path);
}

}  // namespace

uint64_t guard_stamp() {
    return POSTERN_GUARD_STAMP;
}

Status load_guard(const std::string& folder) {
    libbpf_log.clear();
    const libbpf_print_fn_t before = ::libbpf_set_print(keep_log);
    const ScopeGuard restore([before] { ::libbpf_set_print(before); });

    const std::unique_ptr<guard_bpf, void (*)(guard_bpf*)> guard(guard_bpf__open(), guard_bpf__destroy);
    if (!guard) {
        const int error = errno;
        return fail_errno(error, "the guard: its own object cannot be read: {}", reason());
    }
    POSTERN_ASSIGN(const KernelFunctions kernel, KernelFunctions::read());
    POSTERN_TRY(check_no_program_is_skipped(kernel));
    // Linux 6.8, and what stable kernels took of it.
    ::bpf_program__set_autoload(guard->progs.on_ioctl_compat, kernel.has("bpf_lsm_file_ioctl_compat"));
    // Linux 6.0, unless it is built without io_uring.
    ::bpf_program__set_autoload(guard->progs.on_uring_cmd, kernel.has("bpf_lsm_uring_cmd"));
    guard->rodata->knows_null = kernel.takes_null("bpf_lsm_mmap_file") ? 1 : 0;
    libbpf_log.clear();
    if (const int error = -guard_bpf__load(guard.get()); error != 0) {
        return fail_errno(error, "the guard: the kernel does not take it: {}", reason());
    }

    for (const GuardHook& hook : kGuardHooks) {
        const bpf_program* program = ::bpf_object__find_program_by_name(guard->obj, hook.program);
        if (hook.optional && ::bpf_program__fd(program) < 0) continue;
        POSTERN_TRY(pin(::bpf_program__fd(program), folder + "/prog_" + hook.program));
    }
    for (const char* name : kGuardHelpers) {
        const bpf_program* program = ::bpf_object__find_program_by_name(guard->obj, name);
        POSTERN_TRY(pin(::bpf_program__fd(program), fmt::format("{}/prog_{}", folder, name)));
    }
    const uint32_t zero = 0;
    const postern_about about{POSTERN_GUARD_ABI, sizeof(postern_policy), guard_stamp()};
    if (::bpf_map_update_elem(::bpf_map__fd(guard->maps.about), &zero, &about, BPF_ANY) != 0) {
        const int error = errno;
        return fail_errno(error, "the guard: cannot write its version");
    }
    for (const char* name : kGuardMaps) {
        // The kernel's name for the global variables.
        const bpf_map* map = std::string_view(name) == "state"
                                 ? guard->maps.bss
                                 : ::bpf_object__find_map_by_name(guard->obj, name);
        POSTERN_TRY(pin(::bpf_map__fd(map), fmt::format("{}/map_{}", folder, name)));
    }
    return {};
}

}  // namespace postern
