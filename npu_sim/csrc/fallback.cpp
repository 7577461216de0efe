// SPDX-License-Identifier: Apache-2.0
// One boxed kernel for every operator without a kernel of its own: npu tensors become CPU tensors over the same bytes, the
// CPU kernel runs, and what it returns becomes npu tensors again. Views, in-place and out= operators come for free.
//
// Strict where a device is strict: all tensors on one device, except where kAllowed says otherwise; and loud: an operator
// that cannot run raises NotImplementedError with its name.
#include "counters.h"
#include "generator.h"
#include "hollow.h"
#include "memory.h"
#include "operators.h"
#include "refusals.h"

#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <torch/library.h>

#include <memory>
#include <string>
#include <string_view>

namespace npu_sim {
namespace {

using c10::Device;
using c10::IValue;

// Arguments that may lie on the CPU while others lie on an npu, as bits by position: indices of advanced indexing.
// Scalars (0-dim CPU tensors) are fine everywhere, as on every device.
struct MayBeOnCpu {
  std::string_view name;
  uint32_t arguments;
};
constexpr MayBeOnCpu kAllowed[] = {
    {"aten::index", 1u << 1},
    {"aten::index_put", 1u << 1},
    {"aten::index_put_", 1u << 1},
    {"aten::_index_put_impl_", 1u << 1},
    {"aten::_unsafe_index", 1u << 1},
    {"aten::_unsafe_index_put", 1u << 1},
};

// Families that cannot work on twin storage (they make tensors without a strided storage, or crash below the dispatcher), and
// packed sequences, in which an NPU keeps the padding (op-plugin 7.1.0, ops/aclops/PackPaddedSequenceKernelNpu.cpp).
constexpr std::string_view kBlocked[] = {
    "aten::_fft", "aten::fft_", "aten::stft", "aten::istft", "aten::_sparse", "aten::sparse_", "aten::_to_sparse", "aten::to_sparse",
    "aten::_coalesce", "aten::_spdiags", "aten::_validate_sparse", "aten::_convert_indices", "aten::quantize", "aten::_empty_affine_quantized",
    "aten::_empty_per_channel_affine_quantized", "aten::to_mkldnn", "aten::mkldnn", "aten::_mkldnn", "aten::_nested", "aten::_make_per",
    "aten::_pack_padded_sequence", "aten::_pad_packed_sequence",
};

// Composite kernels that ask for the device's name or call a kernel of it below the dispatcher, and those that return another
// dtype or round otherwise than the kernel of its own that the CPU has: they must find the CPU.
constexpr const char* kWantTheCpu[] = {
    "mode.values", "conj_physical_", "_nnpack_spatial_convolution", "native_layer_norm", "native_group_norm", "mish_backward",
    "addr", "addr.out", "_pack_padded_sequence", "_pad_packed_sequence",
};

struct Op {
  Counter* counter = nullptr;
  const Refusals* refusals = nullptr;
  std::string refusal;        // why it cannot run; empty when it can
  uint32_t may_be_on_cpu = 0;
  int generator = -1;         // position of the Generator argument
  bool mutates = false;
};

std::unique_ptr<Op> describe(const c10::OperatorHandle& handle) {
  auto op = std::make_unique<Op>();
  const auto& schema = handle.schema();
  const std::string& name = schema.name();
  const std::string full = c10::toString(handle.operator_name());
  op->counter = &op_counter(full);
  op->refusals = &refusals_of_operator(full);
  op->mutates = schema.is_mutable();
  for (const auto& allowed : kAllowed)
    if (name == allowed.name) op->may_be_on_cpu = allowed.arguments;
  for (size_t i = 0; i < schema.arguments().size(); i++)
    if (schema.arguments()[i].name() == "generator") op->generator = static_cast<int>(i);
  bool blocked = false;
  for (const auto& prefix : kBlocked) blocked = blocked || name.compare(0, prefix.size(), prefix) == 0;
  if (name.compare(0, 6, "aten::") != 0)
    op->refusal = full + " has no kernel for the simulated NPU; give it one (torch.library, dispatch key PrivateUse1)";
  else if (blocked)
    op->refusal = full + " is not supported on the simulated NPU";
  else if (!handle.hasComputedKernelForDispatchKey(c10::DispatchKey::CPU))
    op->refusal = full + " has no CPU kernel to run it on the simulated NPU";
  return op;
}

struct Operand {
  at::Tensor npu, cpu;
};

class Call {
 public:
  Call(const c10::OperatorHandle& handle, const Op& op) : handle_(handle), op_(op) {}

