// SPDX-License-Identifier: Apache-2.0
#include "launcher/seccomp_profile.h"

#include <seccomp.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <cstring>
#include <iterator>
#include <optional>
#include <string>
#include <utility>

#include "broker-core/json_reader.h"
#include "launcher/sandbox_spec.h"

namespace postern {
namespace {

using json = Json;

Status check_keys(const json& object, const std::string& path,
                  std::initializer_list<std::string_view> known) {
    if (!object.is_object()) return fail("{}: is not an object", path);
    for (const auto& [key, value] : object.items()) {
        if (std::find(known.begin(), known.end(), std::string_view(key)) != known.end()) continue;
        std::string list;
        for (const std::string_view each : known) list += (list.empty() ? "" : ", ") + std::string(each);
        return fail("{}: unknown key \"{}\"; known are {}", path, key, list);
    }
    return {};
}

/// The member, or nullptr when it is missing or null (docker's profiles write null for empty lists).
const json* member(const json& object, const char* key) {
    const auto found = object.find(key);
    return found == object.end() || found->is_null() ? nullptr : &*found;
}

Result<std::string> text_of(const json& value, const std::string& path) {
    if (!value.is_string()) return fail("{}: is not a string", path);
    return value.get<std::string>();
}

Result<std::vector<std::string>> texts_of(const json* list, const std::string& path) {
    std::vector<std::string> result;
    if (list == nullptr) return result;
    if (!list->is_array()) return fail("{}: is not a list", path);
    for (std::size_t i = 0; i < list->size(); ++i) {
        POSTERN_ASSIGN(std::string text, text_of((*list)[i], fmt::format("{}[{}]", path, i)));
        result.push_back(std::move(text));
    }
    return result;
}

Result<std::uint64_t> number_of(const json& value, const std::string& path, std::uint64_t limit) {
    if (!value.is_number_unsigned()) return fail("{}: is not a number ≥ 0", path);
    const auto number = value.get<std::uint64_t>();
    if (number > limit) return fail("{}: {} is above {}", path, number, limit);
    return number;
}

/// MAX_ERRNO of the kernel: seccomp(2) cuts what is above.
constexpr std::uint64_t kMaxErrno = 4095;

/// "EPERM" → 1.
Result<std::uint16_t> errno_from_name(const std::string& name, const std::string& path) {
    for (int number = 1; number < 256; ++number) {
        const char* known = ::strerrorname_np(number);
        if (known != nullptr && name == known) return static_cast<std::uint16_t>(number);
    }
    return fail("{}: \"{}\" is not the name of an errno", path, name);
}

/// The errno of an ERRNO action: by number, else by name (podman writes both), else EPERM.
Result<std::uint16_t> read_errno(const json& object, const std::string& path, const char* number_key,
                                 const char* name_key) {
    if (const json* number = member(object, number_key)) {
        POSTERN_ASSIGN(const std::uint64_t value, number_of(*number, path + "." + number_key, kMaxErrno));
        return static_cast<std::uint16_t>(value);
    }
    if (const json* name = member(object, name_key)) {
        const std::string where = path + "." + name_key;
        POSTERN_ASSIGN(const std::string text, text_of(*name, where));
        return errno_from_name(text, where);
    }
    return static_cast<std::uint16_t>(EPERM);
}

Result<SeccompAction> read_action(const json* value, const std::string& path, std::uint16_t errnum) {
    if (value == nullptr) return fail("{}: is missing", path);
    POSTERN_ASSIGN(const std::string name, text_of(*value, path));
    using Kind = SeccompAction::Kind;
    static constexpr std::pair<std::string_view, Kind> known[] = {
        {"SCMP_ACT_ALLOW", Kind::Allow},
        {"SCMP_ACT_LOG", Kind::Log},
        {"SCMP_ACT_ERRNO", Kind::Errno},
        {"SCMP_ACT_TRACE", Kind::Trace},
        {"SCMP_ACT_TRAP", Kind::Trap},
        {"SCMP_ACT_KILL", Kind::KillThread},
        {"SCMP_ACT_KILL_THREAD", Kind::KillThread},
        {"SCMP_ACT_KILL_PROCESS", Kind::KillProcess},
    };
    for (const auto& [text, kind] : known) {
        if (text != name) continue;
        const bool has_value = kind == Kind::Errno || kind == Kind::Trace;
        return SeccompAction{kind, has_value ? errnum : std::uint16_t{0}};
    }
    if (name == "SCMP_ACT_NOTIFY")
        return fail("{}: SCMP_ACT_NOTIFY needs a listener, which postern has not", path);
    return fail(
        "{}: unknown action \"{}\"; known are SCMP_ACT_ALLOW, LOG, ERRNO, TRACE, TRAP, KILL, KILL_THREAD, "
        "KILL_PROCESS",
        path, name);
}

Result<SeccompArgument> read_argument(const json& object, const std::string& path) {
    POSTERN_TRY(check_keys(object, path, {"index", "value", "valueTwo", "op"}));
    using Op = SeccompArgument::Op;
    static constexpr std::pair<std::string_view, Op> known[] = {
        {"SCMP_CMP_NE", Op::NotEqual},           {"SCMP_CMP_LT", Op::Less},
        {"SCMP_CMP_LE", Op::LessEqual},          {"SCMP_CMP_EQ", Op::Equal},
        {"SCMP_CMP_GE", Op::GreaterEqual},       {"SCMP_CMP_GT", Op::Greater},
        {"SCMP_CMP_MASKED_EQ", Op::MaskedEqual},
    };
    SeccompArgument argument;
    for (const char* required : {"index", "value", "op"}) {
        if (member(object, required) == nullptr) return fail("{}.{}: is missing", path, required);
    }
    POSTERN_ASSIGN(const std::uint64_t index, number_of(object["index"], path + ".index", 5));
    argument.index = static_cast<unsigned>(index);
    POSTERN_ASSIGN(argument.value, number_of(object["value"], path + ".value", UINT64_MAX));
    if (const json* two = member(object, "valueTwo")) {
        POSTERN_ASSIGN(argument.value_two, number_of(*two, path + ".valueTwo", UINT64_MAX));
    }
    POSTERN_ASSIGN(const std::string op, text_of(object["op"], path + ".op"));
    for (const auto& [text, value] : known) {
        if (text != op) continue;
        argument.op = value;
        return argument;
    }
    return fail("{}.op: unknown comparison \"{}\"; known are SCMP_CMP_NE, LT, LE, EQ, GE, GT, MASKED_EQ",
                path, op);
}

struct KernelVersion {
    unsigned major = 0;
    unsigned minor = 0;
    std::string_view rest;  ///< what follows
};

/// "6.12.3-amd64" → 6, 12, ".3-amd64".
std::optional<KernelVersion> read_version(std::string_view text) {
    KernelVersion version;
    const char* end = text.data() + text.size();
    const auto [dot, major_error] = std::from_chars(text.data(), end, version.major);
    if (major_error != std::errc{} || dot == end || *dot != '.') return std::nullopt;
    const auto [after, minor_error] = std::from_chars(dot + 1, end, version.minor);
    if (minor_error != std::errc{}) return std::nullopt;
    version.rest = std::string_view(after, static_cast<std::size_t>(end - after));
    return version;
}

/// "4.8" ≤ this kernel's version.
Result<bool> kernel_is_at_least(const std::string& text, const std::string& path,
                                const SeccompConditions& conditions) {
    const auto version = read_version(text);
    if (!version || !version->rest.empty())
        return fail("{}: \"{}\" is not a kernel version such as 4.8", path, text);
    return std::pair(conditions.kernel_major, conditions.kernel_minor) >=
           std::pair(version->major, version->minor);
}

/// docker: a rule is in when all its `includes` hold and none of its `excludes`. Capabilities of includes
/// must all be there, architectures at least one; a single one of excludes is enough.
Result<bool> applies(const json& rule, const std::string& path, const SeccompConditions& conditions) {
    const auto has_capability = [&](const std::string& name) {
        return std::find(conditions.capabilities.begin(), conditions.capabilities.end(), name) !=
               conditions.capabilities.end();
    };
    const auto is_here = [](const std::string& name) { return name == "amd64"; };
    if (const json* includes = member(rule, "includes")) {
        const std::string where = path + ".includes";
        POSTERN_TRY(check_keys(*includes, where, {"caps", "arches", "minKernel"}));
        POSTERN_ASSIGN(const auto caps, texts_of(member(*includes, "caps"), where + ".caps"));
        POSTERN_ASSIGN(const auto arches, texts_of(member(*includes, "arches"), where + ".arches"));
        if (!std::all_of(caps.begin(), caps.end(), has_capability)) return false;
        if (!arches.empty() && std::none_of(arches.begin(), arches.end(), is_here)) return false;
        if (const json* kernel = member(*includes, "minKernel")) {
            POSTERN_ASSIGN(const std::string version, text_of(*kernel, where + ".minKernel"));
            POSTERN_ASSIGN(const bool recent, kernel_is_at_least(version, where + ".minKernel", conditions));
            if (!recent) return false;
        }
    }
    if (const json* excludes = member(rule, "excludes")) {
        const std::string where = path + ".excludes";
        POSTERN_TRY(check_keys(*excludes, where, {"caps", "arches", "minKernel"}));
        POSTERN_ASSIGN(const auto caps, texts_of(member(*excludes, "caps"), where + ".caps"));
        POSTERN_ASSIGN(const auto arches, texts_of(member(*excludes, "arches"), where + ".arches"));
        if (std::any_of(caps.begin(), caps.end(), has_capability)) return false;
        if (std::any_of(arches.begin(), arches.end(), is_here)) return false;
        if (const json* kernel = member(*excludes, "minKernel")) {
            POSTERN_ASSIGN(const std::string version, text_of(*kernel, where + ".minKernel"));
            POSTERN_ASSIGN(const bool recent, kernel_is_at_least(version, where + ".minKernel", conditions));
            if (recent) return false;
        }
    }
    return true;
}

Result<std::vector<std::string>> rule_names(const json& rule, const std::string& path) {
    POSTERN_ASSIGN(std::vector<std::string> names, texts_of(member(rule, "names"), path + ".names"));
    if (const json* name = member(rule, "name")) {
        POSTERN_ASSIGN(std::string text, text_of(*name, path + ".name"));
        names.push_back(std::move(text));
    }
    if (names.empty()) return fail("{}: names no system call", path);
    return names;
}

Status read_rule(const json& rule, const std::string& path, const SeccompConditions& conditions,
                 SeccompProfile& profile) {
    POSTERN_TRY(check_keys(
        rule, path,
        {"name", "names", "action", "errnoRet", "errno", "args", "comment", "includes", "excludes"}));
    POSTERN_ASSIGN(const std::vector<std::string> names, rule_names(rule, path));
    POSTERN_ASSIGN(const std::uint16_t errnum, read_errno(rule, path, "errnoRet", "errno"));
    POSTERN_ASSIGN(const SeccompAction action, read_action(member(rule, "action"), path + ".action", errnum));
    std::vector<SeccompArgument> arguments;
    if (const json* list = member(rule, "args")) {
        if (!list->is_array()) return fail("{}.args: is not a list", path);
        for (std::size_t i = 0; i < list->size(); ++i) {
            POSTERN_ASSIGN(const SeccompArgument argument,
                           read_argument((*list)[i], fmt::format("{}.args[{}]", path, i)));
            arguments.push_back(argument);
        }
    }
    // After everything was read: a mistake in a rule for another machine is still a mistake.
    POSTERN_ASSIGN(const bool in_force, applies(rule, path, conditions));
    for (const std::string& name : names) {
        const auto [kind, number] = find_system_call(name);
        if (kind == SystemCallName::Unknown) profile.unknown_names.push_back(name);
        if (kind != SystemCallName::Here) continue;
        profile.newest_number = std::max(profile.newest_number, number);
        if (in_force) profile.rules.push_back(SeccompRule{name, number, action, arguments});
    }
    return {};
}

/// x86-64 has to be among the architectures if there are any; the others add nothing here.
Status check_architectures(const json& root) {
    constexpr std::string_view here = "SCMP_ARCH_X86_64";
    bool any = false;
    bool found = false;
    POSTERN_ASSIGN(const auto plain, texts_of(member(root, "architectures"), "architectures"));
    for (const std::string& name : plain) {
        any = true;
        found = found || name == here;
    }
    if (const json* map = member(root, "archMap")) {
        if (!map->is_array()) return fail("archMap: is not a list");
        for (std::size_t i = 0; i < map->size(); ++i) {
            const std::string path = fmt::format("archMap[{}]", i);
            POSTERN_TRY(check_keys((*map)[i], path, {"architecture", "subArchitectures"}));
            if (member((*map)[i], "architecture") == nullptr)
                return fail("{}.architecture: is missing", path);
            POSTERN_ASSIGN(const std::string name,
                           text_of((*map)[i]["architecture"], path + ".architecture"));
            POSTERN_ASSIGN(const auto below,
                           texts_of(member((*map)[i], "subArchitectures"), path + ".subArchitectures"));
            any = true;
            found = found || name == here || std::find(below.begin(), below.end(), here) != below.end();
        }
    }
    if (any && !found)
        return fail("architectures: {} is not among them, which is all that postern filters for", here);
    return {};
}

}  // namespace

SeccompConditions seccomp_conditions(const std::vector<unsigned>& capabilities) {
    SeccompConditions conditions;
    for (const unsigned capability : capabilities)
        conditions.capabilities.push_back(capability_name(capability));
    utsname name = {};
    if (::uname(&name) != 0) return conditions;
    if (const auto version = read_version(name.release)) {
        conditions.kernel_major = version->major;
        conditions.kernel_minor = version->minor;
    }
    return conditions;
}

Result<SeccompProfile> parse_seccomp_profile(std::string_view text, const SeccompConditions& conditions) {
    POSTERN_ASSIGN(const json root, parse_json(text));
    POSTERN_TRY(check_keys(root, "top level",
                           {"defaultAction", "defaultErrnoRet", "defaultErrno", "architectures", "archMap",
                            "flags", "syscalls", "comment"}));
    SeccompProfile profile;
    POSTERN_ASSIGN(const std::uint16_t errnum,
                   read_errno(root, "top level", "defaultErrnoRet", "defaultErrno"));
    POSTERN_ASSIGN(profile.default_action,
                   read_action(member(root, "defaultAction"), "defaultAction", errnum));
    POSTERN_TRY(check_architectures(root));
    POSTERN_ASSIGN(const auto flags, texts_of(member(root, "flags"), "flags"));
    for (std::size_t i = 0; i < flags.size(); ++i) {
        // The filter is installed by a process with one thread; the mitigation flag changes nothing since
        // Linux 5.16.
        if (flags[i] != "SECCOMP_FILTER_FLAG_TSYNC" && flags[i] != "SECCOMP_FILTER_FLAG_SPEC_ALLOW") {
            return fail("flags[{}]: \"{}\" is not supported", i, flags[i]);
        }
    }
    if (const json* rules = member(root, "syscalls")) {
        if (!rules->is_array()) return fail("syscalls: is not a list");
        for (std::size_t i = 0; i < rules->size(); ++i) {
            POSTERN_TRY(read_rule((*rules)[i], fmt::format("syscalls[{}]", i), conditions, profile));
        }
    }
    return profile;
}

}  // namespace postern
