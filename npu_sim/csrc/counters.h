// SPDX-License-Identifier: Apache-2.0
// Counts of what ran: per operator, per collective, per group. Always on.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

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

// What groups of the same ranks moved, by the collective's name.
class GroupTraffic {
 public:
  struct Row {
    int64_t calls = 0, sent = 0, received = 0;
  };
  void add(const std::string& kind, int64_t sent, int64_t received);
  std::map<std::string, Row> rows() const;
  void reset();

 private:
  mutable std::mutex mutex_;
  std::map<std::string, Row> rows_;
};

// Between host and device: copies of tensors, with the bytes that the device's tensor has, and pages that were locked for them.
struct HostTraffic {
  Counter to_device, to_host, locked;
};
HostTraffic& host_traffic();

GroupTraffic& traffic_of(const std::vector<int64_t>& ranks);  // found or made; lives for ever
std::map<std::vector<int64_t>, std::map<std::string, GroupTraffic::Row>> traffic();
void reset_traffic();  // host_traffic() too

}  // namespace npu_sim
