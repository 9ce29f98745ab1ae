// SPDX-License-Identifier: Apache-2.0
#include "launcher/bwrap_options.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <climits>
#include <cstdint>

#include "broker-core/file.h"

namespace postern {
namespace {

using Words = std::vector<std::string>;

/// As many as bubblewrap takes.
constexpr std::size_t kMaxWords = 9000;
constexpr std::size_t kMaxArgumentBytes = std::size_t{16} << 20;
constexpr std::uint64_t kMaxTmpfsBytes = SIZE_MAX / 2;

void set_variable(std::vector<std::string>& environment, const std::string& name) {
    std::erase_if(environment, [&](const std::string& entry) {
        return entry.size() > name.size() && entry.starts_with(name) && entry[name.size()] == '=';
    });
}

class Parser {
  public:
    explicit Parser(const BwrapCaller& caller) : caller_(caller) {
        request_.spec = {};
        request_.spec.namespaces = {false, false, true, false, false, false, false, false};
        request_.spec.root.kind = Root::Kind::Bare;
        request_.spec.env = caller.environment;
        request_.spec.make_targets = true;
        request_.spec.own_ids = true;
        request_.spec.keep_groups = true;
        request_.spec.landlock = no_landlock();
        request_.spec.new_session = false;
        request_.spec.new_keyring = false;
        request_.spec.tell_folder = true;
        if (caller.uid == 0) capabilities_ = caller.capabilities;
    }

    Status parse(const Words& words) {
        POSTERN_TRY(parse_words(words, false));
        if (request_.kind != BwrapRequest::Kind::Run) return {};
        if (!layers_.empty()) return layers_left_over();
        return finish();
    }

    BwrapRequest take() { return std::move(request_); }
    [[nodiscard]] bool level_prefix() const { return request_.level_prefix; }

