// SPDX-License-Identifier: Apache-2.0
#include "launcher/launch_root.h"

#include <elf.h>
#include <fcntl.h>
#include <seccomp.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <memory>

#include "broker-core/file.h"
#include "broker-core/json_reader.h"
#include "broker-core/unique_fd.h"
#include "launcher/seccomp_filter.h"

namespace postern {
namespace {

namespace fs = std::filesystem;

constexpr size_t kMaxBytes = 16 << 20;
/// What a dynamic program of the C library alone needs. The second is where the first looks for it.
constexpr const char* kPrograms[] = {"/bin/true", "/bin/sleep"};

Status write_text(const std::string& path, std::string_view text) {
    std::ofstream file(path, std::ios::binary);
    file << text;
    file.close();
    if (!file) return fail("cannot write {}", path);
    return {};
}

/// The program interpreter that an ELF file names, "" for a static one.
std::string interpreter_of(const std::string& elf) {
    Elf64_Ehdr header = {};
    if (elf.size() < sizeof header) return {};
    std::memcpy(&header, elf.data(), sizeof header);
    for (unsigned i = 0; i < header.e_phnum; ++i) {
        Elf64_Phdr part = {};
        const size_t at = header.e_phoff + i * sizeof part;
        if (at + sizeof part > elf.size()) return {};
        std::memcpy(&part, elf.data() + at, sizeof part);
        if (part.p_type == PT_INTERP && part.p_offset + part.p_filesz <= elf.size())
            return std::string(elf.data() + part.p_offset);  // ends with a NUL in the file
    }
    return {};
}

/// libc.so.6 as this machine's loader finds it for its own programs.
std::string c_library() {
    for (const char* folder : {"/lib/x86_64-linux-gnu", "/usr/lib64", "/lib64", "/usr/lib"}) {
        std::error_code code;
        std::string file = fmt::format("{}/libc.so.6", folder);
        if (fs::exists(file, code)) return file;
    }
    return {};
}

Status copy_in(const std::string& root, const std::string& path) {
    std::error_code code;
    const std::string target = root + path;
    fs::create_directories(fs::path(target).parent_path(), code);
    fs::copy_file(path, target, fs::copy_options::overwrite_existing, code);
    if (code) return fail("cannot copy {} to {}: {}", path, target, code.message());
    return {};
}

const char* oci_action(const SeccompAction& action) {
    return action.kind == SeccompAction::Kind::Allow ? "SCMP_ACT_ALLOW" : nullptr;
}

Json oci_seccomp(const SeccompProfile& profile) {
    Json names = Json::array();
    for (const SeccompRule& rule : profile.rules) {
        if (rule.arguments.empty() && oci_action(rule.action) != nullptr) names.push_back(rule.name);
    }
    return {{"defaultAction", "SCMP_ACT_ERRNO"},
            {"architectures", {"SCMP_ARCH_X86_64"}},
            {"syscalls", {{{"names", names}, {"action", "SCMP_ACT_ALLOW"}}}}};
}

std::string kafel_policy(const SeccompProfile& profile) {
    std::string list;
    for (const SeccompRule& rule : profile.rules) {
        if (!rule.arguments.empty() || oci_action(rule.action) == nullptr) continue;
        list += fmt::format("{}SYSCALL[{}]", list.empty() ? "" : ", ", rule.number);
    }
    return fmt::format("ALLOW {{ {} }} DEFAULT ERRNO(1)\n", list);
}

/// The calls that are allowed whatever their arguments, as in the policies above.
Status write_library_filter(const SeccompProfile& profile, const std::string& path) {
    const std::unique_ptr<void, decltype(&::seccomp_release)> context(::seccomp_init(SCMP_ACT_ERRNO(EPERM)),
                                                                      &::seccomp_release);
    // The binary tree, which is installed faster than its linear shape.
    if (!context || ::seccomp_attr_set(context.get(), SCMP_FLTATR_CTL_OPTIMIZE, 2) != 0)
        return fail("libseccomp cannot begin a filter");
    for (const SeccompRule& rule : profile.rules) {
        if (!rule.arguments.empty() || oci_action(rule.action) == nullptr) continue;
        const int result = ::seccomp_rule_add_array(context.get(), SCMP_ACT_ALLOW, rule.number, 0, nullptr);
        if (result != 0 && result != -EEXIST) return fail_errno(-result, "libseccomp: {}", rule.name);
    }
    const UniqueFd file(::open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644));
    const int error = errno;
    if (!file) return fail_errno(error, "cannot write {}", path);
    const int result = ::seccomp_export_bpf(context.get(), file.get());
    return result == 0 ? Status{} : fail_errno(-result, "libseccomp: writing {}", path);
}

}  // namespace

