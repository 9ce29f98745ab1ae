// SPDX-License-Identifier: Apache-2.0
// hostile-client: a client that tries all that its profile does not grant. See README.md beside it.
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <cstdlib>
#include <string_view>

#include "tests/hostile/options.h"
#include "tests/hostile/passed_on.h"
#include "tests/hostile/runner.h"
#include "tests/hostile/table.h"

namespace postern::hostile {
namespace {

int complain(const Error& error) {
    std::fprintf(stderr, "hostile-client: %s\n", error.message.c_str());
    return 2;
}

void show(const std::string& text) {
    std::fputs(text.c_str(), stdout);
}

/// Where no grant is needed there need not be one: `postern run -- hostile-client --skip-group guard`.
Result<Target> find_target_for(const Probes& probes) {
    const bool needs_grant = std::any_of(probes.begin(), probes.end(),
                                         [](const Probe& probe) { return !is_sandbox_group(probe.group); });
    return needs_grant || std::getenv("LISTEN_FDS") != nullptr ? find_target() : target_without_grant();
}

int run(int argc, char** argv) {
    const Result<Options> options = parse_options(argc, argv);
    if (!options) return complain(options.error());
    if (options->help) {
        show(kUsage);
        return 0;
    }
    const Result<Probes> probes = choose(all_probes(), *options);
    if (!probes) return complain(probes.error());
    if (options->list) {
        show(as_list(*probes));
        return 0;
    }
    Result<Target> target = find_target_for(*probes);
    if (!target) return complain(target.error());
    target->outside = options->outside;

    const std::vector<Finding> findings = run_probes(*probes, *target, options->limit, options->pause);
    const bool colour = isatty(STDOUT_FILENO) == 1 && std::getenv("NO_COLOR") == nullptr;
    show(options->json ? as_json(findings, *target) : as_table(findings, *target, colour));
    for (const Finding& finding : findings) {
        if (!is_expected(finding, *target)) return 1;
    }
    return 0;
}

}  // namespace
}  // namespace postern::hostile

int main(int argc, char** argv) {
    using namespace postern::hostile;
    if (argc == 5 && std::string_view(argv[1]) == kPassedOnFlag) return passed_on(argv[2], argv[3], argv[4]);
    return run(argc, argv);
}
