// SPDX-License-Identifier: Apache-2.0
#include "accounting.h"
#include "hollow.h"
#include "host_allocator.h"

#include <ATen/core/Tensor.h>
#include <c10/core/CPUAllocator.h>
#include <c10/core/TensorImpl.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <c10/util/Exception.h>

#include <sys/mman.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <unordered_map>

namespace npu_sim {
namespace {

thread_local c10::DeviceIndex tls_compute_for = -1;
thread_local c10::ScalarType tls_storage_for = c10::ScalarType::Undefined;

// ---------------------------------------------------------------- blocks

// The context of a data pointer must be the bytes' own address: kernels that take scratch memory by
// Allocator::raw_allocate (oneDNN's bf16 products do) get no other handle to give back. So blocks are found by address.
struct BlockIndex {
  std::mutex mutex;
  std::unordered_map<void*, Block*> by_address;
};
BlockIndex& index_of_blocks() {
  static auto* index = new BlockIndex();  // outlives every tensor
  return *index;
}

Block* block_at(void* address) {
  auto& index = index_of_blocks();
  const std::lock_guard<std::mutex> guard(index.mutex);
  const auto found = index.by_address.find(address);
  return found == index.by_address.end() ? nullptr : found->second;
}

c10::DataPtr pointer_of(Block* block) {
  auto& index = index_of_blocks();
  {
    const std::lock_guard<std::mutex> guard(index.mutex);
    index.by_address[block->data] = block;
  }
  return {block->data, block->data, &Block::destroy, c10::Device(c10::DeviceType::CPU)};
}

// Host memory, charged if it is for a device. The charge comes first: what does not fit never touches host memory.
c10::DataPtr allocate_block(size_t nbytes, c10::DeviceIndex device, bool hollow = false, bool pinned = false) {
  auto block = std::make_unique<Block>();
  block->nbytes = nbytes;
  block->device = device;
  block->hollow = hollow;
  if (device >= 0) charge(block.get());
  try {
    // Lazily backed, so that blocks larger than the host's memory can exist. Without contents, whoever reads them ends here.
    if (hollow || nbytes >= kMapFrom) {
      const int access = hollow ? PROT_NONE : PROT_READ | PROT_WRITE;
      void* p = mmap(nullptr, nbytes, access, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
      TORCH_CHECK_WITH(OutOfMemoryError, p != MAP_FAILED, "host out of address space for a simulated NPU block of ", nbytes,
                       " bytes: ", std::strerror(errno));
      block->mapped = true;
      block->data = p;
    } else {
      block->host = c10::GetDefaultCPUAllocator()->allocate(nbytes);
      block->data = block->host.get();
    }
  } catch (...) {
    if (device >= 0) release(block.get());
    throw;
  }
  if (pinned) {
    block->pinned = true;
    pin(block->data, nbytes);
  }
  return pointer_of(block.release());
}

// The CPU allocator while this extension is loaded: torch's own, behind a check.
struct CheckingCpuAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    if (n >= kCheckFrom && tls_compute_for >= 0) check_fits(n, tls_compute_for);
    return c10::GetDefaultCPUAllocator()->allocate(n);
  }
  c10::DeleterFnPtr raw_deleter() const override { return c10::GetDefaultCPUAllocator()->raw_deleter(); }
  void copy_data(void* dst, const void* src, size_t n) const override { std::memcpy(dst, src, n); }
};
CheckingCpuAllocator* cpu_allocator() {
  static auto* a = new CheckingCpuAllocator();
  return a;
}

// The allocator of storages without contents: one that is emptied and filled again is without contents still.
struct HollowAllocator final : c10::Allocator {
  c10::DataPtr allocate(size_t n) override {
    return n ? allocate_block(n, -1, /*hollow=*/true) : c10::DataPtr(nullptr, c10::Device(c10::DeviceType::CPU));
  }
  c10::DeleterFnPtr raw_deleter() const override { return &Block::destroy; }
  void copy_data(void*, const void*, size_t) const override {}
};
HollowAllocator* hollow_allocator() {
  static auto* a = new HollowAllocator();
  return a;
}

// ---------------------------------------------------------------- npu storages

void drop_twin(void* twin) { c10::raw::intrusive_ptr::decref(static_cast<c10::StorageImpl*>(twin)); }

Block* block_of(const c10::StorageImpl* cpu) {
  const c10::DataPtr& p = cpu->data_ptr();
  return p.get_deleter() == &Block::destroy ? block_at(p.get_context()) : nullptr;
}

c10::DataPtr npu_pointer(c10::intrusive_ptr<c10::StorageImpl> twin, c10::DeviceIndex device) {
  void* data = const_cast<void*>(twin->data());
  return {data, twin.release(), &drop_twin, c10::Device(kNPU, device)};
}

c10::intrusive_ptr<c10::StorageImpl> new_twin(size_t nbytes, c10::DeviceIndex device) {
  const bool hollow = hollow_by_size(tls_storage_for, static_cast<int64_t>(nbytes));
  c10::DataPtr bytes = nbytes ? allocate_block(nbytes, device, hollow) : c10::DataPtr(nullptr, c10::Device(c10::DeviceType::CPU));
  return c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(), c10::SymInt(static_cast<int64_t>(nbytes)), std::move(bytes),
                                               hollow ? static_cast<c10::Allocator*>(hollow_allocator()) : cpu_allocator(), true);
}

