// SPDX-License-Identifier: Apache-2.0
#include "accounting.h"

#include "slots.h"

#include <c10/util/Exception.h>

#include <pthread.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <string>

namespace npu_sim {
namespace {

struct Ledger {
  std::mutex mutex;
  MemoryStats stats;
  Block* first = nullptr;
};

std::atomic<uint32_t> generation{0};

void start_anew_in_child();

std::array<Ledger, kMaxDevices>& ledgers() {
  static auto* all = [] {
    pthread_atfork(nullptr, nullptr, &start_anew_in_child);
    return new std::array<Ledger, kMaxDevices>();
  }();
  return *all;
}

// A forked child starts with empty devices; tensors it inherited are copies of the parent's bytes that are on nobody's account.
void start_anew_in_child() {
  generation++;
  for (Ledger& ledger : ledgers()) new (&ledger) Ledger();
  slots::forget_after_fork();
}

std::string human(int64_t bytes) {
  const char* unit[] = {"bytes", "KiB", "MiB", "GiB", "TiB"};
  double value = static_cast<double>(bytes);
  int i = 0;
  for (; i < 4 && value >= 1024; i++) value /= 1024;
  char text[48];
  std::snprintf(text, sizeof text, i ? "%.2f %s" : "%.0f %s", value, unit[i]);
  return text;
}

int64_t round_up(int64_t n, int64_t step) { return (n + step - 1) / step * step; }

// What is torch's of a device.
int64_t usable() { return config().hbm_bytes - config().outside_bytes; }

[[noreturn]] void out_of_memory(Ledger& ledger, c10::DeviceIndex device, int64_t others, int64_t request) {
  MemoryStats& s = ledger.stats;
  s.ooms++;
  const int64_t free = std::max<int64_t>(0, usable() - others - s.allocated);
  const int64_t outside = config().outside_bytes;
  TORCH_CHECK_WITH(OutOfMemoryError, false, "NPU out of memory. Tried to allocate ", human(request), " on npu:", static_cast<int>(device),
                   " (simulated): ", human(config().hbm_bytes), " total capacity, ", human(free), " free, ", human(s.allocated), " allocated and ",
                   human(s.reserved), " reserved by this process, ", human(others), " held by other processes",
                   outside ? ", " + human(outside) + " outside torch" : "", ". (", request,
                   " bytes wanted, ", free, " bytes free)");
  std::abort();  // not reached
}

// Take from the device what `need` allocated bytes want; the cache is given up first, as the real allocator does.
void grow(Ledger& ledger, c10::DeviceIndex device, int64_t need, int64_t request) {
  const int64_t limit = usable();
  const int physical = config().physical[device];
  int64_t others = 0;
  int64_t want = round_up(need, kSegment);
  bool granted = want <= limit && slots::publish(physical, want, limit, &others);
  if (!granted) {  // less than a whole segment may still be left
    want = std::max(need, std::min(want, limit - others));
    granted = slots::publish(physical, want, limit, &others);
  }
  if (!granted) out_of_memory(ledger, device, others, request);
  ledger.stats.reserved = want;
  ledger.stats.reserved_peak = std::max(ledger.stats.reserved_peak, want);
}

}  // namespace

std::mutex& ledger_mutex(c10::DeviceIndex device) { return ledgers()[device].mutex; }

void charge(Block* block) {
  block->charged = round_up(static_cast<int64_t>(block->nbytes), kGranule);
  block->generation = generation.load(std::memory_order_relaxed);
  Ledger& ledger = ledgers()[block->device];
  std::lock_guard<std::mutex> guard(ledger.mutex);
  MemoryStats& s = ledger.stats;
  const int64_t need = s.allocated + block->charged;
  if (need > s.reserved) grow(ledger, block->device, need, static_cast<int64_t>(block->nbytes));
  s.allocated = need;
  s.allocated_peak = std::max(s.allocated_peak, need);
  s.allocated_total += block->charged;
  s.allocations++;
  block->next = ledger.first;
  if (ledger.first) ledger.first->previous = block;
  ledger.first = block;
}

void check_fits(size_t nbytes, c10::DeviceIndex device) {
  Ledger& ledger = ledgers()[device];
  std::lock_guard<std::mutex> guard(ledger.mutex);
  const int64_t need = ledger.stats.allocated + round_up(static_cast<int64_t>(nbytes), kGranule);
  if (need <= ledger.stats.reserved) return;
  const int64_t others = slots::others(config().physical[device]);
  if (need + others > usable()) out_of_memory(ledger, device, others, static_cast<int64_t>(nbytes));
}

void release(Block* block) {
  if (block->generation != generation.load(std::memory_order_relaxed)) return;
  Ledger& ledger = ledgers()[block->device];
  std::lock_guard<std::mutex> guard(ledger.mutex);
  ledger.stats.allocated -= block->charged;
  ledger.stats.freed_total += block->charged;
  ledger.stats.frees++;
  (block->previous ? block->previous->next : ledger.first) = block->next;
  if (block->next) block->next->previous = block->previous;
}

MemoryStats memory_stats(c10::DeviceIndex device) {
  Ledger& ledger = ledgers()[resolve(device)];
  std::lock_guard<std::mutex> guard(ledger.mutex);
  return ledger.stats;
}

void reset_peak(c10::DeviceIndex device) {
  Ledger& ledger = ledgers()[resolve(device)];
  std::lock_guard<std::mutex> guard(ledger.mutex);
  ledger.stats.allocated_peak = ledger.stats.allocated;
  ledger.stats.reserved_peak = ledger.stats.reserved;
}

void reset_accumulated(c10::DeviceIndex device) {
  Ledger& ledger = ledgers()[resolve(device)];
  std::lock_guard<std::mutex> guard(ledger.mutex);
  MemoryStats& s = ledger.stats;
  s.allocations = s.frees = s.ooms = s.allocated_total = s.freed_total = 0;
}

void empty_cache() {
  if (!config_is_fixed()) return;  // nothing was ever allocated
  for (size_t device = 0; device < config().physical.size(); device++) {
    Ledger& ledger = ledgers()[device];
    std::lock_guard<std::mutex> guard(ledger.mutex);
    const int64_t want = std::min(ledger.stats.reserved, round_up(ledger.stats.allocated, kSegment));
    if (want == ledger.stats.reserved) continue;
    int64_t others = 0;
    slots::publish(config().physical[device], want, std::numeric_limits<int64_t>::max(), &others);
    ledger.stats.reserved = want;
  }
}

std::pair<int64_t, int64_t> free_and_total(c10::DeviceIndex device) {
  device = resolve(device);
  const int64_t total = config().hbm_bytes;
  const int64_t used = memory_stats(device).reserved + slots::others(config().physical[device]);
  return {std::max<int64_t>(0, usable() - used), total};
}

std::vector<std::pair<size_t, int64_t>> live_blocks(c10::DeviceIndex device) {
  Ledger& ledger = ledgers()[resolve(device)];
  std::lock_guard<std::mutex> guard(ledger.mutex);
  std::vector<std::pair<size_t, int64_t>> result;
  for (const Block* b = ledger.first; b; b = b->next) result.emplace_back(reinterpret_cast<size_t>(b->data), b->charged);
  return result;
}

c10::Device device_of_pointer(const void* p) {
  const auto address = static_cast<const char*>(p);
  for (size_t device = 0; device < config().physical.size(); device++) {
    Ledger& ledger = ledgers()[device];
    std::lock_guard<std::mutex> guard(ledger.mutex);
    for (const Block* b = ledger.first; b; b = b->next) {
      const auto begin = static_cast<const char*>(b->data);
      if (begin && begin <= address && address < begin + std::max<size_t>(b->nbytes, 1)) return c10::Device(kNPU, static_cast<c10::DeviceIndex>(device));
    }
  }
  TORCH_CHECK(false, "address ", p, " is in no block of a simulated NPU");
}

}  // namespace npu_sim