    // One for each option; `w` are its words.
    Status help(const Words&) { return end(BwrapRequest::Kind::Help); }
    Status version(const Words&) { return end(BwrapRequest::Kind::Version); }
    Status args(const Words& w);
    Status argv0(const Words& w) {
        if (request_.spec.argv0) return fail("--argv0 used multiple times");
        request_.spec.argv0 = w[0];
        return {};
    }
    Status set_level_prefix(const Words&) {
        request_.level_prefix = true;
        return {};
    }
    Status unshare_all(const Words&) {
        Namespaces& own = request_.spec.namespaces;
        own.ipc = own.pid = own.net = own.uts = own.cgroup = true;
        user_try_ = true;
        return {};
    }
    Status unshare_user_try(const Words&) {
        user_try_ = true;
        return {};
    }
    template <bool Namespaces::*member, bool value = true>
    Status unshare(const Words&) {
        request_.spec.namespaces.*member = value;
        return {};
    }
    template <std::optional<int> BwrapRequest::*member>
    Status request_fd(const Words& w) {
        if (request_.*member) warn_last(option_);
        POSTERN_ASSIGN(request_.*member, use_fd(w[0]));
        return {};
    }
    template <int SandboxSpec::*member>
    Status spec_fd(const Words& w) {
        if (request_.spec.*member >= 0) warn_last(option_);
        POSTERN_ASSIGN(request_.spec.*member, use_fd(w[0]));
        return {};
    }
    template <bool SandboxSpec::*member>
    Status spec_flag(const Words&) {
        request_.spec.*member = true;
        return {};
    }
    Status die_with_parent(const Words&) {
        request_.die_with_parent = true;
        return {};
    }
    Status uid(const Words& w) { return set_id(w[0], "uid", uid_); }
    Status gid(const Words& w) { return set_id(w[0], "gid", gid_); }
    Status hostname(const Words& w) {
        if (request_.spec.hostname) warn_last(option_);
        request_.spec.hostname = w[0];
        return {};
    }
    Status chdir(const Words& w) {
        if (request_.spec.cwd) warn_last(option_);
        request_.spec.cwd = w[0];
        return {};
    }
    Status clearenv(const Words&) {
        request_.spec.env.clear();
        return {};
    }
    Status setenv(const Words& w) {
        if (w[0].empty() || w[0].find('=') != std::string::npos)
            return fail("--setenv: \"{}\" is no name of a variable", w[0]);
        set_variable(request_.spec.env, w[0]);
        request_.spec.env.push_back(w[0] + "=" + w[1]);
        return {};
    }
    Status unsetenv(const Words& w) {
        set_variable(request_.spec.env, w[0]);
        return {};
    }
    Status lock_file(const Words& w) {
        request_.spec.lock_files.push_back(w[0]);
        return {};
    }
    Status bind(const Words& w, Words options) {
        if (option_.ends_with("-try")) options.emplace_back("optional");
        add({Mount::Type::Bind, absolute(w[0]), w[1], std::move(options), -1});
        return {};
    }
    Status bind_rw(const Words& w) { return bind(w, {"rw"}); }
    Status bind_ro(const Words& w) { return bind(w, {"ro"}); }
    Status bind_dev(const Words& w) { return bind(w, {"rw", "dev"}); }
    Status bind_fd(const Words& w) {
        POSTERN_ASSIGN(const int fd, use_fd(w[0]));
        char path[PATH_MAX];
        const ssize_t length = ::readlink(fmt::format("/proc/self/fd/{}", fd).c_str(), path, sizeof path);
        if (length <= 0 || length == sizeof path || path[0] != '/')
            return fail("{}: fd {} is not of a file with a path", option_, fd);
        add({Mount::Type::Bind,
             std::string(path, static_cast<std::size_t>(length)),
             w[1],
             {option_ == "--ro-bind-fd" ? "ro" : "rw"},
             fd});
        return {};
    }
    Status remount_ro(const Words& w) {
        add({Mount::Type::Ro, "", w[0], {}, -1});
        return {};
    }
    Status overlay_src(const Words& w) {
        layers_.push_back(absolute(w[0]));
        return {};
    }
    Status overlay(const Words& w) {
        return add_overlay(1, "one", {"upperdir=" + absolute(w[0]), "workdir=" + absolute(w[1])}, w[2]);
    }
    Status tmp_overlay(const Words& w) { return add_overlay(1, "one", {"scratch"}, w[0]); }
    Status ro_overlay(const Words& w) { return add_overlay(2, "two", {}, w[0]); }
    Status label(const Words&) { return fail("{}: labeling is not supported", option_); }
    Status proc(const Words& w) {
        add({Mount::Type::Proc, "", w[0], {}, -1});
        return {};
    }
    Status dev(const Words& w) {
        add({Mount::Type::Dev, "", w[0], {"writable"}, -1});
        // What the client could write to anyway, under the name that ttyname(3) finds.
        if (!caller_.terminal.empty())
            add({Mount::Type::Bind, caller_.terminal, w[0] + "/console", {"dev", "bind", "optional"}, -1});
        return {};
    }
    Status tmpfs(const Words& w) {
        Words options{mode_option(0755)};
        if (size_ != 0) options.push_back(fmt::format("size={}", size_));
        size_ = 0;
        add({Mount::Type::Tmpfs, "", w[0], std::move(options), -1});
        return {};
    }
    Status mqueue(const Words& w) {
        add({Mount::Type::Mqueue, "", w[0], {}, -1});
        return {};
    }
    Status dir(const Words& w) {
        add({Mount::Type::Directory, "", w[0], {mode_option(0755)}, -1});
        return {};
    }
    Status file(const Words& w) { return add_data(Mount::Type::File, w, {mode_option(0666)}); }
    Status bind_data(const Words& w) { return add_data(Mount::Type::Data, w, {mode_option(0600)}); }
    Status ro_bind_data(const Words& w) { return add_data(Mount::Type::Data, w, {mode_option(0600), "ro"}); }
    Status symlink(const Words& w) {
        add({Mount::Type::Symlink, w[0], w[1], {}, -1});
        return {};
    }
    Status seccomp(const Words& w) {
        if (more_filters_) return fail("--seccomp cannot be combined with --add-seccomp-fd");
        if (!request_.filters.empty()) warn_last(option_);
        POSTERN_ASSIGN(const int fd, use_fd(w[0]));
        request_.filters = {fd};
        return {};
    }
    Status add_seccomp(const Words& w) {
        if (!more_filters_ && !request_.filters.empty())
            return fail("--add-seccomp-fd cannot be combined with --seccomp");
        more_filters_ = true;
        POSTERN_ASSIGN(const int fd, use_fd(w[0]));
        request_.filters.push_back(fd);
        return {};
    }
    Status cap_add(const Words& w) { return change_capabilities(w[0], true); }
    Status cap_drop(const Words& w) { return change_capabilities(w[0], false); }
    Status perms(const Words& w) {
        if (mode_) return fail("--perms given twice for the same action");
        POSTERN_ASSIGN(mode_, octal(w[0]));
        return {};
    }
    Status size(const Words& w) {
        if (size_ != 0) return fail("--size given twice for the same action");
        // As strtoull(3) with base 0.
        const std::string& text = w[0];
        const bool is_hex = text.starts_with("0x") || text.starts_with("0X");
        const char* begin = text.data() + (is_hex ? 2 : 0);
        const char* last = text.data() + text.size();
        const int base = is_hex ? 16 : text.starts_with('0') ? 8 : 10;
        const auto [end, error] = std::from_chars(begin, last, size_, base);
        if (error != std::errc() || end != last || size_ == 0)
            return fail("--size takes a non-zero number of bytes, not \"{}\"", text);
        if (size_ > kMaxTmpfsBytes) return fail("--size (for tmpfs) is limited to {}", kMaxTmpfsBytes);
        return {};
    }
    Status chmod(const Words& w) {
        POSTERN_ASSIGN(const int mode, octal(w[0]));
        add({Mount::Type::Chmod, "", w[1], {fmt::format("mode={:o}", mode)}, -1});
        return {};
    }
    Status nothing(const Words&) { return {}; }

