// SPDX-License-Identifier: Apache-2.0
#include "tests/root/sandbox_fixture.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <chrono>
#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <sstream>
#include <thread>

#include "launcher/seccomp_filter.h"
#include "launcher/seccomp_profile.h"

namespace postern {
namespace {

const std::vector<sock_filter>& default_filter() {
    static const std::vector<sock_filter> filter = [] {
        const auto root = std::filesystem::path(__FILE__).parent_path().parent_path().parent_path();
        const auto profile =
            parse_seccomp_profile(read_text(root / "profiles/seccomp/default.json"), seccomp_conditions({}));
        EXPECT_TRUE(profile);
        auto program = compile_seccomp_filter(*profile);
        EXPECT_TRUE(program);
        return *program;
    }();
    return filter;
}

}  // namespace

void SandboxTest::SetUp() {
    ASSERT_EQ(0U, ::geteuid()) << "root-tests make namespaces and mounts: run them as root, or with sudo";
    std::string name = "/var/lib/postern-test-XXXXXX";
    ASSERT_NE(::mkdtemp(name.data()), nullptr);
    folder_ = name;
    ASSERT_EQ(::chmod(name.c_str(), 0755), 0);
}

void SandboxTest::TearDown() {
    if (!folder_.empty()) std::filesystem::remove_all(folder_);
}

SandboxSpec SandboxTest::full() {
    SandboxSpec spec;
    spec.seccomp = {default_filter()};
    spec.env = {"PATH=/usr/bin:/bin"};
    spec.cwd = "/";
    return spec;
}

SandboxSpec SandboxTest::shell(const std::string& script) {
    SandboxSpec spec = full();
    spec.argv = {"/bin/sh", "-c", script};
    return spec;
}

Outcome SandboxTest::run(const SandboxSpec& spec) {
    Outcome outcome;
    Captured captured;
    auto supervisor = Supervisor::create();
    if (!supervisor) return outcome;
    auto client = start_sandbox(spec);
    if (!client) {
        outcome.status = client.error().exit_status;
        outcome.error = client.error().error.message;
        return outcome;
    }
    supervisor->add(std::move(*client));
    const auto ended = supervisor->wait_any();
    if (!ended) return outcome;
    outcome.status = ended->exit.status();
    outcome.kind = ended->exit.kind;
    outcome.out = captured.text();
    return outcome;
}

Captured::Captured() : file_(::memfd_create("captured", MFD_CLOEXEC)) {
    std::fflush(stdout);
    std::fflush(stderr);
    // Two processes write to it at once, and of a memfd the kernel does not keep their places apart.
    ::fcntl(file_.get(), F_SETFL, O_APPEND);
    old_out_.reset(::fcntl(1, F_DUPFD_CLOEXEC, 3));
    old_error_.reset(::fcntl(2, F_DUPFD_CLOEXEC, 3));
    ::dup2(file_.get(), 1);
    ::dup2(file_.get(), 2);
}

void Captured::restore() {
    if (!old_out_) return;
    std::fflush(stdout);
    std::fflush(stderr);
    ::dup2(old_out_.get(), 1);
    ::dup2(old_error_.get(), 2);
    old_out_.reset();
    old_error_.reset();
}

Captured::~Captured() {
    restore();
}

std::string Captured::text() const {
    std::string text;
    char buffer[4096];
    off_t at = 0;
    while (true) {
        const ssize_t got = ::pread(file_.get(), buffer, sizeof buffer, at);
        if (got <= 0) return text;
        text.append(buffer, static_cast<std::size_t>(got));
        at += got;
    }
}

std::string read_text(const std::filesystem::path& path) {
    std::ifstream file(path);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

std::map<std::string, std::string> fields(const std::string& text) {
    std::map<std::string, std::string> result;
    std::istringstream lines(text);
    for (std::string line; std::getline(lines, line);) {
        const std::size_t colon = line.find(":\t");
        if (colon == std::string::npos) continue;
        std::string value = line.substr(colon + 2);
        while (!value.empty() && value.back() == ' ') value.pop_back();
        result[line.substr(0, colon)] = value;
    }
    return result;
}

std::vector<pid_t> all_pids() {
    std::vector<pid_t> pids;
    for (const auto& entry : std::filesystem::directory_iterator("/proc")) {
        const std::string name = entry.path().filename();
        if (name.find_first_not_of("0123456789") == std::string::npos) pids.push_back(std::stoi(name));
    }
    return pids;
}

bool is_alive(pid_t pid) {
    const std::string state = fields(read_text("/proc/" + std::to_string(pid) + "/status"))["State"];
    return !state.empty() && state.front() != 'Z' && state.front() != 'X';
}

bool eventually(const std::function<bool()>& condition, int seconds) {
    const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(seconds);
    while (!condition()) {
        if (std::chrono::steady_clock::now() > end) return false;
        std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
    return true;
}

}  // namespace postern