  // ---- in
  void take(IValue& value, size_t position) {
    position_ = position;
    if (value.isTensor()) {
      const at::Tensor& t = value.toTensor();
      if (t.defined()) take_tensor(value, t);
    } else if (value.isTensorList()) {
      auto list = std::move(value).toTensorVector();
      for (auto& t : list)
        if (t.defined()) t = to_cpu(t);
      value = IValue(std::move(list));
    } else if (value.isOptionalTensorList()) {
      const auto list = value.toOptionalTensorList();
      c10::List<std::optional<at::Tensor>> converted;
      converted.reserve(list.size());
      for (size_t i = 0; i < list.size(); i++) {
        std::optional<at::Tensor> t = list.get(i);
        if (t && t->defined()) t = to_cpu(*t);
        converted.push_back(std::move(t));
      }
      value = IValue(std::move(converted));
    } else if (value.isDevice() && value.toDevice().type() == kNPU) {
      if (device_ < 0) device_ = resolve(value.toDevice().index());
      value = IValue(Device(c10::DeviceType::CPU));
    }
  }

  void check_devices() const {
    if (stray_cpu_ && device_ >= 0) mixed("cpu");
  }

  void take_generator(IValue& value) const {
    if (value.isGenerator()) {
      at::Generator g = value.toGenerator();
      if (g.defined() && device_ >= 0) value = IValue(cpu_generator_of(g));
    } else if (value.isNone() && device_ >= 0) {
      value = IValue(cpu_generator_of(default_generator(device_)));
    }
  }

  c10::DeviceIndex device() const { return device_; }

  // ---- out
  void settle_operands() {
    for (auto& o : operands_) {
      follow_twin(o.npu.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl());
      const auto* cpu = o.cpu.unsafeGetTensorImpl();
      auto* npu = o.npu.unsafeGetTensorImpl();
      if (cpu->sizes() != npu->sizes() || cpu->strides() != npu->strides() || cpu->storage_offset() != npu->storage_offset())
        npu->set_sizes_and_strides(cpu->sizes(), cpu->strides(), cpu->storage_offset());
      // a kernel may leave its result lazily conjugated (linalg_lu_solve.out)
      if (o.cpu.is_conj() != o.npu.is_conj()) npu->_set_conj(o.cpu.is_conj());
      if (o.cpu.is_neg() != o.npu.is_neg()) npu->_set_neg(o.cpu.is_neg());
    }
  }

  void give(IValue& value) {
    if (value.isTensor()) {
      at::Tensor t = std::move(value).toTensor();
      value = IValue(to_npu(std::move(t)));
    } else if (value.isTensorList()) {
      auto list = std::move(value).toTensorVector();
      for (auto& t : list) t = to_npu(std::move(t));
      value = IValue(std::move(list));
    }
  }

 private:
  [[noreturn]] void mixed(const std::string& other) const {
    TORCH_CHECK(false, "Expected all tensors to be on the same device, but found at least two devices, npu:", static_cast<int>(device_),
                " and ", other, "! (when checking arguments of ", c10::toString(handle_.operator_name()), ")");
    std::abort();
  }

  void take_tensor(IValue& value, const at::Tensor& t) {
    if (t.device().type() == kNPU || t.device().is_cpu()) {
      at::Tensor converted = to_cpu(t);
      value = IValue(std::move(converted));
    } else {
      TORCH_CHECK(t.is_meta(), "found a tensor on ", t.device(), " beside npu tensors (", c10::toString(handle_.operator_name()), ")");
    }
  }

