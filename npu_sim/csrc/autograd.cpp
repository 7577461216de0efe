// SPDX-License-Identifier: Apache-2.0
// `tensor.data = other` between npu and cpu. torch keeps it from foreign devices; offloading (verl's, the rollout's) needs it.
#include "device.h"

#include <ATen/core/Tensor.h>
#include <torch/library.h>

namespace npu_sim {
namespace {

bool strided_on_cpu_or_npu(const at::Tensor& t) {
  return t.layout() == at::kStrided && (t.device().is_cpu() || t.device().type() == kNPU);
}

bool has_compatible_shallow_copy_type(const at::Tensor& self, const at::Tensor& from) {
  return (strided_on_cpu_or_npu(self) && strided_on_cpu_or_npu(from)) ||
      self.unsafeGetTensorImpl()->has_compatible_shallow_copy_type(from.key_set());
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) { m.impl("_has_compatible_shallow_copy_type", &has_compatible_shallow_copy_type); }

}  // namespace
}  // namespace npu_sim