  private:
    Status parse_words(const Words& words, bool in_file);
    Status finish();

    Status end(BwrapRequest::Kind kind) {
        request_.kind = kind;
        return {};
    }
    void warn_last(std::string_view option) {
        request_.warnings.push_back(fmt::format("Only the last {} option will take effect", option));
    }
    Result<int> use_fd(const std::string& text) {
        int fd = -1;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), fd);
        if (error != std::errc() || end != text.data() + text.size() || fd < 0)
            return fail("Invalid fd: {}", text);
        if (::fcntl(fd, F_GETFD) < 0) return fail("{}: fd {} is not open", option_, fd);
        request_.used.push_back(fd);
        return fd;
    }
    Result<int> octal(const std::string& text) {
        int mode = -1;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), mode, 8);
        if (error != std::errc() || end != text.data() + text.size() || mode < 0 || mode > 07777)
            return fail("{} takes an octal argument <= 07777, not \"{}\"", option_, text);
        return mode;
    }
    std::string mode_option(int usual) {
        const int mode = mode_.value_or(usual);
        mode_.reset();
        return fmt::format("mode={:o}", mode);
    }
    Status set_id(const std::string& text, std::string_view what, std::optional<std::uint32_t>& id) {
        std::uint32_t value = 0;
        const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
        if (error != std::errc() || end != text.data() + text.size() || value > INT32_MAX)
            return fail("Invalid {}: {}", what, text);
        if (id) warn_last(option_);
        id = value;
        return {};
    }
    std::string absolute(const std::string& path) const {
        return path.starts_with('/') ? path : caller_.folder + "/" + path;
    }
    void add(Mount mount) {
        if (!mount.target.starts_with('/')) mount.target.insert(0, "/");
        request_.spec.mounts.push_back(std::move(mount));
    }
    Status add_data(Mount::Type type, const Words& w, Words options) {
        POSTERN_ASSIGN(const int fd, use_fd(w[0]));
        add({type, "", w[1], std::move(options), fd});
        return {};
    }
    Status add_overlay(std::size_t least, std::string_view least_text, Words options,
                       const std::string& target) {
        if (layers_.size() < least) return fail("{} requires at least {} --overlay-src", option_, least_text);
        options.push_back(lower_layers_option(layers_));
        layers_.clear();
        add({Mount::Type::Overlay, "", target, std::move(options), -1});
        return {};
    }
    static Status layers_left_over() {
        return fail(
            "--overlay-src must be followed by another --overlay-src or one of --overlay, --tmp-overlay, or "
            "--ro-overlay");
    }
    Status change_capabilities(const std::string& name, bool add) {
        capabilities_named_ = true;
        std::string lower(name);
        std::transform(lower.begin(), lower.end(), lower.begin(), ::tolower);
        if (lower == "all") {
            capabilities_.clear();
            all_capabilities_ = add;
            return {};
        }
        auto number = capability_from_name(lower);
        if (!number) return fail("{}: unknown cap: {}", option_, name);
        if (all_capabilities_ && !add) expand_capabilities();
        std::erase(capabilities_, *number);
        if (add) capabilities_.push_back(*number);
        return {};
    }
    /// "ALL" is what the kernel has.
    void expand_capabilities() {
        capabilities_.clear();
        for (unsigned i = 0; i <= kLastCapability; ++i) capabilities_.push_back(i);
        all_capabilities_ = false;
    }

    /// linux/capability.h: CAP_CHECKPOINT_RESTORE.
    static constexpr unsigned kLastCapability = 40;

    const BwrapCaller& caller_;
    BwrapRequest request_;
    std::string_view option_;
    bool user_try_ = false;
    bool more_filters_ = false;
    std::optional<std::uint32_t> uid_;
    std::optional<std::uint32_t> gid_;
    std::optional<int> mode_;
    std::uint64_t size_ = 0;
    Words layers_;
    std::vector<unsigned> capabilities_;
    bool capabilities_named_ = false;
    bool all_capabilities_ = false;
    std::size_t words_seen_ = 0;
};

