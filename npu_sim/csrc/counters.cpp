// SPDX-License-Identifier: Apache-2.0
#include "counters.h"

#include <mutex>

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

}  // namespace npu_sim