struct DeviceMemoryAllocator final : c10::DeviceAllocator {
  c10::DataPtr allocate(size_t n) override {
    const auto device = resolve(-1);
    return npu_pointer(new_twin(n, device), device);
  }
  void copy_data(void* dst, const void* src, size_t n) const override { std::memcpy(dst, src, n); }
  bool initialized() override { return true; }
  void emptyCache(c10::MempoolId_t) override { npu_sim::empty_cache(); }
  void recordStream(const c10::DataPtr&, c10::Stream) override {}  // everything is synchronous
  c10::CachingDeviceAllocator::DeviceStats getDeviceStats(c10::DeviceIndex device) override {
    const MemoryStats s = memory_stats(device);
    c10::CachingDeviceAllocator::DeviceStats out;
    const auto all = static_cast<size_t>(c10::CachingAllocator::StatType::AGGREGATE);
    for (auto* bytes : {&out.allocated_bytes, &out.active_bytes, &out.requested_bytes}) {
      (*bytes)[all].current = s.allocated;
      (*bytes)[all].peak = s.allocated_peak;
      (*bytes)[all].allocated = s.allocated_total;
      (*bytes)[all].freed = s.freed_total;
    }
    out.reserved_bytes[all].current = s.reserved;
    out.reserved_bytes[all].peak = s.reserved_peak;
    out.allocation[all].current = s.allocations - s.frees;
    out.allocation[all].allocated = s.allocations;
    out.allocation[all].freed = s.frees;
    out.num_ooms = s.ooms;
    return out;
  }
  void resetAccumulatedStats(c10::DeviceIndex device) override { reset_accumulated(device); }
  void resetPeakStats(c10::DeviceIndex device) override { reset_peak(device); }
  std::pair<size_t, size_t> getMemoryInfo(c10::DeviceIndex device) override {
    const auto [free, total] = free_and_total(device);
    return {static_cast<size_t>(free), static_cast<size_t>(total)};
  }
};

c10::intrusive_ptr<c10::StorageImpl> shared(c10::StorageImpl* s) {
  return c10::intrusive_ptr<c10::StorageImpl>::reclaim_copy(s);
}

c10::Storage cpu_storage_of(const at::Tensor& npu) {
  auto* storage = npu.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl();
  if (c10::StorageImpl* twin = twin_of(storage)) return c10::Storage(shared(twin));
  // at::from_blob over device memory: borrow the address, as from_blob does
  return c10::Storage(c10::Storage::use_byte_size_t(), static_cast<int64_t>(storage->nbytes()),
                      c10::DataPtr(const_cast<void*>(storage->data()), c10::Device(c10::DeviceType::CPU)), nullptr, false);
}

}  // namespace

void Block::destroy(void* address) {
  std::unique_ptr<Block> block;
  {
    auto& index = index_of_blocks();
    const std::lock_guard<std::mutex> guard(index.mutex);
    const auto found = index.by_address.find(address);
    if (found != index.by_address.end()) {
      block.reset(found->second);
      index.by_address.erase(found);
    }
  }
  if (!block) return c10::GetDefaultCPUAllocator()->raw_deleter()(address);
  if (block->device >= 0) release(block.get());
  if (block->pinned) unpin(block->data, block->nbytes);
  if (block->mapped) munmap(block->data, block->nbytes);
}

ComputeFor::ComputeFor(c10::DeviceIndex device) : previous_(tls_compute_for) { tls_compute_for = device; }
ComputeFor::~ComputeFor() { tls_compute_for = previous_; }

c10::DeviceAllocator* device_allocator() {
  static auto* a = new DeviceMemoryAllocator();
  return a;
}

void install_allocators() {
  c10::SetAllocator(kNPU, device_allocator());
  c10::SetCPUAllocator(cpu_allocator(), /*priority=*/0);
}