struct Entry {
    BwrapOption option;
    Status (Parser::*run)(const Words&);
};

constexpr Entry kEntries[] = {
    {{"--help", "", "show this help and exit"}, &Parser::help},
    {{"--version", "", "show the version and exit"}, &Parser::version},
    {{"--args", "FD", "parse NUL-separated arguments from FD"}, &Parser::args},
    {{"--argv0", "VALUE", "give the command this as argv[0]"}, &Parser::argv0},
    {{"--level-prefix", "", "begin messages with <3> or the like, for logs"}, &Parser::set_level_prefix},
    {{"--unshare-all", "", "all namespaces that there are of one's own"}, &Parser::unshare_all},
    {{"--share-net", "", "keep the network namespace (after --unshare-all)"},
     &Parser::unshare<&Namespaces::net, false>},
    {{"--unshare-user", "", "a user namespace of one's own"}, &Parser::unshare<&Namespaces::user>},
    {{"--unshare-user-try", "", "the same, if possible"}, &Parser::unshare_user_try},
    {{"--unshare-ipc", "", "an ipc namespace of one's own"}, &Parser::unshare<&Namespaces::ipc>},
    {{"--unshare-pid", "", "a pid namespace of one's own"}, &Parser::unshare<&Namespaces::pid>},
    {{"--unshare-net", "", "a network namespace of one's own"}, &Parser::unshare<&Namespaces::net>},
    {{"--unshare-uts", "", "a uts namespace of one's own"}, &Parser::unshare<&Namespaces::uts>},
    {{"--unshare-cgroup", "", "a cgroup namespace of one's own"}, &Parser::unshare<&Namespaces::cgroup>},
    {{"--unshare-cgroup-try", "", "the same, if possible"}, &Parser::unshare<&Namespaces::cgroup>},
    {{"--userns", "FD", "join this user namespace"}, &Parser::request_fd<&BwrapRequest::user_fd>},
    {{"--userns2", "FD", "after setup switch to this user namespace"},
     &Parser::spec_fd<&SandboxSpec::late_user_fd>},
    {{"--disable-userns", "", "no further user namespaces inside"},
     &Parser::spec_flag<&SandboxSpec::no_more_user_namespaces>},
    {{"--assert-userns-disabled", "", "fail unless that is so"},
     &Parser::spec_flag<&SandboxSpec::assert_no_more_user_namespaces>},
    {{"--pidns", "FD", "join this pid namespace"}, &Parser::request_fd<&BwrapRequest::pid_fd>},
    {{"--uid", "UID", "user id inside"}, &Parser::uid},
    {{"--gid", "GID", "group id inside"}, &Parser::gid},
    {{"--hostname", "NAME", "host name inside"}, &Parser::hostname},
    {{"--chdir", "DIR", "working folder inside"}, &Parser::chdir},
    {{"--clearenv", "", "unset all variables"}, &Parser::clearenv},
    {{"--setenv", "VAR VALUE", "set a variable"}, &Parser::setenv},
    {{"--unsetenv", "VAR", "unset a variable"}, &Parser::unsetenv},
    {{"--lock-file", "DEST", "hold a lock on DEST while the sandbox runs"}, &Parser::lock_file},
    {{"--sync-fd", "FD", "keep this fd open while the sandbox runs"},
     &Parser::spec_fd<&SandboxSpec::sync_fd>},
    {{"--bind", "SRC DEST", "bind the host path SRC on DEST"}, &Parser::bind_rw},
    {{"--bind-try", "SRC DEST", "the same, if SRC is there"}, &Parser::bind_rw},
    {{"--dev-bind", "SRC DEST", "bind with device nodes usable"}, &Parser::bind_dev},
    {{"--dev-bind-try", "SRC DEST", "the same, if SRC is there"}, &Parser::bind_dev},
    {{"--ro-bind", "SRC DEST", "bind read-only"}, &Parser::bind_ro},
    {{"--ro-bind-try", "SRC DEST", "the same, if SRC is there"}, &Parser::bind_ro},
    {{"--bind-fd", "FD DEST", "bind an open folder or file"}, &Parser::bind_fd},
    {{"--ro-bind-fd", "FD DEST", "the same, read-only"}, &Parser::bind_fd},
    {{"--remount-ro", "DEST", "make the mount at DEST read-only, not those below"}, &Parser::remount_ro},
    {{"--overlay-src", "SRC", "a lower folder of the overlay that follows"}, &Parser::overlay_src},
    {{"--overlay", "RWSRC WORKDIR DEST", "overlay on DEST that writes to RWSRC"}, &Parser::overlay},
    {{"--tmp-overlay", "DEST", "overlay on DEST that forgets what is written"}, &Parser::tmp_overlay},
    {{"--ro-overlay", "DEST", "overlay on DEST, read-only"}, &Parser::ro_overlay},
    {{"--exec-label", "LABEL", "not supported"}, &Parser::label},
    {{"--file-label", "LABEL", "not supported"}, &Parser::label},
    {{"--proc", "DEST", "mount procfs on DEST"}, &Parser::proc},
    {{"--dev", "DEST", "mount a minimal /dev on DEST"}, &Parser::dev},
    {{"--tmpfs", "DEST", "mount a tmpfs on DEST"}, &Parser::tmpfs},
    {{"--mqueue", "DEST", "mount mqueue on DEST"}, &Parser::mqueue},
    {{"--dir", "DEST", "make the folder DEST"}, &Parser::dir},
    {{"--file", "FD DEST", "copy from FD to the file DEST"}, &Parser::file},
    {{"--bind-data", "FD DEST", "copy from FD to a file that is bound on DEST"}, &Parser::bind_data},
    {{"--ro-bind-data", "FD DEST", "the same, read-only"}, &Parser::ro_bind_data},
    {{"--symlink", "SRC DEST", "make a symbolic link at DEST to SRC"}, &Parser::symlink},
    {{"--seccomp", "FD", "load the seccomp program in FD"}, &Parser::seccomp},
    {{"--add-seccomp-fd", "FD", "the same, for several"}, &Parser::add_seccomp},
    {{"--block-fd", "FD", "wait before the command until FD can be read"},
     &Parser::spec_fd<&SandboxSpec::block_fd>},
    {{"--userns-block-fd", "FD", "wait for FD until the user namespace is mapped by the caller"},
     &Parser::request_fd<&BwrapRequest::user_block_fd>},
    {{"--info-fd", "FD", "write what runs to FD, in JSON"}, &Parser::request_fd<&BwrapRequest::info_fd>},
    {{"--json-status-fd", "FD", "write beginning and end to FD, in JSON"},
     &Parser::request_fd<&BwrapRequest::status_fd>},
    {{"--new-session", "", "a session of one's own"}, &Parser::spec_flag<&SandboxSpec::new_session>},
    {{"--die-with-parent", "", "end when the caller ends"}, &Parser::die_with_parent},
    {{"--as-pid-1", "", "the command is pid 1, with no init that reaps"},
     &Parser::spec_flag<&SandboxSpec::as_pid_1>},
    {{"--cap-add", "CAP", "keep a capability, or ALL"}, &Parser::cap_add},
    {{"--cap-drop", "CAP", "drop a capability, or ALL"}, &Parser::cap_drop},
    {{"--perms", "OCTAL", "mode of what the next option makes"}, &Parser::perms},
    {{"--size", "BYTES", "size of the next --tmpfs"}, &Parser::size},
    {{"--chmod", "OCTAL PATH", "change the mode of PATH, which is there"}, &Parser::chmod},
    {{"--not-a-security-boundary", "", "accepted; nothing is left out for it"}, &Parser::nothing},
};

