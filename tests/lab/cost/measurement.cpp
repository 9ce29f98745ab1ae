// SPDX-License-Identifier: Apache-2.0
#include "tests/lab/cost/measurement.h"

#include <algorithm>
#include <array>
#include <limits>
#include <vector>

#include "broker-core/guard.h"
#include "broker-core/guard_loader.h"
#include "tests/lab/cost/attached_hooks.h"
#include "tests/lab/cost/bystander.h"
#include "tests/lab/cost/crowd.h"
#include "tests/lab/cost/device_ioctl.h"
#include "tests/lab/cost/empty_programs.h"
#include "tests/lab/cost/instructions.h"
#include "tests/lab/cost/notified_ioctl.h"
#include "tests/lab/cost/proxied_ioctl.h"
#include "tests/lab/cost/vfio_device.h"
#include "tests/lab/guard_block.h"

namespace postern::cost {
namespace {

// States of the machine.
constexpr const char* kNoGuard = "no guard";
constexpr const char* kEmpty = "empty program";
constexpr const char* kGuard = "guard";
constexpr const char* kDetached = "guard, no file guarded any more";

// Calls.
constexpr const char* kDeviceIoctl = "ioctl, device";
constexpr const char* kRuledIoctl = "ioctl with rules, device";

// What is expected.
constexpr long kNothing = 0;
constexpr long kAboveFloor = 15;
constexpr long kAboveUnguarded = 400;
constexpr long kAboveUnguardedInLongList = 425;
constexpr long kAboveUnguardedWithRules = 1500;
/// Entries that share our file's bucket of the hash are looked at first, some ten instructions each.
constexpr long kOfCrowd = 40;

std::string guarded_files(size_t count) {
    return fmt::format("guarded, 1 of {} files", count);
}

/// A policy that allows `commands` and nothing else.
FilePolicy policy_of(const std::vector<uint32_t>& commands) {
    FilePolicy policy;
    policy.grant = "cost";
    for (const uint32_t command : commands) policy.ioctls.push_back({command});
    return policy;
}

/// Another struct file of the device, guarded.
Result<UniqueFd> guarded_file(const VfioDevice& device, Guard& guard, const FilePolicy& policy) {
    POSTERN_ASSIGN(UniqueFd file, device.another_file());
    POSTERN_TRY(guard.register_file(file.get(), policy));
    return file;
}

/// As many commands as a policy can list; VFIO_DEVICE_GET_INFO is the last.
std::vector<uint32_t> longest_list() {
    std::vector<uint32_t> commands(POSTERN_MAX_IOCTLS - 1);
    // Numbers that no driver has.
    for (size_t i = 0; i < commands.size(); i++) commands[i] = static_cast<uint32_t>(_IO('~', i));
    commands.push_back(static_cast<uint32_t>(VFIO_DEVICE_GET_INFO));
    return commands;
}

/// Calls on files that are not guarded.
class PlainRows {
  public:
    PlainRows(Bystander& bystander, CostTable& table) : bystander_(bystander), table_(table) {}

    [[nodiscard]] Status add(const std::string& state) {
        POSTERN_ASSIGN(const PlainCosts costs, bystander_.measure());
        for (const Call& call : kCalls) table_.add(call.name, state, costs.*call.cost);
        return {};
    }
    [[nodiscard]] Status add(const std::string& state, const std::string& against,
                             std::optional<long> at_most) {
        POSTERN_ASSIGN(const PlainCosts costs, bystander_.measure());
        for (const Call& call : kCalls)
            POSTERN_TRY(table_.add(call.name, state, costs.*call.cost, against, at_most));
        return {};
    }

  private:
    struct Call {
        const char* name;
        long PlainCosts::*cost;
    };
    static constexpr std::array kCalls = {
        Call{"ioctl, other file", &PlainCosts::ioctl}, Call{"pread, other file", &PlainCosts::pread},
        Call{"write, other file", &PlainCosts::write}, Call{"mmap, other file", &PlainCosts::mmap}};