c10::StorageImpl* twin_of(const c10::StorageImpl* npu) {
  const c10::DataPtr& p = npu->data_ptr();
  return p.get_deleter() == &drop_twin ? static_cast<c10::StorageImpl*>(p.get_context()) : nullptr;
}

// Put the bytes of a CPU storage on a device's account, unless they are on it already.
static void adopt(c10::StorageImpl* cpu, c10::DeviceIndex device) {
  if (cpu->nbytes() == 0) return;
  if (Block* block = block_of(cpu)) {
    if (block->device < 0) {
      block->device = device;
      try {
        charge(block);
      } catch (...) {
        block->device = -1;
        throw;
      }
    }
    TORCH_CHECK(block->device == device, "the bytes of this CPU tensor belong to npu:", static_cast<int>(block->device), ", not to npu:",
                static_cast<int>(device), "; copy it");
    return;
  }
  auto block = std::make_unique<Block>();
  block->data = const_cast<void*>(cpu->data());
  block->nbytes = cpu->nbytes();
  block->device = device;
  charge(block.get());
  block->host = cpu->set_data_ptr(c10::DataPtr());
  cpu->set_data_ptr_noswap(pointer_of(block.release()));
  cpu->set_allocator(cpu_allocator());
}

c10::Storage npu_storage_over(c10::Storage cpu, c10::DeviceIndex device) {
  c10::StorageImpl* twin = cpu.unsafeGetStorageImpl();
  adopt(twin, device);
  return c10::Storage(c10::make_intrusive<c10::StorageImpl>(c10::StorageImpl::use_byte_size_t(),
                                                            c10::SymInt(static_cast<int64_t>(twin->nbytes())),
                                                            npu_pointer(shared(twin), device), device_allocator(), true));
}

void follow_twin(c10::StorageImpl* npu) {
  c10::StorageImpl* twin = twin_of(npu);
  if (!twin || (twin->data() == npu->data() && twin->nbytes() == npu->nbytes())) return;
  const auto device = npu->device().index();
  const auto point_again = [&] {
    const size_t nbytes = twin->nbytes();
    npu->set_data_ptr_noswap(npu_pointer(shared(twin), device));
    npu->set_nbytes(nbytes);
  };
  try {
    adopt(twin, device);
  } catch (...) {  // it does not fit: an empty storage is all that is left
    twin->set_data_ptr_noswap(c10::DataPtr(nullptr, c10::Device(c10::DeviceType::CPU)));
    twin->set_nbytes(0);
    point_again();
    throw;
  }
  point_again();
}

void resize_storage(c10::StorageImpl* npu, size_t nbytes) {
  TORCH_CHECK(npu->resizable(), "trying to resize an npu storage that is not resizable");
  const auto device = resolve(npu->device().index());
  c10::StorageImpl* twin = twin_of(npu);
  TORCH_CHECK(twin, "trying to resize an npu storage that only borrows its memory");
  if (nbytes == twin->nbytes()) return;
  const bool hollow = twin->allocator() == hollow_allocator();
  c10::DataPtr bytes = nbytes ? allocate_block(nbytes, device, hollow) : c10::DataPtr(nullptr, c10::Device(c10::DeviceType::CPU));
  if (const size_t keep = hollow ? 0 : std::min(nbytes, twin->nbytes())) std::memcpy(bytes.get(), twin->data(), keep);
  if (Block* block = block_of(twin); block && nbytes) block_at(bytes.get_context())->npu = block->npu;
  twin->set_data_ptr_noswap(std::move(bytes));
  twin->set_nbytes(nbytes);
  follow_twin(npu);
}

// ---------------------------------------------------------------- without contents

StorageFor::StorageFor(c10::ScalarType dtype) : previous_(tls_storage_for) { tls_storage_for = dtype; }
StorageFor::~StorageFor() { tls_storage_for = previous_; }

c10::Storage hollow_host_storage(size_t nbytes, bool pinned) {
  c10::DataPtr bytes = nbytes ? allocate_block(nbytes, -1, /*hollow=*/true, pinned) : c10::DataPtr(nullptr, c10::Device(c10::DeviceType::CPU));
  return c10::Storage(c10::Storage::use_byte_size_t(), static_cast<int64_t>(nbytes), std::move(bytes), hollow_allocator(), true);
}

bool is_hollow(const c10::StorageImpl* cpu) {
  const Block* block = cpu->nbytes() ? block_of(cpu) : nullptr;
  return block && block->hollow;
}