std::size_t word_count(std::string_view words) {
    if (words.empty()) return 0;
    return 1 + static_cast<std::size_t>(std::count(words.begin(), words.end(), ' '));
}

constexpr std::string_view kCounts[] = {"no", "one", "two", "three"};

Status Parser::parse_words(const Words& words, bool in_file) {
    words_seen_ += words.size();
    if (words_seen_ > kMaxWords) return fail("Exceeded maximum number of arguments {}", kMaxWords);
    std::size_t at = 0;
    while (at < words.size() && request_.kind == BwrapRequest::Kind::Run) {
        const std::string& word = words[at];
        if (word == "--") {
            ++at;
            break;
        }
        if (!word.starts_with('-')) break;
        const auto* entry = std::find_if(std::begin(kEntries), std::end(kEntries),
                                         [&](const Entry& each) { return each.option.name == word; });
        if (entry == std::end(kEntries)) return fail("Unknown option {}", word);
        const std::size_t count = word_count(entry->option.words);
        if (words.size() - at <= count)
            return fail("{} takes {} argument{}", word, kCounts[count], count == 1 ? "" : "s");
        if (in_file && word == "--args") return fail("--args not supported in arguments file");
        option_ = entry->option.name;
        const auto first = words.begin() + static_cast<std::ptrdiff_t>(at) + 1;
        POSTERN_TRY((this->*entry->run)(Words(first, first + static_cast<std::ptrdiff_t>(count))));
        at += 1 + count;
        const bool modifies = word == "--perms" || word == "--size";
        if (!modifies && mode_) return fail("--perms must be followed by an option that creates a file");
        if (!modifies && size_ != 0) return fail("--size must be followed by --tmpfs");
        if (word != "--overlay-src" && !layers_.empty()) return layers_left_over();
    }
    if (in_file && at < words.size()) return fail("--args: \"{}\" is no option", words[at]);
    if (!in_file) request_.spec.argv.assign(words.begin() + static_cast<std::ptrdiff_t>(at), words.end());
    return {};
}

