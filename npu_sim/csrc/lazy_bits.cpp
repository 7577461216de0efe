// SPDX-License-Identifier: Apache-2.0
// Lazily conjugated and negated tensors. torch resolves them by a copy before an operator sees them; what must see them as they
// are is named here.
#include "operators.h"

#include <ATen/core/Tensor.h>
#include <ATen/core/List.h>
#include <ATen/core/stack.h>
#include <torch/library.h>

namespace npu_sim {
namespace {

using c10::DispatchKey;
using c10::IValue;

// The copy itself: the views over the host's bytes keep the bits, and copy_ on the CPU heeds them.
#define SEEN_BY_COPIES(key)                                              \
  TORCH_LIBRARY_IMPL(aten, key, m) {                                     \
    m.impl("_copy_from", torch::CppFunction::makeFallthrough());         \
    m.impl("_copy_from_and_resize", torch::CppFunction::makeFallthrough()); \
  }
SEEN_BY_COPIES(Conjugate)
SEEN_BY_COPIES(Negative)

IValue resolved(const IValue& value) {
  if (value.isTensor()) {
    const at::Tensor& t = value.toTensor();
    return t.defined() ? IValue(t.resolve_conj().resolve_neg()) : value;
  }
  if (!value.isList()) return value;
  const auto list = value.toList();
  c10::impl::GenericList result(list.elementType());
  for (const IValue& element : value.toListRef()) result.push_back(resolved(element));
  return result;
}

// torch.distributed's operators write into tensors that their schemas call inputs: of a resolved copy, the result would be lost.
// hccl heeds the bits; the tensors of other backends are resolved as torch does it.
void collective(const c10::OperatorHandle& handle, c10::DispatchKeySet keys, torch::jit::Stack* stack) {
  const size_t n = handle.schema().arguments().size();
  IValue* arguments = stack->data() + (stack->size() - n);
  if (!any_argument(handle, *stack, is_npu))
    for (size_t i = 0; i < n; i++) arguments[i] = resolved(arguments[i]);
  handle.redispatchBoxed(keys & c10::DispatchKeySet(c10::DispatchKeySet::FULL_AFTER, DispatchKey::Conjugate), stack);
}

#define SEEN_BY_COLLECTIVES(key)                                                                                                   \
  TORCH_LIBRARY_IMPL(c10d, key, m) {                                                                                               \
    for (const char* name : {"broadcast_", "allreduce_", "allreduce_coalesced_", "reduce_", "allgather_", "_allgather_base_",      \
                             "allgather_coalesced_", "allgather_into_tensor_coalesced_", "reduce_scatter_", "_reduce_scatter_base_", \
                             "reduce_scatter_tensor_coalesced_", "gather_", "scatter_", "alltoall_", "alltoall_base_", "send", "recv_", \
                             "recv_any_source_"})                                                                                  \
      m.impl(name, torch::CppFunction::makeFromBoxedFunction<&collective>());                                                      \
  }
SEEN_BY_COLLECTIVES(Conjugate)
SEEN_BY_COLLECTIVES(Negative)

}  // namespace
}  // namespace npu_sim
