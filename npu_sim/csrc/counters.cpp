// SPDX-License-Identifier: Apache-2.0
#include "counters.h"

namespace npu_sim {
namespace {

struct Table {
  std::mutex mutex;
  std::map<std::string, Counter> counters;  // nodes never move

  Counter& get(const std::string& name) {
    std::lock_guard<std::mutex> guard(mutex);
    return counters[name];
  }
};
Table& ops() {
  static auto* t = new Table();
  return *t;
}
Table& collectives() {
  static auto* t = new Table();
  return *t;
}

std::mutex groups_mutex;
std::map<std::vector<int64_t>, GroupTraffic>& groups() {  // nodes never move
  static auto* m = new std::map<std::vector<int64_t>, GroupTraffic>();
  return *m;
}

}  // namespace

Counter& op_counter(const std::string& name) { return ops().get(name); }
Counter& collective_counter(const std::string& name) { return collectives().get(name); }

std::map<std::string, int64_t> op_counts() {
  std::lock_guard<std::mutex> guard(ops().mutex);
  std::map<std::string, int64_t> result;
  for (const auto& [name, counter] : ops().counters)
    if (const int64_t calls = counter.calls) result[name] = calls;
  return result;
}

std::map<std::string, std::pair<int64_t, int64_t>> collective_counts() {
  std::lock_guard<std::mutex> guard(collectives().mutex);
  std::map<std::string, std::pair<int64_t, int64_t>> result;
  for (const auto& [name, counter] : collectives().counters)
    if (const int64_t calls = counter.calls) result[name] = {calls, counter.bytes};
  return result;
}

void reset_counts() {
  for (Table* table : {&ops(), &collectives()}) {
    std::lock_guard<std::mutex> guard(table->mutex);
    for (auto& [name, counter] : table->counters) counter.calls = counter.bytes = 0;
  }
}

void GroupTraffic::add(const std::string& kind, int64_t sent, int64_t received) {
  std::lock_guard<std::mutex> guard(mutex_);
  Row& row = rows_[kind];
  row.calls++;
  row.sent += sent;
  row.received += received;
}

std::map<std::string, GroupTraffic::Row> GroupTraffic::rows() const {
  std::lock_guard<std::mutex> guard(mutex_);
  return rows_;
}

void GroupTraffic::reset() {
  std::lock_guard<std::mutex> guard(mutex_);
  rows_.clear();
}

HostTraffic& host_traffic() {
  static auto* t = new HostTraffic();
  return *t;
}

GroupTraffic& traffic_of(const std::vector<int64_t>& ranks) {
  std::lock_guard<std::mutex> guard(groups_mutex);
  return groups()[ranks];
}

std::map<std::vector<int64_t>, std::map<std::string, GroupTraffic::Row>> traffic() {
  std::lock_guard<std::mutex> guard(groups_mutex);
  std::map<std::vector<int64_t>, std::map<std::string, GroupTraffic::Row>> result;
  for (const auto& [ranks, group] : groups()) result[ranks] = group.rows();
  return result;
}

void reset_traffic() {
  std::lock_guard<std::mutex> guard(groups_mutex);
  for (auto& [ranks, group] : groups()) group.reset();
  HostTraffic& host = host_traffic();
  for (Counter* counter : {&host.to_device, &host.to_host, &host.locked}) counter->calls = counter->bytes = 0;
}

}  // namespace npu_sim
