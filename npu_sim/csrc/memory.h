// SPDX-License-Identifier: Apache-2.0
// Device memory: host memory, charged to a simulated device byte for byte.
//
// Twin storage. Every npu StorageImpl owns a CPU StorageImpl (its twin) over the same bytes: the context of the npu data
// pointer IS the twin. CPU kernels run on tensors over the twin, so nothing is ever copied to compute.
// The charge hangs on the bytes themselves (a Block, the context of the twin's data pointer), not on the npu storage: the
// device gets its bytes back exactly when the last tensor over them, npu or CPU view, is gone.
#pragma once

#include "device.h"

#include <ATen/core/Tensor.h>
#include <c10/core/Allocator.h>
#include <c10/core/CachingDeviceAllocator.h>
#include <c10/core/Storage.h>

#include <utility>
#include <vector>

namespace npu_sim {

constexpr int64_t kGranule = 512;                // allocations are charged in steps of this many bytes
constexpr int64_t kSegment = 2 * 1024 * 1024;    // and reserved from the device in steps of this many
constexpr size_t kMapFrom = 4 * 1024 * 1024;     // blocks from this size on are mapped lazily and unmapped when freed
constexpr size_t kCheckFrom = 1024 * 1024;       // allocations of CPU kernels from this size on are checked beforehand

struct MemoryStats {
  int64_t allocated = 0, allocated_peak = 0;  // bytes in blocks that live
  int64_t reserved = 0, reserved_peak = 0;    // bytes taken from the device, blocks and cache
  int64_t allocations = 0, frees = 0, ooms = 0;
  int64_t allocated_total = 0, freed_total = 0;  // bytes, accumulated
};
MemoryStats memory_stats(c10::DeviceIndex device);
void reset_peak(c10::DeviceIndex device);
void reset_accumulated(c10::DeviceIndex device);
void empty_cache();                                             // all devices
std::pair<int64_t, int64_t> free_and_total(c10::DeviceIndex device);  // bytes, over all processes
std::vector<std::pair<size_t, int64_t>> live_blocks(c10::DeviceIndex device);  // (address, charged bytes)
c10::Device device_of_pointer(const void* p);                   // the block that holds p; throws when there is none

// While a CPU kernel computes for a device: an allocation of this thread that the device cannot hold throws OutOfMemoryError
// before it touches host memory. What the kernel returns is charged when it becomes an npu tensor; its scratch is not.
struct ComputeFor {
  explicit ComputeFor(c10::DeviceIndex device);
  ~ComputeFor();
  ComputeFor(const ComputeFor&) = delete;
  ComputeFor& operator=(const ComputeFor&) = delete;

 private:
  c10::DeviceIndex previous_;
};

c10::DeviceAllocator* device_allocator();
void install_allocators();

// The twin of an npu storage; null for a storage that only borrows device memory (at::from_blob).
c10::StorageImpl* twin_of(const c10::StorageImpl* npu);
// A new npu storage over a CPU storage. Bytes that are not charged yet are charged now (may throw OutOfMemoryError).
c10::Storage npu_storage_over(c10::Storage twin, c10::DeviceIndex device);
// After a CPU kernel resized the twin: make the npu storage point at the twin's bytes again.
void follow_twin(c10::StorageImpl* npu);
void resize_storage(c10::StorageImpl* npu, size_t nbytes);

// Bytes without contents (hollow.h), of CPU storages: twins, and the host's own.
struct StorageFor {  // while it lives, this thread's new npu storages are for a tensor of the dtype: large floating ones are hollow
  explicit StorageFor(c10::ScalarType dtype);
  ~StorageFor();
  StorageFor(const StorageFor&) = delete;
  StorageFor& operator=(const StorageFor&) = delete;

 private:
  c10::ScalarType previous_;
};
c10::Storage hollow_host_storage(size_t nbytes, bool pinned);
bool is_hollow(const c10::StorageImpl* cpu);
void forget_contents(c10::StorageImpl* cpu);
void have_contents(c10::StorageImpl* cpu);  // whatever they are
void grow_without_contents(c10::StorageImpl* cpu, size_t nbytes);

// Zero-copy views, no autograd history.
at::Tensor cpu_view(const at::Tensor& npu);                              // for kernels, cheap
at::Tensor as_cpu(const at::Tensor& t);                                  // for callers outside; CPU tensors pass through
at::Tensor as_npu(const at::Tensor& t, int64_t device);                  // npu tensors pass through
at::Tensor to_npu_in_place(at::Tensor cpu, c10::Storage npu_storage);    // same sizes, strides, dtype

}  // namespace npu_sim
