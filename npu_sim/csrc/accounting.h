// SPDX-License-Identifier: Apache-2.0
// The ledger: which bytes are charged to which device.
#pragma once

#include "memory.h"

#include <c10/core/Allocator.h>
#include <c10/core/StorageImpl.h>

#include <atomic>
#include <mutex>

namespace npu_sim {

// Bytes charged to a device: the context of the CPU data pointer that holds them.
struct Block {
  void* data = nullptr;
  size_t nbytes = 0;
  int64_t charged = 0;       // nbytes rounded up to kGranule
  c10::DeviceIndex device = 0;  // -1: bytes of the host that are on no device's account
  uint32_t generation = 0;   // a forked child does not give back what its parent holds
  bool mapped = false;
  bool pinned = false;       // page-locked, and counted as such
  std::atomic<bool> hollow{false};  // nobody knows what the bytes hold
  c10::DataPtr host;         // where the bytes came from, unless mapped
  // The npu storage over these bytes, so that a CPU view that comes back finds the storage it came from. Set only for
  // bytes that were shown to the outside as a CPU tensor.
  c10::weak_intrusive_ptr<c10::StorageImpl> npu{c10::intrusive_ptr<c10::StorageImpl>()};
  Block* previous = nullptr;  // list of all live blocks of the device
  Block* next = nullptr;

  static void destroy(void* data);  // the deleter, by the address of the bytes; identifies our data pointers
};

// Enter a block (its data, nbytes and device are set) into the ledger; throws OutOfMemoryError and leaves it out.
void charge(Block* block);
void release(Block* block);
// Throw the OutOfMemoryError that charging this many bytes would throw.
void check_fits(size_t nbytes, c10::DeviceIndex device);
std::mutex& ledger_mutex(c10::DeviceIndex device);

}  // namespace npu_sim
