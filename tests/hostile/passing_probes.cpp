// SPDX-License-Identifier: Apache-2.0
// Other ways to the same guarded file: whatever leads there must find the guard in place.
#include <fcntl.h>
#include <pthread.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cerrno>
#include <csignal>

#include <fmt/format.h>

#include "broker-core/unique_fd.h"
#include "tests/hostile/device_ops.h"
#include "tests/hostile/passed_on.h"
#include "tests/hostile/paths.h"
#include "tests/hostile/probe.h"
#include "tests/support/passing.h"

namespace postern::hostile {
namespace {

/// What to do with the fd once it has come along: a refused ioctl or a refused mmap.
using Use = Attempt (*)(const Target&, int fd);

/// Exit status of a child: 0 succeeded, an errno, or this.
constexpr int kCouldNotTry = 255;

int as_status(const Attempt& attempt) {
    switch (attempt.state) {
        case Attempt::State::Succeeded:
            return 0;
        case Attempt::State::Failed:
            return attempt.errnum;
        default:
            return kCouldNotTry;
    }
}

Attempt from_status(pid_t child, const char* step) {
    int status = 0;
    if (waitpid(child, &status, 0) != child) return preparation_failed("waitpid");
    if (!WIFEXITED(status))
        return failed(ENOSYS, fmt::format("{}: killed by signal {}", step, WTERMSIG(status)));
    const int code = WEXITSTATUS(status);
    if (code == kCouldNotTry) return impossible(std::string(step) + ": could not try");
    return code == 0 ? succeeded(step) : failed(code, step);
}

/// Forks a child that dies with its parent; its status says how `body` went.
template <typename Body>
pid_t fork_child(Body body) {
    const pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        _exit(as_status(body()));
    }
    return child;
}

Attempt after_dup(const Target& target, Use use) {
    const UniqueFd copy(dup(target.device));
    if (!copy) return preparation_failed("dup");
    return use(target, copy.get());
}

Attempt after_dup3(const Target& target, Use use) {
    rlimit limit{};
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return preparation_failed("getrlimit");
    const UniqueFd copy(dup3(target.device, static_cast<int>(limit.rlim_cur) - 1, O_CLOEXEC));
    if (!copy) return preparation_failed("dup3");
    return use(target, copy.get());
}

Attempt after_fcntl(const Target& target, Use use) {
    const UniqueFd copy(fcntl(target.device, F_DUPFD, 100));
    if (!copy) return preparation_failed("F_DUPFD");
    return use(target, copy.get());
}

Attempt after_fork(const Target& target, Use use) {
    const pid_t child = fork_child([&] { return use(target, target.device); });
    if (child < 0) return preparation_failed("fork");
    return from_status(child, "in the child");
}

struct ThreadJob {
    const Target& target;
    Use use;
    Attempt result;
};

Attempt in_thread(const Target& target, Use use) {
    ThreadJob job{target, use, {}};
    pthread_t thread;
    const auto run = [](void* argument) -> void* {
        auto* work = static_cast<ThreadJob*>(argument);
        work->result = work->use(work->target, work->target.device);
        return nullptr;
    };
    errno = pthread_create(&thread, nullptr, run, &job);
    if (errno != 0) return preparation_failed("pthread_create");
    pthread_join(thread, nullptr);
    return job.result;
}

/// The program again, in an exec'ed process image, which has nothing of this one but the fd.
Attempt after_exec(const Target& target, const char* action, const std::string& object) {
    const pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        if (fcntl(target.device, F_SETFD, 0) != 0) _exit(kCouldNotTry);
        const std::string fd = std::to_string(target.device);
        execl("/proc/self/exe", "hostile-client", kPassedOnFlag, action, fd.c_str(), object.c_str(), nullptr);
        _exit(kCouldNotTry);
    }
    if (child < 0) return preparation_failed("fork");
    return from_status(child, "after exec");
}

Attempt over_socket(const Target& target, Use use) {
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0) return judged(-1, "socketpair");
    if (test::send_fd(ends[0], target.device) != 0) return judged(-1, "sendmsg");
    const pid_t child = fork_child([&] {
        close(target.device);
        const UniqueFd received = test::receive_fd(ends[1]);
        return received ? use(target, received.get()) : judged(-1, "recvmsg");
    });
    if (child < 0) return preparation_failed("fork");
    return from_status(child, "in the receiver");
}

/// A sibling that has `fd` open; it waits to be killed by its parent's end.
pid_t fork_holder() {
    return fork_child([] {
        pause();
        return succeeded();
    });
}

