// SPDX-License-Identifier: Apache-2.0
#include "refusals.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <set>

namespace npu_sim {
namespace {

std::mutex mutex;  // of both tables and of what is in them

struct Table {
  const char* as;
  std::map<std::string, Refusals> rows;  // nodes never move

  Refusals& get(const std::string& name) {
    std::lock_guard<std::mutex> guard(mutex);
    return rows.try_emplace(name, name, as).first->second;
  }
  void clear() {
    for (auto& [name, row] : rows) row.clear();
  }
};
Table& operators() {
  static auto* t = new Table{"as", {}};
  return *t;
}
Table& collectives() {
  static auto* t = new Table{"reduced by", {}};
  return *t;
}

// Kernels of their own that only make, share and reshape storage: no dtype matters to them, and they look at none.
constexpr std::string_view kStorageOnly[] = {
    "aten::empty", "aten::empty_strided", "aten::_efficientzerotensor", "aten::as_strided", "aten::view", "aten::_reshape_alias",
    "aten::resize_", "aten::set_", "aten::record_stream", "aten::_copy_from_and_resize", "aten::_has_compatible_shallow_copy_type",
};

// What torch calls on a foreign device in place of what it calls elsewhere.
constexpr std::pair<std::string_view, std::string_view> kCalledInstead[] = {
    {"aten::convolution", "aten::convolution_overrideable"},
    {"aten::convolution_backward", "aten::convolution_backward_overrideable"},
};

bool reaches_the_device(const c10::OperatorHandle& handle) {
  const std::string& name = handle.operator_name().name;
  if (std::find(std::begin(kStorageOnly), std::end(kStorageOnly), name) != std::end(kStorageOnly)) return false;
  return name.compare(0, 6, "aten::") == 0 &&
      (handle.hasKernelForDispatchKey(c10::DispatchKey::PrivateUse1) ||
       (!handle.hasKernelForDispatchKey(c10::DispatchKey::CompositeImplicitAutograd) &&
        !handle.hasKernelForDispatchKey(c10::DispatchKey::CompositeExplicitAutograd)));
}

bool is_among(std::string_view value, const std::vector<std::string>& list) {
  return list.empty() || std::find(list.begin(), list.end(), value) != list.end();
}

constexpr std::string_view kCollectives[] = {
    "broadcast", "allreduce", "reduce", "allgather", "_allgather_base", "gather", "scatter", "reduce_scatter", "_reduce_scatter_base",
    "alltoall_base", "alltoall", "send", "recv",
};
constexpr std::string_view kReductions[] = {"SUM", "AVG", "PRODUCT", "MIN", "MAX", "BAND", "BOR", "BXOR", "PREMUL_SUM"};

}  // namespace

void Refusals::add(Refusal refusal) {
  uint64_t bits = refusal.dtypes.empty() ? ~uint64_t{0} : 0;
  for (const auto dtype : refusal.dtypes) bits |= uint64_t{1} << static_cast<int>(dtype);
  auto entry = std::make_shared<Entry>();
  entry->refusal = std::move(refusal);
  std::lock_guard<std::mutex> guard(mutex);
  entries_.push_back(std::move(entry));
  dtypes_.fetch_or(bits, std::memory_order_relaxed);
}

void Refusals::clear() {
  entries_.clear();
  dtypes_.store(0, std::memory_order_relaxed);
}

void Refusals::refuse(c10::ScalarType dtype, std::string_view part) const {
  std::vector<std::shared_ptr<Entry>> entries;
  {
    std::lock_guard<std::mutex> guard(mutex);
    entries = entries_;
  }
  for (const auto& entry : entries) {
    const Refusal& refusal = entry->refusal;
    const auto& dtypes = refusal.dtypes;
    if (!dtypes.empty() && std::find(dtypes.begin(), dtypes.end(), dtype) == dtypes.end()) continue;
    if (!is_among(part, refusal.parts)) continue;
    if (refusal.warn && entry->said.exchange(true)) continue;
    const std::string role = part.empty() ? "" : c10::str(" ", as_, " ", part);
    const std::string found = c10::str(" (found torch.", c10::getDtypeNames(dtype).first, role, " in ", owner_, ")");
    TORCH_CHECK(refusal.warn, refusal.message, found);
    TORCH_WARN(refusal.message, found);
  }
}

Refusals& refusals_of_operator(const std::string& full_name) { return operators().get(full_name); }
Refusals& refusals_of_collective(const std::string& name) { return collectives().get(name); }

void refuse_dtypes(const std::string& name, Refusal refusal) {
  std::string called = name;
  for (const auto& [elsewhere, here] : kCalledInstead)
    if (name == elsewhere) called = here;
  bool exists = false, reached = false;
  std::set<std::string> unknown(refusal.parts.begin(), refusal.parts.end());
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const c10::OperatorName& overload : dispatcher.getAllOpNames()) {
    const std::string full = c10::toString(overload);
    if (overload.name != called && full != called) continue;
    const auto handle = dispatcher.findSchema(overload);
    if (!handle) continue;
    exists = true;
    if (!reaches_the_device(*handle)) continue;
    reached = true;
    for (const auto& argument : handle->schema().arguments()) unknown.erase(argument.name());
    refusals_of_operator(full).add(refusal);
  }
  TORCH_CHECK_VALUE(exists, "torch has no operator ", name);
  TORCH_CHECK_VALUE(!reached || unknown.empty(), name, " has no argument '", *unknown.begin(), "'");
  TORCH_CHECK_VALUE(reached, name, " never reaches the device under this name; refuse the operators that it is made of");
}

void refuse_collective(const std::string& name, Refusal refusal) {
  TORCH_CHECK_VALUE(std::find(std::begin(kCollectives), std::end(kCollectives), name) != std::end(kCollectives), "hccl has no collective '",
                    name, "'; they go by the names in torch_npu.sim.collective_counts()");
  for (const auto& part : refusal.parts)
    TORCH_CHECK_VALUE(std::find(std::begin(kReductions), std::end(kReductions), part) != std::end(kReductions), "there is no ReduceOp.", part);
  refusals_of_collective(name).add(std::move(refusal));
}

void clear_refusals() {
  std::lock_guard<std::mutex> guard(mutex);
  operators().clear();
  collectives().clear();
}

}  // namespace npu_sim
