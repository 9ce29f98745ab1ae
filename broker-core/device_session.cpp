// SPDX-License-Identifier: Apache-2.0
#include "broker-core/device_session.h"

#include <fcntl.h>
#include <linux/memfd.h>
#include <linux/mman.h>
#include <linux/pci_regs.h>
#include <linux/vfio.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include <algorithm>
#include <set>

#include "broker-core/device_files.h"
#include "broker-core/dma_map.h"
#include "broker-core/duplicate_fd.h"
#include "broker-core/file.h"
#include "broker-core/guarded_file.h"
#include "broker-core/iommufd.h"
#include "broker-core/scope_guard.h"
#include "broker-core/vfio.h"

namespace postern {
namespace {

/// FilePolicy::file; 0 is the device's.
constexpr uint16_t kIommufdFile = 1U << 14;
constexpr uint64_t kHugePage = 2ULL << 20;
/// Memory that waits for a client is memory that nobody has.
constexpr uint64_t kMostPrepared = 64ULL << 20;

/// Of the whole file, at an address that its huge pages could be mapped to.
Result<MappedRange> map_whole(int memfd, uint64_t size) {
    const auto failed = [size](int error) {
        return fail_errno(error, "cannot map memory of {}", format_size(size));
    };
    void* const room =
        ::mmap(nullptr, size + kHugePage, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (room == MAP_FAILED) return failed(errno);
    const auto first = reinterpret_cast<uintptr_t>(room);
    const uintptr_t start = (first + kHugePage - 1) & ~(kHugePage - 1);
    if (start > first) ::munmap(room, start - first);
    if (first + kHugePage > start) ::munmap(reinterpret_cast<void*>(start + size), first + kHugePage - start);
    void* const at = ::mmap(reinterpret_cast<void*>(start), size, PROT_READ | PROT_WRITE,
                            MAP_SHARED | MAP_FIXED, memfd, 0);
    if (at != MAP_FAILED) return MappedRange(at, size);
    const int error = errno;
    ::munmap(reinterpret_cast<void*>(start), size);
    return failed(error);
}

/// Huge pages that nobody has reserved, where the kernel finds some (Linux 6.1): what is pinned, mapped for
/// the device and freed one by one is a few hundred times less then. Never an error: small ones do as well.
void gather_pages(void* at, uint64_t size) {
    for (uint64_t done = 0; done < size; done += kHugePage) {
        // Empty ones are left alone.
        *(static_cast<volatile char*>(at) + done) = 0;
        if (::madvise(static_cast<char*>(at) + done, kHugePage, MADV_COLLAPSE) != 0) return;
    }
}

/// Memory as `dma` says, zeroed and all there: what is pinned later is not made then.
Result<DmaBacking> make_memory(const PlannedDma& dma, bool huge) {
    DmaBacking memory{dma.name, {}, dma.size, dma.iova};
    const unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING | (huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0U);
    memory.memfd = UniqueFd(::memfd_create(("postern-dma-" + dma.name).c_str(), flags));
    if (!memory.memfd) {
        const int error = errno;
        return fail_errno(error, "memfd_create");
    }
    if (::ftruncate(memory.memfd.get(), static_cast<off_t>(dma.size)) != 0) {
        const int error = errno;
        return fail_errno(error, "cannot size memory of {}", format_size(dma.size));
    }
    // hugetlb reserves its pages here: without enough of them this fails rather than a later touch.
    POSTERN_ASSIGN(memory.mapping, map_whole(memory.memfd.get(), dma.size));
    void* const at = memory.mapping.at();
    if (!huge && dma.hugepages == DmaMemory::HugePages::Auto && dma.size % kHugePage == 0)
        gather_pages(at, dma.size);
    // Where nothing was gathered these are small ones.
    if (::madvise(at, dma.size, MADV_POPULATE_WRITE) != 0) {
        const int error = errno;
        return fail_errno(error, "cannot have memory of {}", format_size(dma.size));
    }
    // A sandbox's init is a copy of this process, and would have it as long as it lives.
    if (::madvise(at, dma.size, MADV_DONTFORK) != 0) {
        const int error = errno;
        return fail_errno(error, "cannot keep DMA memory from processes made later");
    }
    // The pages are pinned for the device: a client that changed the file's size would only part itself from
    // them.
    if (::fcntl(memory.memfd.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) != 0) {
        const int error = errno;
        return fail_errno(error, "cannot seal DMA memory");
    }
    return memory;
}

Result<DmaBacking> make_memory(const PlannedDma& dma) {
    using HugePages = DmaMemory::HugePages;
    const bool whole = dma.size % kHugePage == 0;
    if (dma.hugepages == HugePages::Never || (dma.hugepages == HugePages::Auto && !whole))
        return make_memory(dma, false);
    if (!whole)
        return fail("size {} is not a multiple of a huge page ({})", format_size(dma.size),
                    format_size(kHugePage));
    auto huge = make_memory(dma, true);
    if (huge) return huge;
    if (dma.hugepages == HugePages::Auto) return make_memory(dma, false);
    return fail("{}; reserve huge pages in /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages",
                huge.error().message);
}

/// Blocking: a client that waits does so in one read(2).
Result<UniqueFd> make_event() {
    UniqueFd event(::eventfd(0, EFD_CLOEXEC));
    if (event) return event;
    const int error = errno;
    return fail_errno(error, "eventfd");
}

Result<SliceBacking> make_backing(const SlicePlan& slice) {
    SliceBacking made;
    for (const PlannedDma& dma : slice.dma) {
        auto memory = make_memory(dma);
        if (!memory)
            return propagate(std::move(memory), fmt::format("dma \"{}\" of slice {}", dma.name, slice.slice));
        made.dma.push_back(std::move(*memory));
    }
    for (const PlannedIrq& irq : slice.irqs) {
        POSTERN_ASSIGN(UniqueFd event, make_event());
        made.irqs.push_back({irq.name, irq.index, irq.vector, std::move(event)});
    }
    return made;
}

/// Keeps the first error of several steps that all have to be done.
void keep_first(Status& first, Status&& next) {
    if (first && !next) first = std::move(next);
}

}  // namespace

MappedRange& MappedRange::operator=(MappedRange&& other) noexcept {
    std::swap(at_, other.at_);
    std::swap(size_, other.size_);
    return *this;
}

MappedRange::~MappedRange() {
    if (at_ != nullptr) ::munmap(at_, size_);
}

Status DeviceSession::check(const Profile& profile, const PciDevice& pci) {
    POSTERN_ASSIGN(const DevicePlan forecast, plan_device(profile, forecast_device_info(pci)));
    for (const auto* programs : {&forecast.setup.device, &forecast.setup.slice, &forecast.teardown.device,
                                 &forecast.teardown.slice}) {
        for (const ProgramLine& line : *programs) {
            if (auto found = find_program(line[0], profile.folder); !found) {
                return propagate(std::move(found), "profile " + profile.name);
            }
        }
    }
    return {};
}

Result<DeviceSession> DeviceSession::open(const Profile& profile, const std::string& bdf, Backend backend,
                                          ProgramSignals signals) {
    POSTERN_ASSIGN(const PciDevice pci, read_pci_device(bdf));
    // All that can be refused is refused before anything is opened.
    POSTERN_TRY(check(profile, pci));
    POSTERN_TRY(check_ownable(pci));
    DeviceSession session;
    session.signals_ = signals;
    session.id_ = random_id();
    if (auto owned = session.own(pci, profile, backend); !owned) {
        (void)session.close();
        return propagate(std::move(owned));
    }
    return session;
}

DeviceSession::~DeviceSession() {
    (void)close();
}

/// What the kernel says of the device and of its IOMMU.
Status DeviceSession::learn(const PciDevice& pci) {
    POSTERN_ASSIGN(info_, vfio::read_device_info(device(), pci));
    POSTERN_ASSIGN(IovaSpace space, access_->iova_space());
    info_.iova_ranges = std::move(space.ranges);
    info_.iova_alignment = space.alignment;
    return {};
}

Status DeviceSession::own(const PciDevice& pci, const Profile& profile, Backend wanted) {
    const std::string context = "device " + pci.bdf;
    const auto here = [&](Status&& status) -> Status {
        if (!status) return propagate(std::move(status), context);
        return {};
    };
    const bool needs_iommufd = profile.device && profile.device->dma_map;
    auto backend = choose_backend(wanted, backend_nodes(pci), needs_iommufd);
    if (!backend) return propagate(std::move(backend), context);
    auto access = DeviceAccess::open(pci, *backend);
    if (!access) return propagate(std::move(access), context);
    access_ = std::move(*access);
    POSTERN_TRY(here(learn(pci)));
    POSTERN_ASSIGN(plan_, plan_device(profile, info_));

    if (plan_.reset_before) POSTERN_TRY(here(vfio::reset(device())));
    if (plan_.bus_master) POSTERN_TRY(here(enable_memory_and_bus_master()));
    for (const SlicePlan& slice : plan_.slices) {
        auto backing = make_backing(slice);
        if (!backing) return propagate(std::move(backing), context);
        POSTERN_TRY(here(map_dma(backings_.emplace_back(std::move(*backing)), slice)));
    }
    free_left();
    states_.assign(plan_.slices.size(), SliceState::Fresh);
    POSTERN_TRY(here(wire_irqs()));
    set_up_ = true;
    return run_programs(plan_.setup.device, "setup", std::nullopt);
}

Status DeviceSession::enable_memory_and_bus_master() {
    const uint64_t config = info_.regions[VFIO_PCI_CONFIG_REGION_INDEX].file_offset;
    POSTERN_ASSIGN(const uint16_t command, vfio::read_command(device(), config));
    command_before_ = command;
    return vfio::write_command(device(), config,
                               static_cast<uint16_t>(command | PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER));
}

/// The mappings go later, with the backing or when there is time.
Status DeviceSession::map_dma(SliceBacking& backing, const SlicePlan& slice) {
    for (size_t i = 0; i < slice.dma.size(); ++i) {
        const PlannedDma& dma = slice.dma[i];
        auto mapped = access_->map({backing.dma[i].memfd.get(), backing.dma[i].mapping.at(), dma.size},
                                   dma.iova, dma.access.read, dma.access.write);
        if (!mapped)
            return propagate(std::move(mapped), fmt::format("dma \"{}\" of slice {}", dma.name, slice.slice));
    }
    return {};
}

Status DeviceSession::wire_irqs() {
    // VFIO sizes MSI and MSI-X at the first call and older kernels cannot grow them: one call an index, all
    // slices in it.
    std::map<uint32_t, std::vector<int>> vectors;
    for (const SliceBacking& slice : backings_) {
        for (const IrqBacking& irq : slice.irqs) {
            std::vector<int>& wired = vectors[irq.index];
            if (wired.size() <= irq.vector) wired.resize(irq.vector + 1, -1);
            wired[irq.vector] = irq.eventfd.get();
        }
    }
    for (const auto& [index, eventfds] : vectors) {
        POSTERN_TRY(vfio::set_irqs(device(), index, 0, eventfds));
        wired_.push_back(index);
    }
    return {};
}

Status DeviceSession::run_programs(const std::vector<ProgramLine>& programs, const char* what,
                                   std::optional<unsigned> slice) {
    if (programs.empty()) return {};
    BorrowedFds fds{{"manifest", -1}, {"device", device()}};
    for (size_t i = 0; i < backings_.size(); ++i) {
        for (const DmaBacking& dma : backings_[i].dma)
            fds.emplace_back(fmt::format("dma.{}.{}", dma.name, i), dma.memfd.get());
    }
    for (size_t i = 0; i < backings_.size(); ++i) {
        for (const IrqBacking& irq : backings_[i].irqs)
            fds.emplace_back(fmt::format("irq.{}.{}", irq.name, i), irq.eventfd.get());
    }
    std::vector<std::string> names;
    for (const auto& [name, fd] : fds) names.push_back(name);
    const std::string text = program_manifest(id_, plan_, slice, names).dump();
    std::optional<ChildMark> mark;
    if (access_->is_shared()) {
        POSTERN_ASSIGN(mark, ChildMark::program());
    }
    for (const ProgramLine& line : programs) {
        // One each: a file offset is shared by all who get the same description.
        POSTERN_ASSIGN(const UniqueFd manifest, sealed_memfd("postern-manifest", text));
        fds[0].second = manifest.get();
        if (auto ran = run_program(line, plan_.folder, fds, nullptr, signals_, mark ? &*mark : nullptr); !ran)
            return propagate(std::move(ran), what);
    }
    return {};
}

Status DeviceSession::add_to(Grant& grant, Guard& guard, const SandboxIdentity& sandbox) {
    return add_slice(grant, backings_.at(grant.slice), &guard, sandbox);
}

Status DeviceSession::add_next_to(Grant& grant, Guard& guard, const SandboxIdentity& sandbox) {
    const auto next = next_.find(grant.slice);
    if (next == next_.end()) return fail("slice {} is not prepared", grant.slice);
    return add_slice(grant, next->second, &guard, sandbox);
}

Result<Grant> DeviceSession::grant_unguarded(unsigned slice) {
    POSTERN_TRY(begin_slice(slice));
    Grant grant = begin_grant(slice);
    POSTERN_TRY(add_slice(grant, backings_[slice], nullptr, {}));
    POSTERN_TRY(finish_grant(grant));
    return grant;
}

Status DeviceSession::add_slice(Grant& grant, const SliceBacking& backing, Guard* guard,
                                const SandboxIdentity& sandbox) {
    const DeviceSource source = device_source(*access_, "add the method \"mmap\"");
    POSTERN_TRY(add_device_files(grant, plan_, plan_.slices.at(grant.slice), source, guard, sandbox));
    POSTERN_TRY(add_dma_map(grant, guard, sandbox));
    for (const DmaBacking& dma : backing.dma) {
        POSTERN_ASSIGN(UniqueFd copy, duplicate_fd(dma.memfd.get(), "a memfd"));
        grant.fds.push_back({"dma." + dma.name, std::move(copy)});
    }
    for (const IrqBacking& irq : backing.irqs) {
        POSTERN_ASSIGN(UniqueFd copy, duplicate_fd(irq.eventfd.get(), "an eventfd"));
        grant.fds.push_back({"irq." + irq.name, std::move(copy)});
    }
    return {};
}

/// The iommufd, on which the client may map memory of its own, in its part of the address space and nowhere
/// else.
Status DeviceSession::add_dma_map(Grant& grant, Guard* guard, const SandboxIdentity& sandbox) {
    const auto& planned = plan_.slices.at(grant.slice).dma_map;
    if (!planned) return {};
    POSTERN_ASSIGN(UniqueFd iommufd, duplicate_fd(access_->iommufd(), "the iommufd"));
    if (guard != nullptr) {
        FilePolicy policy = policy_of(grant, plan_, sandbox);
        policy.file = kIommufdFile;
        policy.shared = true;
        policy.unreadable = true;
        policy.ioctls = dma_map_ioctls(*planned, access_->ioas());
        if (auto guarded = guard_file(*guard, iommufd.get(), std::move(policy)); !guarded)
            return propagate(std::move(guarded), "device.dma_map");
    }
    grant.manifest["dma_map"] = {
        {"fd", "iommu"},         {"ioas", access_->ioas()},           {"iova", planned->iova},
        {"size", planned->size}, {"alignment", info_.iova_alignment}, {"access", planned->access.text()}};
    grant.fds.push_back({"iommu", std::move(iommufd)});
    return {};
}

Status DeviceSession::unmap_own(unsigned slice) {
    const auto& planned = plan_.slices.at(slice).dma_map;
    return planned ? access_->unmap(planned->iova, planned->size) : Status();
}

/// What costs time and was put off: memory of clients that are gone, mappings that nobody needs any more.
void DeviceSession::free_left() {
    left_.clear();
    for (SliceBacking& backing : backings_) {
        for (DmaBacking& dma : backing.dma) dma.mapping = MappedRange();
    }
}

Status DeviceSession::prepare_slice(unsigned slice) {
    free_left();
    if (next_.contains(slice)) return {};
    uint64_t size = 0;
    for (const PlannedDma& dma : plan_.slices.at(slice).dma) size += dma.size;
    if (size > kMostPrepared)
        return fail("slice {}: {} of DMA memory are too much to be there twice", slice, format_size(size));
    POSTERN_ASSIGN(SliceBacking made, make_backing(plan_.slices.at(slice)));
    next_.emplace(slice, std::move(made));
    return {};
}

Status DeviceSession::begin_slice(unsigned slice) {
    // A launch, or a broker, that came to its end in between.
    if (states_.at(slice) == SliceState::Used) POSTERN_TRY(end_slice(slice));
    // What is prepared is some grant's already.
    if (states_[slice] == SliceState::TornDown || next_.contains(slice)) POSTERN_TRY(renew_slice(slice));
    states_[slice] = SliceState::Used;
    return run_programs(plan_.setup.slice, "setup", slice);
}

Status DeviceSession::end_slice(unsigned slice) {
    Status first = run_programs(plan_.teardown.slice, "teardown", slice);
    keep_first(first, wire_slice(slice, false));
    keep_first(first, unmap_own(slice));
    // One that could not be torn down is tried again before it is anybody's.
    states_.at(slice) = first ? SliceState::TornDown : SliceState::Used;
    return first;
}

Status DeviceSession::wire_slice(unsigned slice, bool on) {
    Status first;
    for (const IrqBacking& irq : backings_[slice].irqs) {
        const int event = on ? irq.eventfd.get() : -1;
        keep_first(first, vfio::set_irqs(device(), irq.index, irq.vector, {&event, 1}));
    }
    return first;
}

/// Zeroing what is there would not do: whoever got the memory or an eventfd from the client that had it
/// before would have the next one's.
Status DeviceSession::renew_slice(unsigned slice) {
    const SlicePlan& planned = plan_.slices.at(slice);
    // What is mapped may be what a process that is gone has put there: by the plan, not by what is known.
    for (const PlannedDma& dma : planned.dma) POSTERN_TRY(access_->unmap(dma.iova, dma.size));
    if (auto next = next_.extract(slice); next) {
        left_.push_back(std::exchange(backings_[slice], std::move(next.mapped())));
        POSTERN_TRY(map_dma(backings_[slice], planned));
    } else {
        // Why before the new is made: there may be no more huge pages than for one.
        backings_[slice] = SliceBacking();
        POSTERN_ASSIGN(backings_[slice], make_backing(planned));
        POSTERN_TRY(map_dma(backings_[slice], planned));
        free_left();
    }
    return wire_slice(slice, true);
}

Status DeviceSession::reset() {
    POSTERN_TRY(vfio::reset(device()));
    // A reset takes the command register's bits with it; where it was before is known already.
    if (plan_.bus_master) {
        const std::optional<uint16_t> before = command_before_;
        POSTERN_TRY(enable_memory_and_bus_master());
        command_before_ = before;
    }
    return run_programs(plan_.setup.device, "setup", std::nullopt);
}

Status DeviceSession::reserve_peer(const std::string& device, unsigned slice, const PlannedPeer& peer) {
    const std::string context = "device " + plan_.bdf;
    if (access_->iommufd() < 0) {
        return fail(
            "{}: is owned by the backend \"{}\", which maps no window of another device; own it by "
            "\"iommufd\" "
            "or \"cdev\"",
            context, backend_name(access_->backend()));
    }
    if (auto room = check_room(plan_, info_, peer.iova, peer.pages.size()); !room)
        return propagate(std::move(room), context);
    const Reaching wanted{device, slice, peer.iova, peer.pages.size()};
    for (const Reaching& each : reaching_) {
        if (each == wanted) return {};
        if (!Range{each.iova, each.iova + each.size}.overlaps({wanted.iova, wanted.iova + wanted.size}))
            continue;
        return fail("{}: iova {:#x} to {:#x} overlaps the window of slice {} of device {}, at {:#x} to {:#x}",
                    context, wanted.iova, wanted.iova + wanted.size, each.slice, each.device, each.iova,
                    each.iova + each.size);
    }
    // Without it the device reaches nothing, and its profile may have no memory of its own.
    if (!command_before_) POSTERN_TRY(enable_memory_and_bus_master());
    reaching_.push_back(wanted);
    return {};
}

Status DeviceSession::map_peer(int dmabuf, const PlannedPeer& peer) {
    // What an earlier one left: its window may have been taken from it meanwhile, and the mapping with it.
    POSTERN_TRY(access_->unmap(peer.iova, peer.pages.size()));
    auto mapped = iommufd::map_dmabuf(access_->iommufd(), access_->ioas(), dmabuf, peer.pages.size(),
                                      peer.iova, peer.access.read, peer.access.write);
    if (!mapped) return propagate(std::move(mapped), "device " + plan_.bdf);
    return {};
}

Result<bool> DeviceSession::unmap_peers(const std::string& device, unsigned slice) {
    const auto meant = [&](const Reaching& each) { return each.device == device && each.slice == slice; };
    for (const Reaching& each : reaching_) {
        if (meant(each)) POSTERN_TRY(access_->unmap(each.iova, each.size));
    }
    return std::erase_if(reaching_, meant) > 0;
}

Result<UniqueFd> DeviceSession::export_for(const PlannedPeer& peer) const {
    auto made =
        vfio::export_dmabuf(device(), peer.region, peer.pages.begin, peer.pages.size(), peer.access.write);
    if (made) return made;
    return propagate(std::move(made),
                     fmt::format("window \"{}\": this kernel exports no dma-buf of it (Linux "
                                 "6.19 or later does)",
                                 peer.window));
}

bool DeviceSession::shares_files() const {
    return access_->is_shared() ||
           std::any_of(plan_.slices.begin(), plan_.slices.end(),
                       [](const SlicePlan& slice) { return slice.dma_map.has_value(); });
}

SessionFiles DeviceSession::device_files() const {
    SessionFiles files{access_->text(), access_->files()};
    files.text["id"] = id_;
    files.text["wired"] = wired_;
    if (command_before_) files.text["command"] = *command_before_;
    for (const Reaching& each : reaching_)
        files.text["reaching"].push_back(
            {{"device", each.device}, {"slice", each.slice}, {"iova", each.iova}, {"size", each.size}});
    return files;
}

SessionFiles DeviceSession::slice_files(unsigned slice) const {
    SessionFiles files{{{"used", states_.at(slice) != SliceState::Fresh}}, {}};
    for (const DmaBacking& dma : backings_.at(slice).dma) files.fds.push_back(dma.memfd.get());
    for (const IrqBacking& irq : backings_.at(slice).irqs) files.fds.push_back(irq.eventfd.get());
    return files;
}

Result<DeviceSession> DeviceSession::adopt(const Profile& profile, const std::string& bdf, KeptFiles device,
                                           std::vector<KeptFiles> slices, ProgramSignals signals) {
    const std::string context = "device " + bdf;
    POSTERN_ASSIGN(const PciDevice pci, read_pci_device(bdf));
    DeviceSession session;
    // Whatever fails below: the device is whole, and whoever keeps its files may try again.
    ScopeGuard leave([&session] { session.leave(); });
    session.signals_ = signals;
    session.id_ = device.text.value("id", random_id());
    auto access = DeviceAccess::adopt(bdf, device.text, std::move(device.fds));
    if (!access) return propagate(std::move(access), context);
    session.access_ = std::move(*access);
    if (auto learned = session.learn(pci); !learned) return propagate(std::move(learned), context);
    POSTERN_ASSIGN(session.plan_, plan_device(profile, session.info_));
    if (slices.size() != session.plan_.slices.size()) {
        return fail("{}: {} slices were kept, and its profile has {}", context, slices.size(),
                    session.plan_.slices.size());
    }
    for (size_t i = 0; i < slices.size(); ++i) {
        const SlicePlan& planned = session.plan_.slices[i];
        std::vector<UniqueFd>& fds = slices[i].fds;
        if (fds.size() != planned.dma.size() + planned.irqs.size())
            return fail("{}: slice {}: {} kept files, and its profile has {}", context, i, fds.size(),
                        planned.dma.size() + planned.irqs.size());
        auto& [memory, irqs] = session.backings_.emplace_back();
        size_t next = 0;
        for (const PlannedDma& dma : planned.dma)
            memory.push_back({dma.name, std::move(fds[next++]), dma.size, dma.iova});
        for (const PlannedIrq& irq : planned.irqs)
            irqs.push_back({irq.name, irq.index, irq.vector, std::move(fds[next++])});
    }
    for (const KeptFiles& slice : slices)
        session.states_.push_back(slice.text.value("used", true) ? SliceState::Used : SliceState::Fresh);
    if (const auto command = device.text.find("command"); command != device.text.end())
        session.command_before_ = command->get<uint16_t>();
    for (const Json& each : device.text.value("reaching", Json::array())) {
        session.reaching_.push_back({each.at("device").get<std::string>(), each.at("slice").get<unsigned>(),
                                     each.at("iova").get<uint64_t>(), each.at("size").get<uint64_t>()});
    }
    session.wired_ = device.text.value("wired", std::vector<uint32_t>());
    session.set_up_ = true;
    leave.dismiss();
    return session;
}

void DeviceSession::leave() {
    access_.reset();
    backings_.clear();
    next_.clear();
    left_.clear();
}

Status DeviceSession::close() {
    if (!access_) return {};
    Status first;
    if (set_up_) keep_first(first, run_programs(plan_.teardown.device, "teardown", std::nullopt));
    set_up_ = false;
    for (const uint32_t index : wired_) keep_first(first, vfio::disable_irqs(device(), index));
    wired_.clear();
    if (plan_.reset_after) keep_first(first, vfio::reset(device()));
    if (command_before_) {
        const uint64_t config = info_.regions[VFIO_PCI_CONFIG_REGION_INDEX].file_offset;
        keep_first(first, vfio::write_command(device(), config, *command_before_));
        command_before_.reset();
    }
    for (const SliceBacking& slice : backings_) {
        for (const DmaBacking& dma : slice.dma) keep_first(first, access_->unmap(dma.iova, dma.size));
    }
    backings_.clear();
    next_.clear();
    left_.clear();
    access_.reset();
    return first;
}

}  // namespace postern
