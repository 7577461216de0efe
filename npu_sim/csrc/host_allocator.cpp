// SPDX-License-Identifier: Apache-2.0
#include "host_allocator.h"

#include "counters.h"
#include "device.h"

#include <c10/core/CPUAllocator.h>

#include <cstring>
#include <map>
#include <memory>
#include <mutex>

namespace npu_sim {
namespace {

struct Pins {
  std::mutex mutex;
  std::map<const char*, size_t> blocks;  // start -> bytes
  int64_t bytes = 0;
};
Pins& pins() {
  static auto* p = new Pins();
  return *p;
}

struct PinnedBlock {
  c10::DataPtr memory;
  size_t nbytes;

  static void destroy(void* p) {
    std::unique_ptr<PinnedBlock> block(static_cast<PinnedBlock*>(p));
    unpin(block->memory.get(), block->nbytes);
  }
};

struct PinnedAllocator final : at::HostAllocator {
  c10::DataPtr allocate(size_t n) override {
    if (n == 0) return {nullptr, c10::Device(c10::DeviceType::CPU)};
    auto block = std::make_unique<PinnedBlock>(PinnedBlock{c10::GetDefaultCPUAllocator()->allocate(n), n});
    void* data = block->memory.get();
    pin(data, n);
    return {data, block.release(), &PinnedBlock::destroy, c10::Device(c10::DeviceType::CPU)};
  }
  void copy_data(void* dst, const void* src, size_t n) const override { std::memcpy(dst, src, n); }
  bool record_event(void*, void*, c10::Stream) override { return true; }  // everything is synchronous
  void empty_cache() override {}                                          // nothing is cached
  at::HostStats get_stats() override {
    at::HostStats stats;
    stats.allocated_bytes.current = stats.active_bytes.current = pinned_bytes();
    return stats;
  }
  void reset_accumulated_stats() override {}
  void reset_peak_stats() override {}
};

}  // namespace

at::HostAllocator* host_allocator() {
  static auto* a = new PinnedAllocator();
  return a;
}

void pin(const void* start, size_t nbytes) {
  host_traffic().locked.add(static_cast<int64_t>(nbytes));
  std::lock_guard<std::mutex> guard(pins().mutex);
  pins().blocks[static_cast<const char*>(start)] = nbytes;
  pins().bytes += static_cast<int64_t>(nbytes);
}

void unpin(const void* start, size_t nbytes) {
  std::lock_guard<std::mutex> guard(pins().mutex);
  pins().blocks.erase(static_cast<const char*>(start));
  pins().bytes -= static_cast<int64_t>(nbytes);
}

bool is_pinned(const void* p) {
  const auto address = static_cast<const char*>(p);
  std::lock_guard<std::mutex> guard(pins().mutex);
  auto it = pins().blocks.upper_bound(address);
  if (it == pins().blocks.begin()) return false;
  --it;
  return address < it->first + it->second;
}

int64_t pinned_bytes() {
  std::lock_guard<std::mutex> guard(pins().mutex);
  return pins().bytes;
}

}  // namespace npu_sim

REGISTER_HOST_ALLOCATOR(at::kPrivateUse1, npu_sim::host_allocator());