void forget_contents(c10::StorageImpl* cpu) {
  if (cpu->nbytes() == 0) return;
  Block* block = block_of(cpu);
  if (!block) {  // bytes of the host that nobody kept an account of
    auto made = std::make_unique<Block>();
    made->data = const_cast<void*>(cpu->data());
    made->nbytes = cpu->nbytes();
    made->device = -1;
    made->host = cpu->set_data_ptr(c10::DataPtr());
    block = made.get();
    cpu->set_data_ptr_noswap(pointer_of(made.release()));
  }
  block->hollow = true;
  cpu->set_allocator(hollow_allocator());
}

void have_contents(c10::StorageImpl* cpu) {
  Block* block = cpu->nbytes() ? block_of(cpu) : nullptr;
  if (!block || !block->hollow) return;
  TORCH_CHECK(!block->mapped || mprotect(block->data, block->nbytes, PROT_READ | PROT_WRITE) == 0,
              "cannot make bytes of a simulated NPU readable: ", std::strerror(errno));
  block->hollow = false;
  cpu->set_allocator(cpu_allocator());
}

void grow_without_contents(c10::StorageImpl* cpu, size_t nbytes) {
  TORCH_CHECK(cpu->resizable(), "trying to resize a storage that is not resizable");
  cpu->set_data_ptr_noswap(allocate_block(nbytes, -1, /*hollow=*/true));
  cpu->set_nbytes(nbytes);
  cpu->set_allocator(hollow_allocator());
}

at::Tensor cpu_view(const at::Tensor& npu) {
  // An undefined version counter: below autograd nothing reads it, and it saves an allocation.
  auto impl = npu.unsafeGetTensorImpl()->shallow_copy_and_detach(c10::VariableVersion(), true);
  impl->set_storage_keep_dtype(cpu_storage_of(npu));
  impl->_change_backend_component_keys(c10::Device(c10::DeviceType::CPU));
  return at::Tensor(std::move(impl));
}

at::Tensor to_npu_in_place(at::Tensor cpu, c10::Storage npu_storage) {
  const c10::Device device = npu_storage.device();
  if (cpu.use_count() != 1) {
    auto copy = cpu.unsafeGetTensorImpl()->shallow_copy_and_detach(c10::VariableVersion(0), true);
    cpu = at::Tensor(std::move(copy));
  }
  auto* impl = cpu.unsafeGetTensorImpl();
  impl->set_storage_keep_dtype(std::move(npu_storage));
  impl->_change_backend_component_keys(device);
  return cpu;
}

at::Tensor as_cpu(const at::Tensor& t) {
  if (!t.defined() || t.device().type() != kNPU) return t;
  auto impl = t.unsafeGetTensorImpl()->shallow_copy_and_detach(c10::VariableVersion(0), true);
  c10::Storage cpu = cpu_storage_of(t);
  if (Block* block = block_of(cpu.unsafeGetStorageImpl())) {
    std::lock_guard<std::mutex> guard(ledger_mutex(block->device));
    block->npu = c10::weak_intrusive_ptr<c10::StorageImpl>(shared(t.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl()));
  }
  impl->set_storage_keep_dtype(std::move(cpu));
  impl->_change_backend_component_keys(c10::Device(c10::DeviceType::CPU));
  return at::Tensor(std::move(impl));
}

at::Tensor as_npu(const at::Tensor& t, int64_t device) {
  if (!t.defined() || t.device().type() == kNPU) return t;
  TORCH_CHECK(t.device().is_cpu() && t.layout() == at::kStrided && t.has_storage() && !t.is_quantized(),
              "as_npu: expected a strided CPU tensor, got ", t.toString());
  c10::StorageImpl* cpu = t.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl();
  c10::intrusive_ptr<c10::StorageImpl> npu;
  Block* block = block_of(cpu);
  if (block && block->device >= 0) {
    std::lock_guard<std::mutex> guard(ledger_mutex(block->device));
    npu = block->npu.lock();
    if (device < 0) device = block->device;
  }
  if (npu) {
    TORCH_CHECK(npu->device().index() == device, "the bytes of this CPU tensor belong to ", npu->device(), ", not to npu:", device,
                "; copy it");
  } else {
    c10::Storage made = npu_storage_over(c10::Storage(shared(cpu)), resolve(static_cast<c10::DeviceIndex>(device)));
    npu = c10::intrusive_ptr<c10::StorageImpl>::reclaim(made.unsafeReleaseStorageImpl());
    if ((block = block_of(cpu))) {
      std::lock_guard<std::mutex> guard(ledger_mutex(block->device));
      block->npu = c10::weak_intrusive_ptr<c10::StorageImpl>(npu);
    }
  }
  auto impl = t.unsafeGetTensorImpl()->shallow_copy_and_detach(c10::VariableVersion(0), true);
  return to_npu_in_place(at::Tensor(std::move(impl)), c10::Storage(std::move(npu)));
}

}  // namespace npu_sim