Attempt over_pidfd(const Target& target, int fd, Use use) {
    const pid_t holder = fork_holder();
    if (holder < 0) return preparation_failed("fork");
    const UniqueFd process = test::pidfd_of(holder);
    if (!process) return judged(-1, "pidfd_open");
    const UniqueFd copy = test::fd_from(process.get(), fd);
    Attempt attempt = copy ? use(target, copy.get()) : judged(-1, "pidfd_getfd");
    kill(holder, SIGKILL);
    waitpid(holder, nullptr, 0);
    return attempt;
}

Attempt reopen(const Target& target, int flags) {
    const std::string path = fmt::format("/proc/self/fd/{}", target.device);
    const UniqueFd again(open(path.c_str(), flags | O_CLOEXEC));
    if (!again) return judged(-1, "open");
    return ask_refused(target, again.get());
}

Attempt reopen_manifest(const Target& target) {
    const std::string path = fmt::format("/proc/self/fd/{}", target.manifest);
    const UniqueFd again(open(path.c_str(), O_RDONLY | O_CLOEXEC));
    return judged(again.get());
}

/// The same way, taken by something that nobody minds: the granted question, or the window.
Attempt ask_granted_by(const Target& target, int fd) {
    return ask_granted(target, fd);
}

struct Way {
    const char* name;
    const char* what;
    Attempt (*by)(const Target&, Use);
};

}  // namespace

int passed_on(const std::string& action, const std::string& fd_text, const std::string& object) {
    if (action == "nothing") return 0;
    const std::optional<uint64_t> number = number_of(fd_text);
    if (!number) return kCouldNotTry;
    const int fd = static_cast<int>(*number);
    if (action == "mmap") return as_status(map(fd, kPage, PROT_READ, MAP_SHARED, std::stoll(object)));
    for (const Question& question : questions()) {
        if (object == question.name) return as_status(judged(question.ask(fd, question.request)));
    }
    return kCouldNotTry;
}

void add_passing_probes(Probes& probes) {
    const Way ways[] = {{"dup", "after dup", after_dup},
                        {"dup3", "after dup3 to the last number", after_dup3},
                        {"fcntl-dup", "after fcntl F_DUPFD", after_fcntl},
                        {"fork", "in a forked child", after_fork},
                        {"thread", "in another thread", in_thread},
                        {"scm-rights", "by a child that got the fd over a socket", over_socket},
                        {"pidfd-getfd", "by pidfd_getfd from a sibling",
                         [](const Target& t, Use use) { return over_pidfd(t, t.device, use); }}};
    for (const Way& way : ways) {
        const Control control{"a granted ioctl the same way",
                              [by = way.by](const Target& t) { return by(t, ask_granted_by); }};
        probes.push_back({.name = std::string(way.name) + "-ioctl",
                          .group = "passing",
                          .what = std::string("a refused ioctl ") + way.what,
                          .attempt = [by = way.by](const Target& t) { return by(t, ask_refused); },
                          .control = control});
        probes.push_back({.name = std::string(way.name) + "-mmap",
                          .group = "passing",
                          .what = std::string("mmap of another page ") + way.what,
                          .attempt = [by = way.by](const Target& t) { return by(t, map_foreign); },
                          .control = control});
    }
    const Control exec_control{"exec of the program itself",
                               [](const Target& t) { return after_exec(t, "nothing", ""); }};
    probes.push_back({.name = "exec-ioctl",
                      .group = "passing",
                      .what = "a refused ioctl after exec",
                      .attempt =
                          [](const Target& t) {
                              const Question* question = refused_question(t);
                              if (question == nullptr)
                                  return nothing("the profile grants every ioctl that only asks");
                              return after_exec(t, "ioctl", question->name);
                          },
                      .control = exec_control});
    probes.push_back(
        {.name = "exec-mmap",
         .group = "passing",
         .what = "mmap of another page after exec",
         .attempt = [](const Target& t) { return after_exec(t, "mmap", std::to_string(foreign_page(t))); },
         .control = exec_control});
    for (const int flags : {O_RDWR, O_RDONLY}) {
        probes.push_back(
            {.name = flags == O_RDWR ? "reopen" : "reopen-read-only",
             .group = "passing",
             .what = flags == O_RDWR ? "open of /proc/self/fd/N of the device" : "the same, O_RDONLY",
             .attempt = [flags](const Target& t) { return reopen(t, flags); },
             .control = {"open of /proc/self/fd/N of the manifest", reopen_manifest},
             .inherent = {ENXIO, EINVAL},
             .inherent_why = "a device file from a VFIO group cannot be opened by name, one from a "
                             "cdev not twice",
             .kernel_first = true});
    }
}

}  // namespace postern::hostile
