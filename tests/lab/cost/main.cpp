// SPDX-License-Identifier: Apache-2.0
// guard-cost [--check] [--json FILE]: what the guard costs, in instructions per call; see docs/guard.md. Run
// it in the lab: tests/lab/run --icount --cpus 1.

#include <sys/utsname.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <fstream>

#include "tests/lab/cost/measurement.h"

namespace postern::cost {
namespace {

struct Options {
    bool check = false;
    std::string json;
};

Result<Options> parse(int argc, char** argv) {
    Options options;
    for (int i = 1; i < argc; i++) {
        if (std::strcmp(argv[i], "--check") == 0) {
            options.check = true;
        } else if (std::strcmp(argv[i], "--json") == 0 && i + 1 < argc) {
            options.json = argv[++i];
        } else {
            return fail("{}: not understood; usage: guard-cost [--check] [--json FILE]", argv[i]);
        }
    }
    return options;
}

Status write_json(const CostTable& table, const std::string& path) {
    utsname name{};
    ::uname(&name);
    std::ofstream file(path);
    file << table.json(name.release);
    file.close();
    if (!file) return fail("cannot write {}", path);
    return {};
}

Status run(const Options& options) {
    const char* bdf = std::getenv("LAB_EDU");
    if (bdf == nullptr) return fail("set LAB_EDU to the address of a device for vfio-pci");
    POSTERN_ASSIGN(const CostTable table, measure(bdf));
    std::fputs(table.text().c_str(), stdout);
    (void)std::fflush(stdout);
    if (!options.json.empty()) POSTERN_TRY(write_json(table, options.json));
    const std::vector<std::string> missed = table.missed();
    for (const std::string& line : missed) std::fprintf(stderr, "guard-cost: %s\n", line.c_str());
    if (options.check && !missed.empty()) return fail("{} expectations are not met", missed.size());
    return {};
}

}  // namespace
}  // namespace postern::cost

int main(int argc, char** argv) {
    using namespace postern::cost;
    const auto status = parse(argc, argv).and_then([](const Options& options) { return run(options); });
    if (status) return 0;
    std::fprintf(stderr, "guard-cost: %s\n", status.error().message.c_str());
    return 1;
}
