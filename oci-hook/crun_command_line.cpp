// SPDX-License-Identifier: Apache-2.0
#include "oci-hook/crun_command_line.h"

#include <charconv>
#include <span>
#include <string_view>

#include "broker-core/broker_message.h"

namespace postern {
namespace {

constexpr unsigned kMostPreserved = 4096;

struct CrunOption {
    std::string_view name;
    char letter = '\0';
    bool takes_value = false;
    std::string CrunCommandLine::*value = nullptr;
};

constexpr CrunOption kGlobal[] = {
    {"cgroup-manager", '\0', true},
    {"debug"},
    {"help", '?'},
    {"log", '\0', true, &CrunCommandLine::log},
    {"log-format", '\0', true, &CrunCommandLine::log_format},
    {"log-level", '\0', true},
    {"root", '\0', true},
    {"rootless", '\0', true},
    {"systemd-cgroup"},
    {"usage"},
    {"version", 'V'},
};
constexpr CrunOption kCreate[] = {
    {"bundle", 'b', true, &CrunCommandLine::bundle},
    {"config", 'f', true, &CrunCommandLine::config},
    {"console-socket", '\0', true},
    {"help", '?'},
    {"no-new-keyring"},
    {"no-pivot"},
    {"no-subreaper"},
    {"pid-file", '\0', true},
    {"preserve-fds", '\0', true},
    {"usage"},
    // `run` alone has these two; where `create` is given them, crun refuses.
    {"detach", 'd'},
    {"keep"},
};

/// As getopt_long(3): the exact name, or the beginning of one alone.
const CrunOption* find_long(std::span<const CrunOption> options, std::string_view name) {
    const CrunOption* found = nullptr;
    unsigned beginnings = 0;
    for (const CrunOption& each : options) {
        if (each.name == name) return &each;
        if (!each.name.starts_with(name)) continue;
        found = &each;
        ++beginnings;
    }
    return beginnings == 1 && !name.empty() ? found : nullptr;
}

const CrunOption* find_short(std::span<const CrunOption> options, char letter) {
    // What version(3) of argp adds, besides -V.
    if (letter == 'v') letter = 'V';
    for (const CrunOption& each : options) {
        if (each.letter != '\0' && each.letter == letter) return &each;
    }
    return nullptr;
}

std::optional<unsigned> as_count(std::string_view text) {
    unsigned number = 0;
    const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), number);
    if (error != std::errc() || end != text.data() + text.size() || text.empty() || number > kMostPreserved)
        return std::nullopt;
    return number;
}

class Reader {
  public:
    explicit Reader(const std::vector<std::string>& words) : words_(words) {}

    CrunReading read() {
        if (!read_options(kGlobal) || at_ == words_.size()) return std::move(reading_);
        line().command = words_[at_++];
        if (!line().makes_container() || !read_options(kCreate)) return std::move(reading_);
        if (at_ + 1 != words_.size()) {
            set_error(fmt::format("crun {} takes one container ID at the end, and here are {} words",
                                  line().command, words_.size() - at_));
            return std::move(reading_);
        }
        line().id = words_[at_];
        return std::move(reading_);
    }

  private:
    CrunCommandLine& line() { return reading_.line; }

    bool set_error(std::string message) {
        if (!reading_.error) reading_.error = Error{std::move(message), 0};
        return false;
    }

    /// Up to the first word that is none; false: the rest is not to be looked at.
    bool read_options(std::span<const CrunOption> options) {
        while (at_ < words_.size()) {
            line().more_options = at_;
            const std::string_view word = words_[at_];
            if (word == "--") {
                ++at_;
                return true;
            }
            if (word.size() < 2 || word[0] != '-') return true;
            ++at_;
            const bool known =
                word[1] == '-' ? read_long(options, word.substr(2)) : read_short(options, word.substr(1));
            if (!known || reading_.asks_for_help) return false;
        }
        line().more_options = at_;
        return true;
    }

    bool read_long(std::span<const CrunOption> options, std::string_view word) {
        const size_t equals = word.find('=');
        const CrunOption* option = find_long(options, word.substr(0, equals));
        if (option == nullptr)
            return set_error(fmt::format("crun's option --{} is not known", one_line(word)));
        if (equals == std::string_view::npos) return take(*option);
        if (!option->takes_value)
            return set_error(fmt::format("crun's option --{} takes no value", option->name));
        return set(*option, word.substr(equals + 1));
    }

    bool read_short(std::span<const CrunOption> options, std::string_view letters) {
        for (size_t i = 0; i < letters.size(); ++i) {
            const CrunOption* option = find_short(options, letters[i]);
            if (option == nullptr)
                return set_error(
                    fmt::format("crun's option -{} is not known", one_line(letters.substr(i, 1))));
            if (option->takes_value && i + 1 < letters.size()) return set(*option, letters.substr(i + 1));
            if (!take(*option)) return false;
        }
        return true;
    }

    bool take(const CrunOption& option) {
        if (!option.takes_value) {
            if (option.name == "help" || option.name == "usage" || option.name == "version")
                reading_.asks_for_help = true;
            return true;
        }
        if (at_ == words_.size())
            return set_error(fmt::format("crun's option --{} needs a value", option.name));
        return set(option, words_[at_++]);
    }

    bool set(const CrunOption& option, std::string_view value) {
        if (option.value != nullptr) line().*option.value = value;
        if (option.name != "preserve-fds") return true;
        const auto count = as_count(value);
        if (!count)
            return set_error(fmt::format("--preserve-fds={}: is not a number of fds", one_line(value)));
        line().preserve_fds = *count;
        return true;
    }

    const std::vector<std::string>& words_;
    size_t at_ = 0;
    CrunReading reading_;
};

}  // namespace

std::string CrunCommandLine::config_path() const {
    return config == "config.json" ? fmt::format("{}/{}", bundle, config) : config;
}

CrunReading read_crun_command_line(const std::vector<std::string>& words) {
    return Reader(words).read();
}

std::vector<std::string> possible_configs(const std::vector<std::string>& words) {
    std::vector<std::string> files{"config.json"};
    const auto add = [&](std::string_view text) {
        if (text.empty()) return;
        files.emplace_back(text);
        files.push_back(fmt::format("{}/config.json", text));
    };
    for (const std::string& word : words) {
        add(word);
        if (!word.starts_with('-')) continue;
        const size_t equals = word.find('=');
        if (equals != std::string::npos) add(std::string_view(word).substr(equals + 1));
        // "-bDIR", "-dbDIR".
        for (size_t i = 2; i < word.size() && i < 4; ++i) add(std::string_view(word).substr(i));
    }
    return files;
}

std::vector<std::string> with_grant(std::vector<std::string> words, const CrunCommandLine& line,
                                    unsigned preserve_fds, const std::string& config) {
    // Of an option that is there twice, crun takes the last.
    const auto at = words.begin() + static_cast<std::ptrdiff_t>(line.more_options);
    words.insert(at, {fmt::format("--preserve-fds={}", preserve_fds), fmt::format("--config={}", config)});
    return words;
}

}  // namespace postern
