// SPDX-License-Identifier: Apache-2.0
#include "broker-core/guard_event.h"

#include <fmt/format.h>
#include <seccomp.h>
#include <sys/syscall.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "bpf/verdict.h"
#include "broker-core/boot_clock.h"
#include "broker-core/device_info.h"
#include "broker-core/ioctl_table.h"
#include "broker-core/profile.h"

namespace postern {
namespace {

/// VFIO_PCI_OFFSET_SHIFT of the kernel's drivers/vfio: which region a file offset of a device lies in.
constexpr unsigned kRegionShift = 40;
constexpr uint64_t kRegionMask = (1ULL << kRegionShift) - 1;

struct Verdict {
    int32_t value;
    std::string_view name;
    std::string_view words;
};
constexpr Verdict kVerdicts[] = {
    {POSTERN_DENY_SYSCALL, "system-call", "this system call is never allowed on a guarded file"},
    {POSTERN_DENY_COMMAND, "command", "the profile does not grant this command"},
    {POSTERN_DENY_COMPAT, "compat", "32-bit system calls are never allowed on a guarded file"},
    {POSTERN_DENY_FLAGS, "flags", "only MAP_SHARED is allowed, with flags that do not change what is mapped"},
    {POSTERN_DENY_PROT, "protection", "a mapping may be readable and writable, nothing else"},
    {POSTERN_DENY_RANGE, "range", "it does not lie inside one window that allows this access in this way"},
    {POSTERN_DENY_TASK, "task", "kernel threads, and tasks that use io_uring, may not do this"},
    {POSTERN_DENY_RECEIVER, "receiver", "the profile does not let this process receive the file"},
    {POSTERN_DENY_MASK, "mask", "it is neither exactly a read nor exactly a write"},
    {POSTERN_DENY_HOOK, "hook", "the guard does not know this operation"},
    {POSTERN_DENY_REVOKED, "revoked", "the grant was revoked"},
    {POSTERN_DENY_UNSEALED, "unsealed", "its argument block is not sealed: somebody could still change it"},
    {POSTERN_DENY_ARGUMENT, "argument", "its argument block fits no rule of the profile"},
    {POSTERN_DENY_SHARE, "share",
     "the device has one open file for all, and this process is in no sandbox that has a part in it"},
    {POSTERN_DENY_TRACE, "trace", "nobody in a sandbox may look into a process that owns devices"},
    {POSTERN_DENY_STRAY, "stray",
     "in a sandbox only the granted open file of a device may be used, not another"},
};

const Verdict* find_verdict(int32_t value) {
    const auto* found = std::find_if(std::begin(kVerdicts), std::end(kVerdicts),
                                     [value](const Verdict& each) { return each.value == value; });
    return found == std::end(kVerdicts) ? nullptr : found;
}

/// A process chooses its name: no control characters for the reader's terminal, valid UTF-8 for JSON.
std::string printable(std::string_view text) {
    std::string safe;
    for (const char each : text) {
        const auto byte = static_cast<unsigned char>(each);
        safe += byte >= 0x20 && byte < 0x7f && byte != '\\' ? std::string(1, each)
                                                            : fmt::format("\\x{:02x}", byte);
    }
    return safe;
}

template <size_t Size>
std::string text_of(const char (&field)[Size]) {
    return printable(std::string_view(field, ::strnlen(field, Size)));
}

std::optional<std::string> system_call_name(uint64_t nr, uint32_t architecture) {
    if (nr > 0xffff) return std::nullopt;
    const std::unique_ptr<char, void (*)(void*)> name(
        ::seccomp_syscall_resolve_num_arch(architecture, static_cast<int>(nr)), std::free);
    return name ? std::optional<std::string>(name.get()) : std::nullopt;
}

/// The system call, where the event tells it.
std::optional<std::string> system_call(const postern_event& event) {
    const bool has_registers = event.hook == POSTERN_HOOK_IOCTL || event.hook == POSTERN_HOOK_MMAP ||
                               event.hook == POSTERN_HOOK_ACCESS;
    // The saved registers of a kernel thread are not those of a system call in progress.
    if (!has_registers || event.verdict == POSTERN_DENY_TASK) return std::nullopt;
    const bool compat = event.verdict == POSTERN_DENY_COMPAT;
    const auto name = system_call_name(event.nr, compat ? SCMP_ARCH_X86 : SCMP_ARCH_X86_64);
    const std::string known = name ? *name : fmt::format("system call {}", event.nr);
    return compat ? known + " (32-bit)" : known;
}

bool is_vfio(const postern_event& event) {
    return (event.flags & POSTERN_POLICY_EXCLUSIVE) != 0;
}

/// What the number means: on a device's registered file the device's ioctl; a stray may be a group or a
/// container, and another file anything, where the same number can mean something else.
std::vector<const IoctlEntry*> meanings(const postern_event& event) {
    const bool registered = event.grant[0] != '\0';
    if (registered && is_vfio(event)) {
        if (const IoctlEntry* entry = find_ioctl(IoctlFile::Device, event.cmd)) return {entry};
    }
    std::vector<const IoctlEntry*> found;
    for (const IoctlEntry& entry : known_ioctls()) {
        if (entry.number == event.cmd) found.push_back(&entry);
    }
    return found;
}

std::string command_name(const postern_event& event) {
    if (event.cmd == POSTERN_IOC_RESTRICT) return "POSTERN_IOC_RESTRICT";
    std::string names;
    for (const IoctlEntry* entry : meanings(event)) {
        names += fmt::format("{}{}", names.empty() ? "" : " or ", entry->name);
    }
    return names.empty() ? fmt::format("{:#x}", event.cmd) : names;
}

std::span<const uint8_t> block_of(const postern_event& event) {
    return {event.block, std::min<size_t>(event.block_length, sizeof event.block)};
}

bool takes_block(const IoctlEntry& entry) {
    return entry.argument == Argument::Block || entry.argument == Argument::BlockTwice ||
           entry.argument == Argument::Answer;
}

/// " {index=msix start=0x1}", or why there is nothing to show.
std::string block_words(const postern_event& event) {
    const auto entries = meanings(event);
    if (entries.size() != 1 || !takes_block(*entries[0])) return "";
    const auto block = block_of(event);
    if (block.empty()) return " (its argument block cannot be read)";
    const std::string fields = describe_block(*entries[0], block);
    return fields.empty() ? "" : fmt::format(" {{{}}}", fields);
}

std::string ioctl_words(const postern_event& event) {
    if (event.hook == POSTERN_HOOK_IOCTL_COMPAT || event.verdict == POSTERN_DENY_COMPAT) {
        // A 32-bit block is laid out in another way.
        return fmt::format("32-bit ioctl {}", command_name(event));
    }
    if (event.verdict == POSTERN_DENY_TASK) return fmt::format("ioctl {} by io_uring", command_name(event));
    return fmt::format("ioctl {}{}", command_name(event), block_words(event));
}

std::string protection_words(uint64_t protection) {
    std::string letters;
    if ((protection & 1) != 0) letters += 'r';
    if ((protection & 2) != 0) letters += 'w';
    if ((protection & 4) != 0) letters += 'x';
    const uint64_t other = protection & ~7ULL;
    if (other != 0) letters += fmt::format("{}{:#x}", letters.empty() ? "" : "|", other);
    return letters.empty() ? "none" : letters;
}

/// Where the call would have been in the file, if the event tells.
struct FileRange {
    uint64_t offset;
    uint64_t length;
};

/// A vma's offset is not the place in the file on every kernel (see postern_range): the windows know.
std::optional<FileRange> mapped_range(const postern_event& event, const postern_policy* policy) {
    if (policy == nullptr) return std::nullopt;
    constexpr uint64_t kInPage = POSTERN_PAGE_SIZE - 1;
    bool same = true;
    for (uint32_t i = 0; i < std::min<uint32_t>(policy->n_windows, POSTERN_MAX_WINDOWS); ++i) {
        const postern_range& window = policy->windows[i];
        if ((window.flags & POSTERN_WINDOW_MMAP) == 0) continue;
        const uint64_t start = window.offset & ~kInPage;
        const uint64_t pages = ((window.offset & kInPage) + window.length + kInPage) & ~kInPage;
        if (event.offset >= window.vma_offset && event.offset - window.vma_offset < pages) {
            return FileRange{start + (event.offset - window.vma_offset), event.length};
        }
        same = same && window.vma_offset == start;
    }
    return same ? std::optional<FileRange>(FileRange{event.offset, event.length}) : std::nullopt;
}

std::optional<FileRange> file_range(const postern_event& event, const EventContext& context) {
    if (event.verdict == POSTERN_DENY_COMPAT || event.verdict == POSTERN_DENY_TASK) return std::nullopt;
    switch (event.hook) {
        case POSTERN_HOOK_MMAP:
            // Other system calls have other things in these registers.
            if (event.nr != POSTERN_NR_MMAP) return std::nullopt;
            break;
        case POSTERN_HOOK_ACCESS:
            if (event.nr != POSTERN_NR_PREAD64 && event.nr != POSTERN_NR_PWRITE64) return std::nullopt;
            break;
        case POSTERN_HOOK_MPROTECT:
            return mapped_range(event, context.policy);
        default:
            return std::nullopt;
    }
    return FileRange{event.offset, event.length};
}

/// "bar4+0x3000" of an offset of a VFIO device file.
std::string place_words(const postern_event& event, uint64_t offset) {
    const uint64_t region = offset >> kRegionShift;
    if (!is_vfio(event) || region >= kRegions) return fmt::format("file offset {:#x}", offset);
    return fmt::format("{}+{:#x}", region_name(static_cast<uint32_t>(region)), offset & kRegionMask);
}

std::string range_words(const postern_event& event, const std::optional<FileRange>& range) {
    if (!range) return "";
    return fmt::format(" of {} bytes at {}", range->length, place_words(event, range->offset));
}

std::string_view operation_name(uint32_t hook) {
    switch (hook) {
        case POSTERN_HOOK_IOCTL:
        case POSTERN_HOOK_IOCTL_COMPAT:
            return "ioctl";
        case POSTERN_HOOK_MMAP:
            return "mmap";
        case POSTERN_HOOK_MPROTECT:
            return "mprotect";
        case POSTERN_HOOK_ACCESS:
            return "access";
        case POSTERN_HOOK_RECEIVE:
            return "receive";
        case POSTERN_HOOK_TRACE:
            return "trace";
        default:
            return "unknown";
    }
}

std::string access_words(const postern_event& event, const EventContext& context) {
    const auto name = system_call(event);
    const std::string what = name ? *name : (event.access & POSTERN_MAY_WRITE) != 0 ? "a write" : "a read";
    return what + range_words(event, file_range(event, context));
}

template <typename T>
Json or_null(const std::optional<T>& value) {
    return value ? Json(*value) : Json(nullptr);
}

Json ioctl_to_json(const postern_event& event) {
    Json call{{"number", event.cmd}, {"name", nullptr}, {"fields", nullptr}, {"block", nullptr}};
    const auto entries = meanings(event);
    if (!entries.empty() || event.cmd == POSTERN_IOC_RESTRICT) call["name"] = command_name(event);
    const auto block = block_of(event);
    if (block.empty()) return call;
    std::string digits;
    for (const uint8_t byte : block) digits += fmt::format("{:02x}", byte);
    call["block"] = digits;
    if (entries.size() != 1 || !takes_block(*entries[0])) return call;
    Json fields = Json::object();
    for (const IoctlField& field : entries[0]->fields) {
        if (static_cast<size_t>(field.offset) + field.width > block.size()) continue;
        uint64_t value = 0;
        std::memcpy(&value, block.data() + field.offset, field.width);
        fields[std::string(field.name)] = value;
    }
    call["fields"] = std::move(fields);
    return call;
}

}  // namespace

std::string_view verdict_name(int32_t verdict) {
    const Verdict* found = find_verdict(verdict);
    return found != nullptr ? found->name : "unknown";
}

std::string_view verdict_words(int32_t verdict) {
    const Verdict* found = find_verdict(verdict);
    return found != nullptr ? found->words : "for a reason that this postern does not know";
}

std::string describe_call(const postern_event& event, const EventContext& context) {
    switch (event.hook) {
        case POSTERN_HOOK_IOCTL:
        case POSTERN_HOOK_IOCTL_COMPAT:
            return ioctl_words(event);
        case POSTERN_HOOK_MMAP:
            return fmt::format("{} {}{}", system_call(event).value_or("a mapping"),
                               protection_words(event.access),
                               range_words(event, file_range(event, context)));
        case POSTERN_HOOK_MPROTECT: {
            const auto range = file_range(event, context);
            return fmt::format("mprotect to {} of {} mapped bytes{}", protection_words(event.access),
                               event.length, range ? " at " + place_words(event, range->offset) : "");
        }
        case POSTERN_HOOK_ACCESS:
            return access_words(event, context);
        case POSTERN_HOOK_RECEIVE:
            return "receiving the file (SCM_RIGHTS, pidfd_getfd)";
        case POSTERN_HOOK_TRACE:
            return "looking into an owner of devices (ptrace, pidfd_getfd, process_vm_readv)";
        default:
            return fmt::format("an operation that this postern does not know (hook {})", event.hook);
    }
}

std::string describe_event(const postern_event& event, const EventContext& context) {
    std::string line = utc_text(static_cast<int64_t>(event.time) + context.realtime_ahead);
    if (event.grant[0] != '\0') {
        line += fmt::format(" grant {}", text_of(event.grant));
        if (context.policy != nullptr) {
            line += fmt::format(" ({} slice {})", text_of(context.policy->device), context.policy->slice);
        }
    } else {
        line += fmt::format(" sandbox {}", event.sandbox);
    }
    line += fmt::format(" {}[{}]: refused: {}: {}", text_of(event.comm), event.pid,
                        describe_call(event, context), verdict_words(event.verdict));
    if (event.untold != 0) line += fmt::format(" ({} before it were only counted)", event.untold);
    return line;
}

Json event_to_json(const postern_event& event, const EventContext& context) {
    const bool registered = event.grant[0] != '\0';
    const postern_policy* policy = registered ? context.policy : nullptr;
    Json json{{"time", utc_text(static_cast<int64_t>(event.time) + context.realtime_ahead)},
              {"boottime_ns", event.time},
              {"grant", registered ? Json(text_of(event.grant)) : Json(nullptr)},
              {"device", policy != nullptr ? Json(text_of(policy->device)) : Json(nullptr)},
              {"profile", policy != nullptr ? Json(text_of(policy->profile)) : Json(nullptr)},
              {"slice", policy != nullptr ? Json(policy->slice) : Json(nullptr)},
              {"sandbox", event.sandbox != 0 ? Json(event.sandbox) : Json(nullptr)},
              {"pid", event.pid},
              {"tid", event.tid},
              {"comm", text_of(event.comm)},
              {"operation", operation_name(event.hook)},
              {"system_call", or_null(system_call(event))},
              {"call", describe_call(event, context)},
              {"reason", verdict_name(event.verdict)},
              {"explanation", verdict_words(event.verdict)},
              {"untold", event.untold}};
    if (event.hook == POSTERN_HOOK_IOCTL || event.hook == POSTERN_HOOK_IOCTL_COMPAT) {
        json["ioctl"] = ioctl_to_json(event);
    }
    if (const auto range = file_range(event, context)) {
        json["offset"] = range->offset;
        json["length"] = range->length;
        const uint64_t region = range->offset >> kRegionShift;
        if (is_vfio(event) && region < kRegions) {
            json["region"] = region_name(static_cast<uint32_t>(region));
            json["region_offset"] = range->offset & kRegionMask;
        }
    }
    if (event.hook == POSTERN_HOOK_MMAP || event.hook == POSTERN_HOOK_MPROTECT) {
        json["protection"] = protection_words(event.access);
    }
    if (event.hook == POSTERN_HOOK_ACCESS) {
        const bool reads = (event.access & POSTERN_MAY_READ) != 0;
        const bool writes = (event.access & POSTERN_MAY_WRITE) != 0;
        json["access"] = std::string(reads ? "r" : "") + (writes ? "w" : "");
    }
    return json;
}

}  // namespace postern
