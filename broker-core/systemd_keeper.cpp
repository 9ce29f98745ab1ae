// SPDX-License-Identifier: Apache-2.0
#include "broker-core/systemd_keeper.h"

#include <fcntl.h>
#include <linux/kcmp.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdlib>
#include <optional>
#include <set>
#include <sstream>

#include "broker-core/duplicate_fd.h"
#include "broker-core/file.h"

namespace postern {
namespace {

constexpr std::string_view kOurs = "postern.";
constexpr std::string_view kFile = "postern.file.";
constexpr std::string_view kEntry = "postern.entry.";
/// As many hexadecimal digits.
constexpr size_t kGenerationDigits = 16;
/// Ids of 16 digits and blanks, and the text.
constexpr size_t kMaxMemfd = kMaxKeptFds * 17 + 1 + kMaxKeptText;

std::string file_name(std::string_view id) {
    return fmt::format("{}{}", kFile, id);
}

std::string entry_name(uint64_t generation, std::string name) {
    std::replace(name.begin(), name.end(), ':', '+');
    return fmt::format("{}{:016x}.{}", kEntry, generation, name);
}

/// Generation and name of an entry's name in the store.
std::optional<std::pair<uint64_t, std::string>> split_entry_name(std::string_view stored) {
    stored.remove_prefix(kEntry.size());
    uint64_t generation = 0;
    const auto parsed = std::from_chars(stored.data(), stored.data() + stored.size(), generation, 16);
    if (parsed.ec != std::errc() || parsed.ptr != stored.data() + kGenerationDigits ||
        stored.size() < kGenerationDigits + 2 || *parsed.ptr != '.') {
        return std::nullopt;
    }
    std::string name(stored.substr(kGenerationDigits + 1));
    std::replace(name.begin(), name.end(), '+', ':');
    return std::pair(generation, std::move(name));
}

/// Whether both fds are one open file, as systemd asks before it stores one (kcmp(2)).
Result<bool> same_file(int one, int other) {
    // Linux 6.10 and later; no security module and no filter is in its way.
    constexpr int kDupFdQuery = 1024 + 3;  // F_DUPFD_QUERY
    const int answer = ::fcntl(one, kDupFdQuery, other);
    if (answer >= 0) return answer == 1;
    const pid_t self = ::getpid();
    const long order = ::syscall(SYS_kcmp, self, self, KCMP_FILE, one, other);
    if (order < 0) {
        const int error = errno;
        return fail_errno(error, "kcmp, which tells one open file from another");
    }
    return order == 0;
}

}  // namespace

Result<std::unique_ptr<SystemdKeeper>> SystemdKeeper::from(ServiceManager manager,
                                                           std::vector<NamedFd>& passed, size_t limit) {
    std::unique_ptr<SystemdKeeper> keeper(new SystemdKeeper(std::move(manager), limit));
    const auto of_the_store = std::stable_partition(
        passed.begin(), passed.end(), [](const NamedFd& each) { return !each.name.starts_with(kOurs); });
    std::vector<NamedFd> entries;
    for (auto each = of_the_store; each != passed.end(); ++each) {
        if (each->name.starts_with(kFile)) {
            keeper->files_.insert_or_assign(each->name.substr(kFile.size()), std::move(each->fd));
        } else if (each->name.starts_with(kEntry) && split_entry_name(each->name)) {
            entries.push_back(std::move(*each));
        } else {
            keeper->debris_.push_back(each->name);
        }
    }
    passed.erase(of_the_store, passed.end());
    // Newest first: the generation is the first thing in the name that differs.
    std::sort(entries.begin(), entries.end(),
              [](const NamedFd& one, const NamedFd& other) { return one.name > other.name; });
    for (const NamedFd& entry : entries) POSTERN_TRY(keeper->adopt_entry(entry.name, entry.fd.get()));
    return keeper;
}

Result<std::unique_ptr<SystemdKeeper>> SystemdKeeper::from_environment(ServiceManager manager,
                                                                       std::vector<NamedFd>& passed) {
    const char* text = std::getenv("FDSTORE");
    size_t limit = 0;
    const std::string_view digits = text != nullptr ? text : "";
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), limit);
    if (parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size() || limit == 0) {
        return fail(
            "systemd keeps no fds for this unit (FDSTORE is \"{}\"); set FileDescriptorStoreMax= in it, and "
            "before systemd 254 Environment=FDSTORE= with the same number",
            digits);
    }
    return from(std::move(manager), passed, limit);
}

Status SystemdKeeper::adopt_entry(const std::string& stored_name, int file) {
    auto [generation, name] = *split_entry_name(stored_name);
    generation_ = std::max(generation_, generation);
    // The stored one's offset was left by those who read it before: an offset of our own.
    const UniqueFd reader(::open(fmt::format("/proc/self/fd/{}", file).c_str(), O_RDONLY | O_CLOEXEC));
    if (!reader) {
        const int error = errno;
        return fail_errno(error, "stored fd {}", stored_name);
    }
    POSTERN_ASSIGN(const std::string content, read_to_end(reader.get(), kMaxMemfd));
    const size_t end = content.find('\n');
    Entry entry{generation, end != std::string::npos ? content.substr(end + 1) : std::string(), {}};
    std::stringstream ids(content.substr(0, end));
    bool complete = end != std::string::npos;
    for (std::string id; ids >> id;) {
        complete = complete && files_.contains(id);
        entry.files.push_back(std::move(id));
    }
    if (complete && !entries_.contains(name)) {
        entries_.emplace(std::move(name), std::move(entry));
    } else {
        debris_.push_back(stored_name);
    }
    return {};
}

