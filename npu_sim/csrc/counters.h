// SPDX-License-Identifier: Apache-2.0
// Counts of what ran: per operator, per collective. Always on; a count is one relaxed atomic add.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <string>
#include <utility>

namespace npu_sim {

struct Counter {
  std::atomic<int64_t> calls{0};
  std::atomic<int64_t> bytes{0};
  void add(int64_t n_bytes = 0) {
    calls.fetch_add(1, std::memory_order_relaxed);
    if (n_bytes) bytes.fetch_add(n_bytes, std::memory_order_relaxed);
  }
};

Counter& op_counter(const std::string& name);          // found or made; lives for ever
Counter& collective_counter(const std::string& name);  // likewise
std::map<std::string, int64_t> op_counts();            // only those that were called
std::map<std::string, std::pair<int64_t, int64_t>> collective_counts();  // calls, bytes handed in by this rank
void reset_counts();

}  // namespace npu_sim