Status Parser::args(const Words& w) {
    POSTERN_ASSIGN(const int fd, use_fd(w[0]));
    auto read = read_to_end(fd, kMaxArgumentBytes);
    if (!read) return propagate(std::move(read), fmt::format("Can't read --args data of fd {}", fd));
    const std::string& text = *read;
    ::close(fd);
    Words words;
    for (std::size_t at = 0; at < text.size();) {
        const std::size_t end = std::min(text.find('\0', at), text.size());
        words.push_back(text.substr(at, end - at));
        at = end + 1;
    }
    return parse_words(words, true);
}

Status Parser::finish() {
    SandboxSpec& spec = request_.spec;
    if (request_.user_block_fd && !spec.namespaces.user)
        return fail("--userns-block-fd requires --unshare-user");
    if (request_.user_block_fd && !request_.info_fd) return fail("--userns-block-fd requires --info-fd");
    if (request_.user_fd && (spec.namespaces.user || user_try_))
        return fail("--userns is not compatible with --unshare-user and --unshare-user-try");
    if (request_.pid_fd && spec.namespaces.pid)
        return fail("--pidns together with --unshare-pid is not supported; leave one of them out");
    if (spec.no_more_user_namespaces && !spec.namespaces.user)
        return fail("--disable-userns requires --unshare-user");
    if (spec.no_more_user_namespaces && request_.user_block_fd)
        return fail("--disable-userns is not compatible with --userns-block-fd");
    // An ordinary user can do nothing without.
    if (caller_.uid != 0 && !request_.user_fd) spec.namespaces.user = true;
    if (user_try_ && caller_.can_make_user_namespaces) spec.namespaces.user = true;
    const bool maps = spec.namespaces.user || request_.user_fd;
    spec.uid = uid_.value_or(caller_.uid);
    spec.gid = gid_.value_or(caller_.gid);
    if (!maps && spec.uid != caller_.uid) return fail("Specifying --uid requires --unshare-user or --userns");
    if (!maps && spec.gid != caller_.gid) return fail("Specifying --gid requires --unshare-user or --userns");
    if (spec.hostname && !spec.namespaces.uts) return fail("Specifying --hostname requires --unshare-uts");
    if (spec.as_pid_1 && !spec.namespaces.pid) return fail("Specifying --as-pid-1 requires --unshare-pid");
    if (spec.as_pid_1 && !spec.lock_files.empty())
        return fail("Specifying --as-pid-1 and --lock-file is not permitted");
    spec.loopback_up = spec.namespaces.net;
    spec.joined_pid_namespace = request_.pid_fd.has_value();
    if (caller_.uid == 0 && !capabilities_named_) {
        spec.keep_capabilities = true;
    } else {
        if (all_capabilities_) expand_capabilities();
        spec.capabilities = capabilities_;
    }
    return {};
}

}  // namespace

const std::vector<BwrapOption>& bwrap_options() {
    static const std::vector<BwrapOption> options = [] {
        std::vector<BwrapOption> all;
        for (const Entry& entry : kEntries) all.push_back(entry.option);
        return all;
    }();
    return options;
}

Result<BwrapRequest> parse_bwrap(const std::vector<std::string>& words, const BwrapCaller& caller,
                                 bool* level_prefix) {
    Parser parser(caller);
    Status parsed = parser.parse(words);
    if (level_prefix != nullptr) *level_prefix = parser.level_prefix();
    if (!parsed) return propagate(std::move(parsed));
    return parser.take();
}

}  // namespace postern