Status SystemdKeeper::store(const std::string& stored_name, int fd) const {
    // FDPOLL=0: systemd would drop a file that reports an error or a hangup.
    return manager_.notify(fmt::format("FDSTORE=1\nFDNAME={}\nFDPOLL=0", stored_name), {&fd, 1});
}

Result<std::string> SystemdKeeper::id_of(int fd) const {
    for (const auto& [id, file] : files_) {
        POSTERN_ASSIGN(const bool same, same_file(fd, file.get()));
        if (same) return id;
    }
    return std::string();
}

Status SystemdKeeper::put(const std::string& name, std::string_view text, std::span<const int> fds) {
    POSTERN_TRY(check_kept(name, text, fds.size()));
    // All that can be refused first.
    Entry entry{generation_ + 1, std::string(text), {}};
    std::map<std::string, UniqueFd> added;
    for (const int fd : fds) {
        POSTERN_ASSIGN(std::string id, id_of(fd));
        for (auto each = added.begin(); id.empty() && each != added.end(); ++each) {
            POSTERN_ASSIGN(const bool same, same_file(fd, each->second.get()));
            if (same) id = each->first;
        }
        if (id.empty()) {
            POSTERN_ASSIGN(UniqueFd copy, duplicate_fd(fd, "a kept fd"));
            id = random_id();
            added.emplace(id, std::move(copy));
        }
        entry.files.push_back(std::move(id));
    }
    const size_t stored = files_.size() + entries_.size() + debris_.size();
    if (stored + added.size() + 1 > limit_) {
        return Failure(Error{
            fmt::format(
                "systemd: cannot keep {} with {} more files: {} are stored, and FileDescriptorStoreMax= is "
                "{}; raise it in the unit",
                name, added.size() + 1, stored, limit_),
            ENOSPC});
    }
    POSTERN_ASSIGN(const UniqueFd memory,
                   sealed_memfd("postern-kept", fmt::format("{}\n{}", fmt::join(entry.files, " "), text)));

    // From here on the store may have what was sent, whatever is reported.
    const std::string stored_name = entry_name(entry.generation, name);
    ++generation_;
    Status sent;
    for (auto& [id, file] : added) {
        if (sent) sent = store(file_name(id), file.get());
        files_.emplace(id, std::move(file));
    }
    if (sent) sent = store(stored_name, memory.get());
    if (sent) sent = manager_.barrier();
    if (!sent) {
        debris_.push_back(stored_name);
        return propagate(std::move(sent), fmt::format("systemd: cannot keep {}", name));
    }
    const auto old = entries_.find(name);
    if (old != entries_.end()) {
        debris_.push_back(entry_name(old->second.generation, name));
        old->second = std::move(entry);
    } else {
        entries_.emplace(name, std::move(entry));
    }
    // Not waited for: as long as the old one is there too, the newer one counts.
    return sweep();
}

Status SystemdKeeper::remove(const std::string& name) {
    POSTERN_TRY(check_kept(name, {}, 0));
    const auto old = entries_.find(name);
    if (old == entries_.end()) return {};
    debris_.push_back(entry_name(old->second.generation, name));
    entries_.erase(old);
    POSTERN_TRY(sweep());
    return manager_.barrier();
}

Status SystemdKeeper::sweep() {
    std::set<std::string_view> needed;
    for (const auto& [name, entry] : entries_) needed.insert(entry.files.begin(), entry.files.end());
    // Entries before files, and old ones before newer: what is left at any moment is complete, or was
    // replaced by something that is.
    std::sort(debris_.begin(), debris_.end());
    while (!debris_.empty()) {
        POSTERN_TRY(manager_.notify(fmt::format("FDSTOREREMOVE=1\nFDNAME={}", debris_.front())));
        debris_.erase(debris_.begin());
    }
    for (auto file = files_.begin(); file != files_.end();) {
        if (needed.contains(file->first)) {
            ++file;
            continue;
        }
        POSTERN_TRY(manager_.notify(fmt::format("FDSTOREREMOVE=1\nFDNAME={}", file_name(file->first))));
        file = files_.erase(file);
    }
    return {};
}

Result<std::vector<KeptEntry>> SystemdKeeper::take_all() {
    POSTERN_TRY(sweep());
    std::vector<KeptEntry> taken;
    for (const auto& [name, entry] : entries_) {
        KeptEntry copy{name, entry.text, {}};
        for (const std::string& id : entry.files) {
            POSTERN_ASSIGN(UniqueFd file, duplicate_fd(files_.at(id).get(), "a kept fd"));
            copy.fds.push_back(std::move(file));
        }
        taken.push_back(std::move(copy));
    }
    return taken;
}

}  // namespace postern
