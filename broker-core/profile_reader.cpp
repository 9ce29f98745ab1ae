// SPDX-License-Identifier: Apache-2.0
#include "broker-core/profile_reader.h"

#include <algorithm>
#include <array>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <sstream>

#include "broker-core/file.h"
#include "broker-core/ioctl_rule.h"
#include "broker-core/pci.h"
#include "broker-core/quantity.h"

namespace postern {
namespace {

/// What the guard's policy has room for (bpf/policy.h); asserted against it where the policy is made.
constexpr size_t kMaxWindows = 32;
constexpr size_t kMaxIoctls = 64;
constexpr size_t kMaxFiles = 64;
constexpr size_t kMaxIncludeDepth = 16;
constexpr size_t kMaxProfileBytes = 1 << 20;

/// Names become LISTEN_FDNAMES entries ("dma.ring.0"), where ':' separates fds and '.' our own parts.
bool valid_name(std::string_view name) {
    return !name.empty() && name.size() <= 48 && std::all_of(name.begin(), name.end(), [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') || c == '_' ||
               c == '-';
    });
}

template <typename T>
std::string read_name(ObjectReader& reader, const std::vector<T>& others) {
    std::string name = reader.string("name", true);
    if (reader.failed() || (name.empty() && reader.reading().partial)) return name;
    if (!valid_name(name)) {
        reader.set_error(reader.path_of("name"),
                         fmt::format("\"{}\" is no name; use 1 to 48 letters, digits, '-' and '_'", name));
    }
    for (const T& other : others) {
        if (other.name == name)
            reader.set_error(reader.path_of("name"), fmt::format("\"{}\" stands twice", name));
    }
    return name;
}

Stepped read_stepped(ObjectReader& reader, std::string_view key, bool required) {
    const Json* value = reader.find(key, required);
    Stepped stepped;
    if (value == nullptr) return stepped;
    if (value->is_object()) {
        ObjectReader inner(*value, reader.path_of(key), reader.reading());
        stepped.base = inner.integer("base", true).value_or(0);
        stepped.stride = inner.integer("stride", true).value_or(0);
        inner.finish();
        return stepped;
    }
    if (const auto number = json_integer(*value)) {
        stepped.base = *number;
    } else {
        reader.set_error(reader.path_of(key),
                         fmt::format("{}, or {{ \"base\": …, \"stride\": … }}", number.error().message));
    }
    return stepped;
}

Access read_access(ObjectReader& reader) {
    const size_t choice = reader.choice("access", {"r", "w", "rw"}, 2);
    return {choice != 1, choice != 0};
}

std::optional<uint16_t> read_pci_id(ObjectReader& reader, std::string_view key) {
    const auto value = reader.integer(key);
    if (!value) return std::nullopt;
    if (*value > 0xffff) {
        reader.set_error(reader.path_of(key), fmt::format("{:#x} is no PCI id; they have 16 bits", *value));
        return std::nullopt;
    }
    return static_cast<uint16_t>(*value);
}

enum class WindowOf { Device, File };

Window read_window(const Json& value, const std::string& path, JsonReading& reading,
                   const std::vector<Window>& others, WindowOf of) {
    ObjectReader reader(value, path, reading);
    Window window;
    window.name = read_name(reader, others);
    if (const std::string region = of == WindowOf::Device ? reader.string("region", true) : "";
        !region.empty()) {
        if (const auto index = region_index(region)) {
            window.region = *index;
        } else {
            reader.set_error(reader.path_of("region"),
                             fmt::format("\"{}\" is no region; use bar0 to bar5, rom or config", region));
        }
    }
    window.offset = read_stepped(reader, "offset", true);
    window.length = reader.integer("length", true).value_or(0);
    window.access = read_access(reader);
    window.shared_page = reader.boolean("shared_page", false);
    bool any = false;
    reader.each("methods", [&](const Json& method, const std::string& where) {
        any = true;
        if (method == "mmap") {
            window.by_mmap = true;
        } else if (method == "dmabuf" && of == WindowOf::Device) {
            window.by_dmabuf = true;
        } else if (method == "pread") {
            window.by_pread = true;
        } else {
            reader.set_error(where, fmt::format("{} is not one of \"mmap\", {}\"pread\"", method.dump(),
                                                of == WindowOf::Device ? "\"dmabuf\", " : ""));
        }
    });
    if (reader.find("methods") == nullptr) {
        window.by_mmap = true;  // what a client nearly always wants
    } else if (!any) {
        reader.set_error(reader.path_of("methods"),
                         fmt::format("is empty: the window could not be used; list mmap, {}or pread",
                                     of == WindowOf::Device ? "dmabuf " : ""));
    }
    reader.finish();
    return window;
}

std::vector<ProgramLine> read_programs(ObjectReader& reader, std::string_view key) {
    std::vector<ProgramLine> programs;
    reader.each(key, [&](const Json& element, const std::string& where) {
        ProgramLine line;
        if (element.is_string()) {
            line.push_back(element.get<std::string>());
        } else if (element.is_array()) {
            for (const Json& word : element) {
                if (!word.is_string())
                    reader.set_error(where, "must hold strings: the program and its arguments");
                if (word.is_string()) line.push_back(word.get<std::string>());
            }
        } else {
            reader.set_error(where,
                             fmt::format("must be a program, or an array of program and arguments, and is {}",
                                         json_type(element)));
        }
        if (line.empty() || line[0].empty()) reader.set_error(where, "names no program");
        for (const std::string& word : line) {
            if (word.find('\0') != std::string::npos)
                reader.set_error(where, "must not hold a NUL character");
        }
        programs.push_back(std::move(line));
    });
    return programs;
}

/// What the guard can hold of one file.
template <typename T>
void read_policy(ObjectReader& reader, T& file, WindowOf of) {
    JsonReading& reading = reader.reading();
    reader.each("windows", [&](const Json& element, const std::string& path) {
        file.windows.push_back(read_window(element, path, reading, file.windows, of));
    });
    if (file.windows.size() > kMaxWindows) {
        reader.set_error(reader.path_of("windows"),
                         fmt::format("{} windows; the guard holds {}", file.windows.size(), kMaxWindows));
    }
    reader.each("ioctls", [&](const Json& element, const std::string& path) {
        file.ioctls.push_back(
            read_ioctl(element, path, reading,
                       of == WindowOf::Device ? std::optional(IoctlFile::Device) : std::nullopt));
    });
    if (file.ioctls.size() > kMaxIoctls) {
        reader.set_error(reader.path_of("ioctls"),
                         fmt::format("{} ioctls; the guard holds {}", file.ioctls.size(), kMaxIoctls));
    }
    file.forward = static_cast<Forward>(reader.choice("forward", {"sandbox", "never", "anyone"}, 0));
}

FileProfile read_file_entry(const Json& value, const std::string& path, JsonReading& reading,
                            const std::vector<FileProfile>& others) {
    ObjectReader reader(value, path, reading);
    FileProfile file;
    file.name = read_name(reader, others);
    file.path = reader.string("path");
    // A number or a name.
    if (const Json* fd = reader.find("fd"); fd != nullptr && fd->is_number_unsigned()) {
        file.fd = fd->dump();
    } else if (fd != nullptr) {
        file.fd = reader.string("fd");
    }
    if (!reader.failed() && file.path.empty() == file.fd.empty()) {
        reader.set_error(path,
                         "needs one of \"path\" (a character device, opened for each client) and \"fd\" (a "
                         "name of LISTEN_FDNAMES or a number), and not both");
    }
    if (!file.path.empty() && (!file.path.starts_with('/') || file.path.find('\0') != std::string::npos)) {
        reader.set_error(reader.path_of("path"), fmt::format("\"{}\" is not an absolute path", file.path));
    }
    if (!file.fd.empty() && reader.find("access") != nullptr) {
        reader.set_error(reader.path_of("access"),
                         "is only for \"path\": an fd is open already; limit it by its windows");
    }
    file.access = read_access(reader);
    read_policy(reader, file, WindowOf::File);
    reader.finish();
    return file;
}

DeviceProfile read_device(ObjectReader& reader) {
    DeviceProfile device;
    JsonReading& reading = reader.reading();
    reader.object("match", [&](ObjectReader& match) {
        device.match = {read_pci_id(match, "vendor"), read_pci_id(match, "device"),
                        read_pci_id(match, "subsystem_vendor"), read_pci_id(match, "subsystem_device")};
    });
    read_policy(reader, device, WindowOf::Device);
    reader.each("dma", [&](const Json& element, const std::string& path) {
        ObjectReader dma(element, path, reading);
        DmaMemory memory;
        memory.name = read_name(dma, device.dma);
        memory.size = dma.integer("size", true).value_or(0);
        memory.iova = read_stepped(dma, "iova", true);
        memory.access = read_access(dma);
        memory.hugepages =
            static_cast<DmaMemory::HugePages>(dma.choice("hugepages", {"auto", "never", "require"}, 0));
        dma.finish();
        device.dma.push_back(std::move(memory));
    });
    reader.object("dma_map", [&](ObjectReader& own) {
        DmaMap& map = device.dma_map.emplace();
        map.size = own.integer("size", true).value_or(0);
        map.iova = read_stepped(own, "iova", true);
        map.access = read_access(own);
    });
    reader.each("peers", [&](const Json& element, const std::string& path) {
        ObjectReader entry(element, path, reading);
        PeerMapping peer;
        peer.window = entry.string("window", true);
        peer.device = entry.string("device", true);
        if (!entry.failed()) {
            if (auto bdf = parse_bdf(peer.device); bdf) {
                peer.device = std::move(*bdf);
            } else {
                entry.set_error(entry.path_of("device"), bdf.error().message);
            }
        }
        peer.iova = read_stepped(entry, "iova", true);
        peer.access = read_access(entry);
        entry.finish();
        device.peers.push_back(std::move(peer));
    });
    reader.each("irqs", [&](const Json& element, const std::string& path) {
        ObjectReader entry(element, path, reading);
        Irq irq;
        irq.name = read_name(entry, device.irqs);
        if (const Json* index = entry.find("index", true); index != nullptr) {
            constexpr std::array<std::string_view, 5> kNames{"intx", "msi", "msix", "err", "req"};
            const auto named = index->is_string() ? std::find(kNames.begin(), kNames.end(),
                                                              index->get_ref<const std::string&>())
                                                  : kNames.end();
            if (named != kNames.end()) {
                irq.index = static_cast<uint32_t>(named - kNames.begin());
            } else if (index->is_number_unsigned() && index->get<uint64_t>() < kNames.size()) {
                irq.index = index->get<uint32_t>();
            } else {
                entry.set_error(entry.path_of("index"),
                                fmt::format("{} is not one of \"intx\", \"msi\", \"msix\", \"err\", \"req\"",
                                            index->dump()));
            }
        }
        irq.vector = read_stepped(entry, "vector", false);
        entry.finish();
        device.irqs.push_back(std::move(irq));
    });
    const auto programs = [&](std::string_view key, Programs& into) {
        reader.object(key, [&](ObjectReader& inner) {
            into.device = read_programs(inner, "device");
            into.slice = read_programs(inner, "slice");
        });
    };
    programs("setup", device.setup);
    programs("teardown", device.teardown);
    device.reset = static_cast<Reset>(reader.choice("reset", {"never", "before", "after", "both"}, 0));
    return device;
}

void read_rlimit(ObjectReader& reader, const std::string& key, SandboxProfile& sandbox) {
    const Json* value = reader.find(key);
    if (value == nullptr) return;
    const auto one = [&](const Json& limit) -> uint64_t {
        if (limit == "unlimited") return UINT64_MAX;
        const auto number = json_integer(limit);
        if (!number) reader.set_error(reader.path_of(key), number.error().message);
        return number.value_or(0);
    };
    std::pair<uint64_t, uint64_t> limits;
    if (value->is_array() && value->size() == 2) {
        limits = {one((*value)[0]), one((*value)[1])};
    } else if (value->is_array()) {
        reader.set_error(reader.path_of(key), "must be [soft, hard] or one number for both");
    } else {
        limits.first = limits.second = one(*value);
    }
    if (limits.first > limits.second) {
        reader.set_error(reader.path_of(key), fmt::format("the soft limit {} is above the hard limit {}",
                                                          limits.first, limits.second));
    }
    sandbox.rlimits[key] = limits;
}

std::optional<std::chrono::milliseconds> read_duration(ObjectReader& reader, std::string_view key) {
    const Json* given = reader.find(key);
    if (given == nullptr) return std::nullopt;
    const auto duration = parse_duration(given->is_string() ? given->get<std::string>() : given->dump());
    if (duration && duration->count() != 0) return *duration;
    reader.set_error(reader.path_of(key), duration ? "must not be 0" : duration.error().message);
    return std::nullopt;
}

std::vector<IdRange> read_id_map(ObjectReader& reader, std::string_view key) {
    std::vector<IdRange> map;
    reader.each(key, [&](const Json& element, const std::string& path) {
        std::array<uint32_t, 3> numbers = {};
        bool is_good = element.is_array() && element.size() == numbers.size();
        for (size_t i = 0; is_good && i < numbers.size(); ++i) {
            const auto number = json_integer(element[i]);
            is_good = number && *number <= 0xfffffffe;
            if (is_good) numbers[i] = static_cast<uint32_t>(*number);
        }
        if (!is_good || numbers[2] == 0)
            reader.set_error(path, "must be [first id inside, first id outside, count]");
        map.push_back({numbers[0], numbers[1], numbers[2]});
    });
    if (map.empty() && reader.find(key) != nullptr) reader.set_error(reader.path_of(key), "is empty");
    return map;
}

std::optional<std::vector<std::string>> read_landlock_paths(ObjectReader& reader, std::string_view key) {
    if (reader.find(key) == nullptr) return std::nullopt;
    auto paths = reader.strings(key);
    for (size_t i = 0; i < paths.size(); ++i) {
        if (!paths[i].starts_with('/'))
            reader.set_error(fmt::format("{}[{}]", reader.path_of(key), i),
                             fmt::format("\"{}\" is not an absolute path inside the sandbox", paths[i]));
    }
    return paths;
}

std::optional<std::vector<uint16_t>> read_ports(ObjectReader& reader, std::string_view key) {
    if (reader.find(key) == nullptr) return std::nullopt;
    std::vector<uint16_t> ports;
    reader.each(key, [&](const Json& element, const std::string& path) {
        const auto port = json_integer(element);
        if (!port || *port > UINT16_MAX)
            reader.set_error(path, port ? fmt::format("{} is no port", *port) : port.error().message);
        ports.push_back(static_cast<uint16_t>(port.value_or(0)));
    });
    return ports;
}

LandlockRules read_landlock(ObjectReader& reader) {
    LandlockRules rules;
    if (const Json* given = reader.find("landlock"); given == nullptr || !given->is_object())
        return reader.choice("landlock", {"auto", "none"}, 0) == 0 ? rules : no_landlock();
    reader.object("landlock", [&](ObjectReader& inner) {
        rules.read = read_landlock_paths(inner, "read");
        rules.write = read_landlock_paths(inner, "write");
        rules.execute = read_landlock_paths(inner, "execute");
        rules.ioctl = read_landlock_paths(inner, "ioctl");
        rules.bind_tcp = read_ports(inner, "bind_tcp");
        rules.connect_tcp = read_ports(inner, "connect_tcp");
        if (inner.find("scopes") != nullptr) {
            rules.scope_sockets = rules.scope_signals = false;
            for (const std::string& scope : inner.strings("scopes")) {
                if (scope == "abstract_unix_socket") {
                    rules.scope_sockets = true;
                } else if (scope == "signal") {
                    rules.scope_signals = true;
                } else {
                    inner.set_error(
                        inner.path_of("scopes"),
                        fmt::format("\"{}\" is not one of \"abstract_unix_socket\", \"signal\"", scope));
                }
            }
        }
        rules.require = inner.boolean("require", false);
    });
    return rules;
}

SandboxProfile read_sandbox(ObjectReader& reader) {
    SandboxProfile sandbox;
    constexpr std::array<std::string_view, 8> kNamespaces{"user", "pid", "mount",  "net",
                                                          "ipc",  "uts", "cgroup", "time"};
    if (reader.find("namespaces") == nullptr) {
        // All but time, which nobody has asked for and which costs a clock that no vDSO reads.
        sandbox.namespaces.assign(kNamespaces.begin(), kNamespaces.end() - 1);
    } else {
        sandbox.namespaces = reader.strings("namespaces");
        for (const std::string& name : sandbox.namespaces) {
            if (std::find(kNamespaces.begin(), kNamespaces.end(), name) == kNamespaces.end()) {
                reader.set_error(reader.path_of("namespaces"),
                                 fmt::format("\"{}\" is no namespace; did you mean \"{}\"?", name,
                                             nearest(name, kNamespaces)));
            }
        }
    }
    if (const Json* root = reader.find("root"); root != nullptr && root->is_object()) {
        reader.object("root", [&](ObjectReader& inner) {
            sandbox.root = inner.string("path", true);
            if (!sandbox.root.starts_with('/') && !inner.reading().partial) {
                inner.set_error(inner.path_of("path"),
                                fmt::format("\"{}\" is not an absolute path", sandbox.root));
            }
        });
    } else if (root != nullptr) {
        sandbox.root = reader.choice("root", {"host-ro", "empty"}, 0) == 0 ? "host-ro" : "empty";
    }
    reader.each("mounts", [&](const Json& element, const std::string& path) {
        ObjectReader entry(element, path, reader.reading());
        constexpr std::array<std::string_view, 10> kTypes{"bind",   "tmpfs", "proc",    "dev",   "overlay",
                                                          "mqueue", "dir",   "symlink", "chmod", "ro"};
        MountEntry mount;
        mount.type = std::string(kTypes[entry.choice(
            "type", {"bind", "tmpfs", "proc", "dev", "overlay", "mqueue", "dir", "symlink", "chmod", "ro"},
            0)]);
        if (entry.find("type", true) == nullptr) mount.type.clear();
        mount.source = entry.string("source", mount.type == "bind" || mount.type == "symlink");
        mount.target = entry.string("target", true);
        mount.options = entry.strings("options");
        if (!mount.target.starts_with('/') && !entry.reading().partial) {
            entry.set_error(entry.path_of("target"),
                            fmt::format("\"{}\" is not an absolute path", mount.target));
        }
        entry.finish();
        sandbox.mounts.push_back(std::move(mount));
    });
    sandbox.loopback = reader.boolean("loopback", false);
    sandbox.netns = reader.string("netns");
    if (!sandbox.netns.empty() && !sandbox.netns.starts_with('/'))
        reader.set_error(reader.path_of("netns"),
                         fmt::format("\"{}\" is not an absolute path", sandbox.netns));
    sandbox.new_session = reader.boolean("new_session", true);
    sandbox.client_is_init = reader.choice("init", {"postern", "client"}, 0) == 1;
    sandbox.disable_userns = reader.boolean("disable_userns", false);
    reader.object("clocks", [&](ObjectReader& inner) {
        constexpr uint64_t kMost = uint64_t{1} << 33;  // some 270 years, as far as the kernel takes
        sandbox.monotonic_offset = static_cast<int64_t>(inner.integer_in("monotonic", 0, kMost, 0));
        sandbox.boottime_offset = static_cast<int64_t>(inner.integer_in("boottime", 0, kMost, 0));
    });
    sandbox.seccomp = reader.string("seccomp", false, "default");
    sandbox.capabilities = reader.strings("capabilities");
    sandbox.no_new_privs = reader.boolean("no_new_privs", true);
    sandbox.landlock = read_landlock(reader);
    reader.object("rlimits", [&](ObjectReader& inner) {
        for (const char* key : {"as", "core", "cpu", "data", "fsize", "locks", "memlock", "msgqueue", "nice",
                                "nofile", "nproc", "rss", "rtprio", "rttime", "sigpending", "stack"}) {
            read_rlimit(inner, key, sandbox);
        }
    });
    reader.object("cgroup", [&](ObjectReader& inner) {
        for (const char* key : {"memory.max", "memory.high", "memory.swap.max", "pids.max", "cpu.max",
                                "cpu.weight", "io.weight", "cpuset.cpus", "cpuset.mems"}) {
            const Json* value = inner.find(key);
            if (value == nullptr) continue;
            if (const auto number = json_integer(*value); number) {
                sandbox.cgroup[key] = fmt::format("{}", *number);  // the kernel knows no "MiB"
            } else if (value->is_string() && value->get_ref<const std::string&>().find_first_of(
                                                 std::string_view("\n\0", 2)) == std::string::npos) {
                sandbox.cgroup[key] = value->get<std::string>();
            } else {
                inner.set_error(
                    inner.path_of(key),
                    "must be an integer or a line of text, as the file of this name in a cgroup takes it");
            }
        }
    });
    reader.object("user", [&](ObjectReader& inner) {
        sandbox.uid = static_cast<uint32_t>(inner.integer_in("uid", 0, 0xfffffffe, sandbox.uid));
        sandbox.gid = static_cast<uint32_t>(inner.integer_in("gid", 0, 0xfffffffe, sandbox.gid));
        sandbox.subids = inner.boolean("subids", false);
        sandbox.uid_map = read_id_map(inner, "uid_map");
        sandbox.gid_map = read_id_map(inner, "gid_map");
        if (sandbox.uid_map.empty() != sandbox.gid_map.empty() && !inner.reading().partial)
            inner.set_error(inner.path(), "uid_map and gid_map go together");
    });
    sandbox.hostname = reader.string("hostname", false, sandbox.hostname);
    if (sandbox.hostname.empty() || sandbox.hostname.size() > 64) {
        reader.set_error(reader.path_of("hostname"), "must have 1 to 64 characters");
    }
    sandbox.env_keep = {"PATH", "TERM"};
    reader.object("env", [&](ObjectReader& inner) {
        if (inner.find("keep") != nullptr) sandbox.env_keep = inner.strings("keep");
        if (const Json* set = inner.find("set"); set != nullptr) {
            if (!set->is_object())
                inner.set_error(inner.path_of("set"),
                                fmt::format("must be an object, and is {}", json_type(*set)));
            if (set->is_object()) {
                for (const auto& [key, value] : set->items()) {
                    const std::string where = fmt::format("{}.{}", inner.path_of("set"), key);
                    if (!value.is_string()) {
                        inner.set_error(where, fmt::format("must be a string, and is {}", json_type(value)));
                    } else if (key.empty() ||
                               key.find_first_of(std::string_view("=\0", 2)) != std::string::npos ||
                               value.get_ref<const std::string&>().find('\0') != std::string::npos) {
                        inner.set_error(where, "is no environment variable");
                    } else {
                        sandbox.env_set[key] = value.get<std::string>();
                    }
                }
            }
        }
    });
    if (reader.find("cwd") != nullptr) {
        sandbox.cwd = reader.string("cwd");
        if (!sandbox.cwd->starts_with('/'))
            reader.set_error(reader.path_of("cwd"),
                             fmt::format("\"{}\" is not an absolute path", *sandbox.cwd));
    }
    sandbox.time_limit = read_duration(reader, "time_limit");
    sandbox.cpu_limit = read_duration(reader, "cpu_limit");
    return sandbox;
}

std::string profile_stem(std::string_view name_or_file) {
    return std::filesystem::path(name_or_file).stem().string();
}

struct Layers {
    Json merged = Json::object();
    std::vector<ReadFile> files;
};

/// Adds the file with all that it includes, the included below it. `open` are the files being included.
Status add_layers(const std::string& file, Layers& layers, std::vector<std::string>& open) {
    std::error_code code;
    const std::string canonical = std::filesystem::weakly_canonical(file, code).string();
    if (std::find(open.begin(), open.end(), canonical) != open.end()) {
        return fail("include: {} includes itself by way of {}; break the cycle", file, open.back());
    }
    if (open.size() >= kMaxIncludeDepth)
        return fail("include: more than {} levels deep at {}", kMaxIncludeDepth, file);
    POSTERN_ASSIGN(std::string text, read_file(file, kMaxProfileBytes));
    auto document = parse_json(text);
    if (!document) return propagate(std::move(document), file);
    // Each file is read on its own first, so that an error names the file where it stands.
    if (auto layer = read_profile(*document, true); !layer) {
        return open.empty() ? propagate(std::move(layer)) : propagate(std::move(layer), file);
    }
    open.push_back(canonical);
    if (const auto includes = document->find("include"); includes != document->end()) {
        for (const Json& include : *includes) {
            const auto below = std::filesystem::path(file).parent_path() / include.get<std::string>();
            POSTERN_TRY(add_layers(below.string(), layers, open));
        }
    }
    open.pop_back();
    document->erase("include");
    merge_profile(layers.merged, *document);
    layers.files.push_back({file, std::move(text)});
    return {};
}

}  // namespace

Result<Profile> read_profile(const Json& document, bool partial) {
    JsonReading reading;
    reading.partial = partial;
    Profile profile;
    ObjectReader reader(document, "", reading);
    if (const auto version = reader.integer("postern", true); version && *version != 1) {
        reader.set_error(
            "postern",
            fmt::format("version {} of the profile format; this postern reads version 1", *version));
    }
    profile.description = reader.string("description");
    (void)reader.strings("include");
    profile.slices = static_cast<unsigned>(reader.integer_in("slices", 1, 4096, 1));
    reader.object("device", [&](ObjectReader& inner) { profile.device = read_device(inner); });
    reader.each("files", [&](const Json& element, const std::string& path) {
        profile.files.push_back(read_file_entry(element, path, reading, profile.files));
    });
    if (profile.files.size() > kMaxFiles)
        reader.set_error("files", fmt::format("{} files; at most {}", profile.files.size(), kMaxFiles));
    static const Json kEmpty = Json::object();
    const Json* given = reader.find("sandbox");
    ObjectReader sandbox(given != nullptr ? *given : kEmpty, "sandbox", reading);
    if (!reading.error) {
        profile.sandbox = read_sandbox(sandbox);
        sandbox.finish();
    }
    reader.finish();
    if (reading.error) return Failure(*reading.error);
    return profile;
}

void merge_profile(Json& below, const Json& above) {
    for (const auto& [key, value] : above.items()) {
        const auto old = below.find(key);
        // { "base": …, "stride": … } is one number, not an object with two settings.
        if (old != below.end() && old->is_object() && value.is_object() && !value.contains("base")) {
            merge_profile(*old, value);
        } else {
            below[key] = value;
        }
    }
}

Result<std::string> find_profile(std::string_view name) {
    if (auto file = find_profile_file(name)) return std::move(*file);
    const auto folders = profile_search_path();
    std::vector<std::string> known;
    for (const std::string& folder : folders) {
        std::error_code code;
        for (const auto& entry : std::filesystem::directory_iterator(folder, code)) {
            if (entry.path().extension() == ".json") known.push_back(entry.path().stem().string());
        }
    }
    std::sort(known.begin(), known.end());
    const std::vector<std::string_view> candidates(known.begin(), known.end());
    return fail("there is no profile of this name in {}{}", fmt::join(folders, ":"),
                known.empty() ? std::string() : fmt::format("; did you mean {}?", nearest(name, candidates)));
}

Result<LoadedProfile> load_profile(std::string_view name_or_file) {
    const std::string context = fmt::format("profile {}", profile_stem(name_or_file));
    auto file = find_profile(name_or_file);
    if (!file) return propagate(std::move(file), context);
    Layers layers;
    std::vector<std::string> open;
    if (auto added = add_layers(*file, layers, open); !added) return propagate(std::move(added), context);
    auto profile = read_profile(layers.merged, false);
    if (!profile) return propagate(std::move(profile), context);
    profile->name = profile_stem(name_or_file);
    std::error_code code;
    profile->folder = std::filesystem::absolute(*file, code).parent_path().string();
    if (auto checked = check_profile(*profile); !checked) return propagate(std::move(checked), context);
    return LoadedProfile{std::move(*profile), std::move(layers.merged), std::move(layers.files)};
}

}  // namespace postern