  at::Tensor to_cpu(const at::Tensor& t) {
    const Device device = t.device();
    if (device.type() != kNPU) {
      const bool allowed = position_ < 32 && (op_.may_be_on_cpu >> position_ & 1u);
      if (device.is_cpu() && t.dim() > 0 && !allowed) stray_cpu_ = true;
      return t;
    }
    if (device_ < 0) {
      device_ = device.index();
    } else if (device_ != device.index()) {
      mixed("npu:" + std::to_string(static_cast<int>(device.index())));
    }
    op_.refusals->check(t.scalar_type(), handle_.schema().arguments()[position_].name());
    for (auto& o : operands_)
      if (o.npu.is_same(t)) return o.cpu;
    operands_.push_back({t, cpu_view(t)});
    return operands_.back().cpu;
  }

  at::Tensor to_npu(at::Tensor t) {
    if (!t.defined() || !t.device().is_cpu()) return t;
    for (auto& o : operands_)
      if (o.cpu.is_same(t)) return o.npu;
    TORCH_CHECK_NOT_IMPLEMENTED(t.layout() == at::kStrided && t.has_storage() && !t.is_quantized() && !t.is_nested(),
                                c10::toString(handle_.operator_name()), " returned a ", t.toString(),
                                ": only strided tensors exist on the simulated NPU");
    const c10::StorageImpl* storage = t.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl();
    for (auto& o : operands_)
      if (o.cpu.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl() == storage)
        return to_npu_in_place(std::move(t), o.npu.storage());
    for (auto& made : made_)
      if (twin_of(made.unsafeGetStorageImpl()) == storage) return to_npu_in_place(std::move(t), made);
    c10::Storage fresh = npu_storage_over(t.storage(), device_);
    made_.push_back(fresh);
    return to_npu_in_place(std::move(t), std::move(fresh));
  }

  const c10::OperatorHandle& handle_;
  const Op& op_;
  c10::SmallVector<Operand, 6> operands_;
  c10::SmallVector<c10::Storage, 2> made_;
  c10::DeviceIndex device_ = -1;
  size_t position_ = 0;
  bool stray_cpu_ = false;
};

void fallback(const c10::OperatorHandle& handle, torch::jit::Stack* stack) {
  const Op& op = once_per_operator(handle, &describe);
  op.counter->add();
  TORCH_CHECK_NOT_IMPLEMENTED(op.refusal.empty(), op.refusal);
  const auto& schema = handle.schema();
  const size_t n_arguments = schema.arguments().size();
  Call call(handle, op);
  IValue* arguments = stack->data() + (stack->size() - n_arguments);
  for (size_t i = 0; i < n_arguments; i++) call.take(arguments[i], i);
  call.check_devices();
  if (op.generator >= 0) call.take_generator(arguments[op.generator]);
  {
    ComputeFor guard(call.device());
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    run_on_cpu(handle, stack);
  }
  if (op.mutates) call.settle_operands();
  if (call.device() < 0) return;
  const size_t n_returns = schema.returns().size();
  IValue* returns = stack->data() + (stack->size() - n_returns);
  for (size_t i = 0; i < n_returns; i++) call.give(returns[i]);
}

TORCH_LIBRARY_IMPL(_, PrivateUse1, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&fallback>()); }

}  // namespace

// Functional and in-place structured operators have a composite kernel that allocates the result and calls the out= variant:
// three dispatches where one does.
void install_direct_fallbacks() {
  static auto* library = new torch::Library(torch::Library::IMPL, "aten", c10::DispatchKey::PrivateUse1, __FILE__, __LINE__);
  auto& dispatcher = c10::Dispatcher::singleton();
  for (const c10::OperatorName& name : dispatcher.getAllOpNames()) {
    if (name.name.compare(0, 6, "aten::") != 0) continue;
    const auto handle = dispatcher.findOp(name);
    if (!handle || handle->hasKernelForDispatchKey(c10::DispatchKey::PrivateUse1) ||
        !handle->hasKernelForDispatchKey(c10::DispatchKey::CompositeExplicitAutogradNonFunctional) ||
        !handle->hasComputedKernelForDispatchKey(c10::DispatchKey::CPU))
      continue;
    const std::string local = c10::toString(name).substr(6);
    library->impl(local.c_str(), torch::CppFunction::makeFromBoxedFunction<&fallback>());
  }
  for (const char* name : kWantTheCpu) library->impl(name, torch::CppFunction::makeFromBoxedFunction<&fallback>());
}

}  // namespace npu_sim
