// SPDX-License-Identifier: Apache-2.0
#include "tests/hostile/options.h"

#include <getopt.h>

#include <algorithm>
#include <cstdlib>

namespace postern::hostile {

const char kUsage[] =
    "usage: hostile-client [--expect refused|allowed] [--only PROBE]… [--group GROUP]… [--skip-group "
    "GROUP]…\n"
    "                      [--timeout SECONDS] [--pause MILLISECONDS] [--json] [--list]\n"
    "\n"
    "Tries every way out of a postern sandbox and around its guard, with the grant that it was started "
    "with:\n"
    "    postern run --device BDF --profile PROFILE -- hostile-client\n"
    "Exit status 0: all was refused; 1: something was not, or a control is broken; 2: could not begin.\n"
    "\n"
    "  --expect allowed      outside, as root, on an unguarded device fd: the probes themselves must work\n"
    "  --only PROBE          this probe; may be repeated\n"
    "  --group GROUP         the probes of this group; may be repeated\n"
    "  --skip-group GROUP    not these; \"sandbox\" and \"guard\" name all groups of the kind\n"
    "  --timeout SECONDS     for one attempt, 60 if not given\n"
    "  --pause MILLISECONDS  before each attempt: the guard tells only so many refusals a second\n"
    "  --json                the findings as JSON\n"
    "  --list                names and groups of all probes; needs no grant\n";

namespace {

enum : int { kExpect = 256, kOnly, kGroup, kSkipGroup, kTimeout, kPause, kJson, kList, kHelp };

constexpr option kOptions[] = {{"expect", required_argument, nullptr, kExpect},
                               {"only", required_argument, nullptr, kOnly},
                               {"group", required_argument, nullptr, kGroup},
                               {"skip-group", required_argument, nullptr, kSkipGroup},
                               {"timeout", required_argument, nullptr, kTimeout},
                               {"pause", required_argument, nullptr, kPause},
                               {"json", no_argument, nullptr, kJson},
                               {"list", no_argument, nullptr, kList},
                               {"help", no_argument, nullptr, kHelp},
                               {nullptr, 0, nullptr, 0}};

bool matches(const std::set<std::string>& groups, const std::string& group) {
    return groups.contains(group) || groups.contains(is_sandbox_group(group) ? "sandbox" : "guard");
}

Result<long> number_of(const char* flag, const std::string& value, const char* unit, long most) {
    char* end = nullptr;
    const long number = std::strtol(value.c_str(), &end, 10);
    if (value.empty() || *end != '\0' || number < 1 || number > most)
        return fail("{} takes 1 to {} {}, not {}", flag, most, unit, value);
    return number;
}

Status check_groups(const Probes& probes, const std::set<std::string>& groups) {
    for (const std::string& group : groups) {
        const bool known =
            group == "sandbox" || group == "guard" ||
            std::any_of(probes.begin(), probes.end(), [&](const Probe& p) { return p.group == group; });
        if (!known) return fail("no group {}; see hostile-client --list", group);
    }
    return {};
}

}  // namespace

Result<Options> parse_options(int argc, char** argv) {
    Options options;
    int which = 0;
    opterr = 0;
    while ((which = getopt_long(argc, argv, "", kOptions, nullptr)) != -1) {
        const std::string value = optarg == nullptr ? "" : optarg;
        switch (which) {
            case kExpect:
                if (value != "refused" && value != "allowed")
                    return fail("--expect takes refused or allowed, not {}", value);
                options.outside = value == "allowed";
                break;
            case kOnly:
                options.only.insert(value);
                break;
            case kGroup:
                options.groups.insert(value);
                break;
            case kSkipGroup:
                options.skip_groups.insert(value);
                break;
            case kTimeout: {
                POSTERN_ASSIGN(const long seconds, number_of("--timeout", value, "seconds", 3600));
                options.limit = std::chrono::seconds(seconds);
                break;
            }
            case kPause: {
                POSTERN_ASSIGN(const long milliseconds, number_of("--pause", value, "milliseconds", 60'000));
                options.pause = std::chrono::milliseconds(milliseconds);
                break;
            }
            case kJson:
                options.json = true;
                break;
            case kList:
                options.list = true;
                break;
            case kHelp:
                options.help = true;
                break;
            default:
                return fail("unknown option or missing value: {}; see hostile-client --help",
                            argv[optind - 1]);
        }
    }
    if (optind < argc) return fail("unexpected argument {}; see hostile-client --help", argv[optind]);
    return options;
}

Result<Probes> choose(Probes probes, const Options& options) {
    POSTERN_TRY(check_groups(probes, options.groups));
    POSTERN_TRY(check_groups(probes, options.skip_groups));
    for (const std::string& name : options.only) {
        const bool known =
            std::any_of(probes.begin(), probes.end(), [&](const Probe& p) { return p.name == name; });
        if (!known) return fail("no probe {}; see hostile-client --list", name);
    }
    std::erase_if(probes, [&](const Probe& probe) {
        if (!options.only.empty() && !options.only.contains(probe.name)) return true;
        if (!options.groups.empty() && !matches(options.groups, probe.group)) return true;
        return matches(options.skip_groups, probe.group);
    });
    if (probes.empty()) return fail("the options leave no probe to run");
    return probes;
}

}  // namespace postern::hostile