    Bystander& bystander_;
    CostTable& table_;
};

/// At least, on any kernel.
size_t hooks_of_guard() {
    return static_cast<size_t>(std::count_if(kGuardHooks.begin(), kGuardHooks.end(),
                                             [](const GuardHook& hook) { return !hook.optional; }));
}

Status add_empty_rows(const UniqueFd& unguarded, PlainRows& plain, CostTable& table) {
    POSTERN_ASSIGN(const EmptyPrograms programs, EmptyPrograms::attach());
    POSTERN_TRY(check_attached(EmptyPrograms::kCount));
    POSTERN_TRY(plain.add(kEmpty, kNoGuard, std::nullopt));
    POSTERN_ASSIGN(const long cost, cost_of_allowed_ioctl(unguarded.get()));
    return table.add(kDeviceIoctl, kEmpty, cost, kNoGuard);
}

/// Policies whose rules look at the command alone.
Status add_command_rows(const VfioDevice& device, Guard& guard, CostTable& table) {
    const FilePolicy few = policy_of({static_cast<uint32_t>(VFIO_DEVICE_GET_INFO)});
    POSTERN_ASSIGN(const UniqueFd file, guarded_file(device, guard, few));
    POSTERN_ASSIGN(const long allowed, cost_of_allowed_ioctl(file.get()));
    POSTERN_TRY(table.add(kDeviceIoctl, "guarded, allowed", allowed, kNoGuard, kAboveUnguarded));
    POSTERN_ASSIGN(const long refused, cost_of_refused_ioctl(file.get()));
    POSTERN_TRY(table.add(kDeviceIoctl, "guarded, refused", refused, kNoGuard));

    POSTERN_ASSIGN(const UniqueFd long_list, guarded_file(device, guard, policy_of(longest_list())));
    POSTERN_ASSIGN(const long last, cost_of_allowed_ioctl(long_list.get()));
    const std::string state = fmt::format("guarded, allowed as the last of {}", POSTERN_MAX_IOCTLS);
    POSTERN_TRY(table.add(kDeviceIoctl, state, last, kNoGuard, kAboveUnguardedInLongList));
    POSTERN_ASSIGN(const long none, cost_of_refused_ioctl(long_list.get()));
    return table.add(kDeviceIoctl, fmt::format("guarded, refused after {}", POSTERN_MAX_IOCTLS), none,
                     kNoGuard);
}

/// A policy whose rules look at the argument: one feature may be asked for, and nothing else be done with it.
FilePolicy feature_policy() {
    GuardIoctl ioctl{.number = static_cast<uint32_t>(VFIO_DEVICE_FEATURE)};
    ioctl.block_size = sizeof(vfio_device_feature);
    ioctl.size_at = offsetof(vfio_device_feature, argsz);
    const FieldTest feature{
        .offset = 4, .width = 2, .ranges = {{VFIO_DEVICE_FEATURE_DMA_BUF, VFIO_DEVICE_FEATURE_DMA_BUF}}};
    const uint64_t probe = (VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_GET) >> 16;
    const FieldTest direction{.offset = 6, .width = 2, .ranges = {{probe, probe}}};
    ioctl.alternatives = {{feature, direction}};
    FilePolicy policy;
    policy.grant = "cost";
    policy.ioctls = {ioctl};
    return policy;
}

Result<const void*> sealed(const FeatureProbe& probe) {
    const test::LaidOut laid = test::lay_out(&probe.feature, sizeof probe.feature);
    if (laid.block != nullptr) {
        // Into memory: the guard does not wait for a page that is not there.
        (void)*static_cast<const volatile char*>(laid.block);
        return laid.block;
    }
    const int error = errno;
    return fail_errno(error, "cannot make a sealed block");
}

Status add_rule_rows(const VfioDevice& device, Guard& guard, CostTable& table) {
    const FeatureProbe granted(VFIO_DEVICE_FEATURE_DMA_BUF);
    const FeatureProbe other(VFIO_DEVICE_FEATURE_MIGRATION);
    POSTERN_ASSIGN(const UniqueFd file, guarded_file(device, guard, feature_policy()));
    POSTERN_ASSIGN(const void* const fits, sealed(granted));
    POSTERN_ASSIGN(const void* const does_not_fit, sealed(other));
    POSTERN_ASSIGN(const long allowed, cost_of_feature_ioctl(file.get(), fits, 0));
    POSTERN_TRY(
        table.add(kRuledIoctl, "guarded, allowed by two tests", allowed, kNoGuard, kAboveUnguardedWithRules));
    POSTERN_ASSIGN(const long refused, cost_of_feature_ioctl(file.get(), does_not_fit, EPERM));
    POSTERN_TRY(table.add(kRuledIoctl, "guarded, refused by its argument", refused, kNoGuard));
    POSTERN_ASSIGN(const long plain, cost_of_feature_ioctl(file.get(), &granted.feature, EPERM));
    return table.add(kRuledIoctl, "guarded, refused: not sealed", plain, kNoGuard);
}

/// The same ioctl while more and more other files are guarded, too.
Status add_crowd_rows(const VfioDevice& device, Guard& guard, PlainRows& plain, CostTable& table) {
    constexpr std::array<size_t, 3> kSizes = {10, 1000, 50000};
    // Three, and the cheapest of them counts: how many others share a file's bucket is chance, a search
    // through all of them is not.
    std::vector<UniqueFd> files;
    for (int i = 0; i < 3; ++i) {
        POSTERN_ASSIGN(UniqueFd file,
                       guarded_file(device, guard, policy_of({static_cast<uint32_t>(VFIO_DEVICE_GET_INFO)})));
        files.push_back(std::move(file));
    }
    Crowd crowd;
    for (const size_t size : kSizes) {
        // With these and the one of add_guard_rows().
        POSTERN_TRY(crowd.grow_to(size - files.size() - 1));
        long cost = std::numeric_limits<long>::max();
        for (const UniqueFd& file : files) {
            POSTERN_ASSIGN(const long one, cost_of_allowed_ioctl(file.get()));
            cost = std::min(cost, one);
        }
        if (size == kSizes.front()) {
            table.add(kDeviceIoctl, guarded_files(size), cost);
        } else {
            POSTERN_TRY(
                table.add(kDeviceIoctl, guarded_files(size), cost, guarded_files(kSizes.front()), kOfCrowd));
        }
    }
    return plain.add(fmt::format("{}, {} files guarded", kGuard, kSizes.back()), kEmpty, kAboveFloor);
}

Status add_guard_rows(const VfioDevice& device, PlainRows& plain, CostTable& table) {
    POSTERN_ASSIGN(Guard guard, Guard::acquire());
    {
        // As a grant of a device does it.
        POSTERN_ASSIGN(const UniqueFd file, guarded_file(device, guard, policy_of({})));
        POSTERN_TRY(guard.learn(device.group()));
        POSTERN_TRY(guard.learn(device.container()));
        POSTERN_TRY(check_attached(hooks_of_guard()));
        POSTERN_TRY(plain.add(kGuard, kEmpty, kAboveFloor));
        POSTERN_TRY(add_command_rows(device, guard, table));
        POSTERN_TRY(add_rule_rows(device, guard, table));
        POSTERN_TRY(add_crowd_rows(device, guard, plain, table));
    }
    return guard.release();
}

}  // namespace

Result<CostTable> measure(const std::string& bdf) {
    POSTERN_TRY(check_instructions_are_counted());
    CostTable table;
    POSTERN_ASSIGN(Bystander bystander, Bystander::start());
    PlainRows plain(bystander, table);
    POSTERN_ASSIGN(const VfioDevice device, VfioDevice::open(bdf));
    POSTERN_ASSIGN(const UniqueFd unguarded, device.another_file());

    POSTERN_TRY(wait_until_none_is_attached());
    POSTERN_TRY(plain.add(kNoGuard));
    POSTERN_ASSIGN(const long bare, cost_of_allowed_ioctl(unguarded.get()));
    table.add(kDeviceIoctl, kNoGuard, bare);
    const FeatureProbe probe(VFIO_DEVICE_FEATURE_DMA_BUF);
    POSTERN_ASSIGN(const long bare_probe, cost_of_feature_ioctl(unguarded.get(), &probe.feature, 0));
    table.add(kRuledIoctl, kNoGuard, bare_probe);

    POSTERN_TRY(add_empty_rows(unguarded, plain, table));
    POSTERN_TRY(wait_until_none_is_attached());
    POSTERN_TRY(add_guard_rows(device, plain, table));
    POSTERN_TRY(wait_until_none_is_attached());
    POSTERN_TRY(plain.add(kDetached, kNoGuard, kNothing));
    POSTERN_ASSIGN(const long detached, cost_of_allowed_ioctl(unguarded.get()));
    POSTERN_TRY(table.add(kDeviceIoctl, kDetached, detached, kNoGuard, kNothing));

    // The alternatives.
    POSTERN_ASSIGN(const long notified, cost_of_notified_ioctl(unguarded.get()));
    POSTERN_TRY(table.add(kDeviceIoctl, "seccomp user notification", notified, kNoGuard));
    POSTERN_ASSIGN(const long proxied, cost_of_proxied_ioctl(unguarded.get()));
    POSTERN_TRY(table.add(kDeviceIoctl, "proxy over a unix socket", proxied, kNoGuard));
    return table;
}

}  // namespace postern::cost