Result<LaunchRoot> LaunchRoot::create() {
    std::string folder = fs::temp_directory_path().string() + "/postern-bench-XXXXXX";
    if (::mkdtemp(folder.data()) == nullptr) {
        const int error = errno;
        return fail_errno(error, "cannot make {}", folder);
    }
    LaunchRoot root(folder);
    POSTERN_TRY(root.fill());
    return root;
}

LaunchRoot::~LaunchRoot() {
    std::error_code code;
    if (!folder_.empty()) fs::remove_all(folder_, code);
}

Status LaunchRoot::fill() {
    const std::string profile_file = program_prefix() + "/share/postern/profiles/seccomp/default.json";
    POSTERN_ASSIGN(const std::string text, read_file(profile_file, kMaxBytes));
    auto parsed = parse_seccomp_profile(text, seccomp_conditions({}));
    if (!parsed) return propagate(std::move(parsed), profile_file);
    profile_ = std::move(*parsed);
    POSTERN_ASSIGN(const auto program, compile_seccomp_filter(profile_));
    POSTERN_TRY(write_text(
        filter(), {reinterpret_cast<const char*>(program.data()), program.size() * sizeof program[0]}));
    POSTERN_TRY(write_text(kafel(), kafel_policy(profile_)));
    POSTERN_TRY(write_library_filter(profile_, library_filter()));

    const std::string library = c_library();
    if (library.empty()) return fail("there is no libc.so.6 to be put into the measured root");
    POSTERN_TRY(copy_in(root(), library));
    for (const char* path : kPrograms) {
        POSTERN_ASSIGN(const std::string elf, read_file(path, kMaxBytes));
        POSTERN_TRY(copy_in(root(), path));
        if (const std::string interpreter = interpreter_of(elf); !interpreter.empty())
            POSTERN_TRY(copy_in(root(), interpreter));
    }
    std::error_code code;
    for (const char* name : {"/proc", "/tmp"}) fs::create_directories(root() + name, code);
    // The client is somebody else in there.
    for (const std::string& path : {folder_, bundle(), root()}) ::chmod(path.c_str(), 0755);
    return {};
}

Status LaunchRoot::write_bundle(const std::vector<std::string>& command) const {
    const Json none = Json::array();
    const auto mapping = Json::array({{{"containerID", 65534}, {"hostID", 65534}, {"size", 1}}});
    Json spaces = Json::array();
    for (const char* each : {"user", "pid", "mount", "network", "ipc", "uts", "cgroup"})
        spaces.push_back({{"type", each}});
    const Json config = {{"ociVersion", "1.0.2"},
                         {"hostname", "postern"},
                         {"root", {{"path", "rootfs"}, {"readonly", true}}},
                         {"process",
                          {{"terminal", false},
                           {"user", {{"uid", 65534}, {"gid", 65534}}},
                           {"args", command},
                           {"env", {"PATH=/usr/bin:/bin"}},
                           {"cwd", "/"},
                           {"noNewPrivileges", true},
                           {"capabilities",
                            {{"bounding", none},
                             {"effective", none},
                             {"permitted", none},
                             {"inheritable", none},
                             {"ambient", none}}}}},
                         {"mounts",
                          {{{"destination", "/proc"}, {"type", "proc"}, {"source", "proc"}},
                           {{"destination", "/tmp"},
                            {"type", "tmpfs"},
                            {"source", "tmpfs"},
                            {"options", {"nosuid", "nodev"}}}}},
                         {"linux",
                          {{"namespaces", spaces},
                           {"uidMappings", mapping},
                           {"gidMappings", mapping},
                           {"seccomp", oci_seccomp(profile_)}}}};
    return write_text(bundle() + "/config.json", config.dump(2));
}

}  // namespace postern
