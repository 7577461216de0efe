// SPDX-License-Identifier: Apache-2.0
// What boxed kernels ask of an operator and of the arguments that it is called with.
#pragma once

#include "device.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <c10/util/flat_hash_map.h>

#include <algorithm>
#include <memory>
#include <mutex>
#include <string>

namespace npu_sim {

// What `describe` says of an operator: asked once in a process, then found by its name, and on each thread by its schema.
template <typename Described>
Described& once_per_operator(const c10::OperatorHandle& handle, std::unique_ptr<Described> (*describe)(const c10::OperatorHandle&)) {
  thread_local ska::flat_hash_map<const void*, Described*> cache;
  const void* key = &handle.schema();
  if (const auto found = cache.find(key); found != cache.end()) return *found->second;
  static std::mutex mutex;
  static auto* all = new ska::flat_hash_map<std::string, std::unique_ptr<Described>>();
  const std::lock_guard<std::mutex> guard(mutex);
  auto& described = (*all)[c10::toString(handle.operator_name())];
  if (!described) described = describe(handle);
  return *(cache[key] = described.get());
}

// Whether f is true of a tensor of the value, in lists and lists of lists too.
template <typename F>
bool any_tensor(const c10::IValue& value, const F& f) {
  if (value.isTensor()) return value.toTensor().defined() && f(value.toTensor());
  if (!value.isList()) return false;
  const auto list = value.toListRef();
  return std::any_of(list.begin(), list.end(), [&](const c10::IValue& element) { return any_tensor(element, f); });
}

template <typename F>
bool any_argument(const c10::OperatorHandle& handle, const torch::jit::Stack& stack, const F& f) {
  const auto first = stack.end() - static_cast<std::ptrdiff_t>(handle.schema().arguments().size());
  return std::any_of(first, stack.end(), [&](const c10::IValue& value) { return any_tensor(value, f); });
}

inline bool is_npu(const at::Tensor& t) { return t.device().type() == kNPU; }

}  // namespace npu_sim
