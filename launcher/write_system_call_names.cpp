// SPDX-License-Identifier: Apache-2.0
// write-system-call-names FILE: what libseccomp knows system calls by, as source, at build time: a launch
// that a filter ended names the call without libseccomp in the program, which is most of its size and not
// built for the small program's C library.
#include <seccomp.h>

#include <cstdio>
#include <cstdlib>
#include <memory>

#include <fmt/format.h>

#include "launcher/new_system_calls.h"

namespace {

/// More than any table of the kernel has.
constexpr int kMostCalls = 1024;

void write_table(std::FILE* file, const char* name, std::uint32_t arch, int mark) {
    fmt::print(file, "constexpr NumberedName {}[] = {{\n", name);
    for (int number = 0; number < kMostCalls; ++number) {
        const std::unique_ptr<char, decltype(&std::free)> known(
            ::seccomp_syscall_resolve_num_arch(arch, number | mark), &std::free);
        std::string_view call = known ? known.get() : "";
        for (const postern::NewSystemCall& each : postern::kNewSystemCalls) {
            if (arch == SCMP_ARCH_X86_64 && call.empty() && each.number == number) call = each.name;
        }
        if (!call.empty()) fmt::print(file, "    {{{}, \"{}\"}},\n", number, call);
    }
    fmt::print(file, "}};\n");
}

}  // namespace

int main(int argc, char** argv) {
    if (argc != 2) return 2;
    const std::unique_ptr<std::FILE, decltype(&std::fclose)> file(std::fopen(argv[1], "w"), &std::fclose);
    if (!file) return 1;
    write_table(file.get(), "kX86_64Names", SCMP_ARCH_X86_64, 0);
    write_table(file.get(), "kI386Names", SCMP_ARCH_X86, 0);
    // libseccomp's numbers of x32 carry the bit, as the kernel's do.
    write_table(file.get(), "kX32Names", SCMP_ARCH_X32, 0x40000000);
}
