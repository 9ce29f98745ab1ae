// SPDX-License-Identifier: Apache-2.0
#include "launcher/job_output.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <string_view>
#include <utility>
#include <vector>

#include "broker-core/duplicate_fd.h"
#include "launcher/report.h"

namespace postern {
namespace {

constexpr size_t kChunk = 64 << 10;

}  // namespace

std::string log_name(const Job& job, unsigned attempt) {
    std::string_view program = job.command.empty() ? "" : std::string_view(job.command.front());
    program.remove_prefix(program.rfind('/') + 1);  // npos + 1 is 0
    std::string name;
    for (const char c : program.substr(0, 64)) {
        const bool plain = (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') ||
                           c == '.' || c == '-' || c == '_';
        name += plain ? c : '_';
    }
    return fmt::format("{:03}-{}{}.log", job.number, name, attempt > 1 ? fmt::format(".{}", attempt) : "");
}

Result<JobOutput> JobOutput::in_file(const std::string& path) {
    JobOutput output;
    // Whatever has the name now (a log of an earlier run, a link to somewhere) keeps its content.
    if (::unlink(path.c_str()) != 0 && errno != ENOENT) {
        const int errnum = errno;
        return fail_errno(errnum, "{}: cannot remove the old log", path);
    }
    // Two writers share it: appended, neither overwrites the other.
    output.append_.reset(::open(path.c_str(), O_WRONLY | O_APPEND | O_CREAT | O_EXCL | O_CLOEXEC, 0644));
    output.file_.reset(output.append_ ? ::open(path.c_str(), O_RDONLY | O_CLOEXEC) : -1);
    if (!output.file_) {
        const int errnum = errno;
        return fail_errno(errnum, "{}: cannot make the log", path);
    }
    return output;
}

Result<JobOutput> JobOutput::unnamed() {
    const char* folder = std::getenv("TMPDIR");
    const std::string where = folder != nullptr && *folder == '/' ? folder : "/tmp";
    JobOutput output;
    output.file_.reset(::open(where.c_str(), O_TMPFILE | O_RDWR | O_CLOEXEC, 0600));
    if (!output.file_) {
        // Not every file system can: a moment with a name.
        std::string path = where + "/postern-job.XXXXXX";
        output.file_.reset(::mkostemp(path.data(), O_CLOEXEC));
        if (output.file_) ::unlink(path.c_str());
    }
    const std::string link = fmt::format("/proc/self/fd/{}", output.file_.get());
    if (output.file_) output.append_.reset(::open(link.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC));
    if (!output.append_) {
        const int errnum = errno;
        return fail_errno(errnum, "cannot make a file for a job's output in {}", where);
    }
    return output;
}

Result<JobOutput::Redirection> JobOutput::redirect() const {
    Redirection before;
    POSTERN_ASSIGN(before.out_, duplicate_fd(STDOUT_FILENO, "the standard output"));
    POSTERN_ASSIGN(before.err_, duplicate_fd(STDERR_FILENO, "the standard error"));
    if (::dup2(append_.get(), STDOUT_FILENO) < 0 || ::dup2(append_.get(), STDERR_FILENO) < 0) {
        const int errnum = errno;
        return fail_errno(errnum, "cannot redirect a job's output");
    }
    return before;
}

JobOutput::Redirection::~Redirection() {
    if (out_) ::dup2(out_.get(), STDOUT_FILENO);
    if (err_) ::dup2(err_.get(), STDERR_FILENO);
}

Result<std::uint64_t> JobOutput::size() const {
    struct stat status = {};
    if (::fstat(file_.get(), &status) != 0) {
        const int errnum = errno;
        return fail_errno(errnum, "fstat of a job's output");
    }
    return static_cast<std::uint64_t>(status.st_size);
}

Result<std::string> JobOutput::tail(std::uint64_t most) const {
    POSTERN_ASSIGN(const std::uint64_t bytes, size());
    std::string text(std::min(bytes, most), '\0');
    std::uint64_t at = bytes - text.size();
    for (size_t done = 0; done < text.size();) {
        const ssize_t got =
            ::pread(file_.get(), text.data() + done, text.size() - done, static_cast<off_t>(at));
        if (got <= 0) {
            text.resize(done);  // somebody has cut it off
            break;
        }
        done += static_cast<size_t>(got);
        at += static_cast<std::uint64_t>(got);
    }
    return text;
}

Status JobOutput::copy_to(int fd) const {
    std::vector<char> chunk(kChunk);
    char last = '\n';
    for (off_t at = 0;;) {
        const ssize_t got = ::pread(file_.get(), chunk.data(), chunk.size(), at);
        if (got < 0) {
            const int errnum = errno;
            return fail_errno(errnum, "cannot read a job's output");
        }
        if (got == 0) break;
        if (write_out(fd, {chunk.data(), static_cast<size_t>(got)}) != 0) return {};
        last = chunk[static_cast<size_t>(got) - 1];
        at += got;
    }
    if (last != '\n') (void)write_out(fd, "\n");
    return {};
}

}  // namespace postern
