// SPDX-License-Identifier: Apache-2.0
// Every operator passes a gate (dispatch key Fake, below autograd, on threads that are hollow): those that meet CPU tensors
// without contents are answered here. Operators on npu tensors come by the boxed kernel of fallback.cpp, as CPU tensors too.
#include "hollow.h"

#include "memory.h"
#include "mirror.h"
#include "operators.h"

#include <ATen/Context.h>
#include <ATen/EmptyTensor.h>
#include <ATen/ExpandUtils.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/ops/nonzero.h>
#include <ATen/ops/sum.h>
#include <c10/core/impl/LocalDispatchKeySet.h>
#include <torch/library.h>

#include <atomic>
#include <memory>
#include <string_view>
#include <utility>

namespace npu_sim {
namespace {

using at::Tensor;
using c10::DispatchKey;
using c10::DispatchKeySet;
using c10::IValue;
using torch::jit::Stack;

std::atomic<int64_t> from_bytes{-1};
thread_local bool tls_all_with_contents = false;

HollowHooks& hooks() {
  static auto* h = new HollowHooks();
  return *h;
}

// ---------------------------------------------------------------- operators

enum class Kind {
  Shape,         // answered by the shape function
  Passes,        // touches no contents, or is made of operators that come here again
  Overwrites,    // the first argument is written, whatever it held
  Read,          // gives a number of the host
  Index,         // masks among the indices decide the shape
  MaskedSelect,  // so does the mask
  Empty,         // makes a tensor
  Resize,
  Refused,       // its result or its shape hangs on the contents
};

struct Named {
  std::string_view name;
  Kind kind;
};
constexpr Named kNamed[] = {
    {"aten::empty", Kind::Empty},
    {"aten::empty_strided", Kind::Empty},
    {"aten::resize_", Kind::Resize},
    {"aten::copy_", Kind::Overwrites},
    {"aten::fill_", Kind::Overwrites},
    {"aten::zero_", Kind::Overwrites},
    {"aten::normal_", Kind::Overwrites},
    {"aten::uniform_", Kind::Overwrites},
    {"aten::random_", Kind::Overwrites},
    {"aten::exponential_", Kind::Overwrites},
    // made of operators, but not of such as come here again
    {"aten::convolution", Kind::Shape},
    {"aten::convolution_backward", Kind::Shape},
    {"aten::_local_scalar_dense", Kind::Read},
    {"aten::index", Kind::Index},
    {"aten::index_put", Kind::Index},
    {"aten::index_put_", Kind::Index},
    {"aten::_index_put_impl_", Kind::Index},
    {"aten::_unsafe_index", Kind::Index},
    {"aten::_unsafe_index_put", Kind::Index},
    {"aten::masked_select", Kind::MaskedSelect},
    {"aten::is_set_to", Kind::Passes},
    {"aten::is_pinned", Kind::Passes},
    {"aten::_pin_memory", Kind::Passes},
    {"aten::nonzero", Kind::Refused},
    {"aten::_unique", Kind::Refused},
    {"aten::_unique2", Kind::Refused},
    {"aten::unique_dim", Kind::Refused},
    {"aten::unique_consecutive", Kind::Refused},
    {"aten::unique_dim_consecutive", Kind::Refused},
    {"aten::bincount", Kind::Refused},
    {"aten::repeat_interleave", Kind::Refused},
    {"aten::_assert_async", Kind::Refused},
};

struct HollowOp {
  std::string name;
  Kind kind = Kind::Shape;
  bool has_shape_function = false;
  bool only_writes = true;  // every returned tensor is an argument

  bool computes() const { return kind != Kind::Passes && kind != Kind::Empty; }
};

bool returns_a_view(const c10::FunctionSchema& schema) {
  for (const auto& argument : schema.returns())
    if (argument.alias_info() && !argument.alias_info()->isWrite()) return true;
  return false;
}

std::unique_ptr<HollowOp> describe(const c10::OperatorHandle& handle) {
  auto op = std::make_unique<HollowOp>();
  const auto& schema = handle.schema();
  op->name = c10::toString(handle.operator_name());
  op->has_shape_function = handle.hasComputedKernelForDispatchKey(DispatchKey::Meta);
  bool tensors_only = true;
  for (const auto& result : schema.returns()) {
    op->only_writes = op->only_writes && result.alias_info() && result.alias_info()->isWrite();
    const auto kind = result.type()->kind();
    tensors_only = tensors_only && (kind == c10::TypeKind::TensorType || kind == c10::TypeKind::ListType);
  }
  const bool leaf = handle.hasKernelForDispatchKey(DispatchKey::CPU) ||
                    handle.hasKernelForDispatchKey(DispatchKey::CompositeExplicitAutogradNonFunctional);
  for (const auto& named : kNamed)
    if (schema.name() == named.name) {
      op->kind = named.kind;
      return op;
    }
  // gloo reads memory; a mirror goes through operators that come here again
  const bool mirrored = in_world_of_one() && schema.name().starts_with("c10d::");
  if (!leaf || mirrored || returns_a_view(schema) || handle.hasTag(at::Tag::inplace_view))
    op->kind = Kind::Passes;
  else if (!tensors_only)
    op->kind = Kind::Refused;
  return op;
}

const HollowOp& op_of(const c10::OperatorHandle& handle) { return once_per_operator(handle, &describe); }

// ---------------------------------------------------------------- tensors

c10::StorageImpl* storage_of(const Tensor& t) { return t.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl(); }

bool has_no_contents(const Tensor& cpu) {
  return cpu.defined() && cpu.device().is_cpu() && cpu.has_storage() && is_hollow(storage_of(cpu));
}

[[noreturn]] void refuse(const HollowOp& op, const std::string& why) {
  hooks().refuse(op.name, why);
  TORCH_CHECK(false, op.name, " ", why);
}

Tensor meta_of(const Tensor& t) {
  // a Python number stays what it is: it does not decide the dtype of a result
  if (!t.defined() || t.is_meta() || t.unsafeGetTensorImpl()->is_wrapped_number()) return t;
  return at::detail::empty_strided_meta(t.sizes(), t.strides(), t.scalar_type());
}

IValue meta_value(const IValue& value) {
  if (value.isTensor()) return IValue(meta_of(value.toTensor()));
  if (value.isTensorList()) {
    auto list = value.toTensorVector();
    for (auto& t : list) t = meta_of(t);
    return IValue(std::move(list));
  }
  if (value.isOptionalTensorList()) {
    const auto list = value.toOptionalTensorList();
    c10::List<std::optional<Tensor>> converted;
    converted.reserve(list.size());
    for (size_t i = 0; i < list.size(); i++) {
      const std::optional<Tensor> t = list.get(i);
      converted.push_back(t && t->defined() ? std::optional<Tensor>(meta_of(*t)) : std::nullopt);
    }
    return IValue(std::move(converted));
  }
  if (value.isDevice()) return IValue(c10::Device(c10::DeviceType::Meta));
  if (value.isGenerator()) return IValue();
  return value;
}

// A CPU tensor of the sizes and strides of a meta tensor.
Tensor without_contents(const Tensor& meta, bool pinned = false) {
  const size_t nbytes = meta.storage().nbytes();
  if (pinned) at::globalContext().lazyInitDevice(kNPU);  // as torch does before it pins
  Tensor out = at::detail::make_tensor<c10::TensorImpl>(hollow_host_storage(nbytes, pinned), DispatchKeySet(DispatchKey::CPU), meta.dtype());
  out.unsafeGetTensorImpl()->set_sizes_and_strides(meta.sizes(), meta.strides(), meta.storage_offset());
  return out;
}

IValue value_without_contents(const IValue& meta) {
  if (meta.isTensor()) return meta.toTensor().defined() ? IValue(without_contents(meta.toTensor())) : meta;
  if (meta.isTensorList()) {
    auto list = meta.toTensorVector();
    for (auto& t : list) t = without_contents(t);
    return IValue(std::move(list));
  }
  return meta;
}

void fit(const Tensor& t, c10::IntArrayRef sizes, c10::IntArrayRef strides) {
  auto* impl = t.unsafeGetTensorImpl();
  impl->set_sizes_and_strides(sizes, strides);
  c10::StorageImpl* storage = storage_of(t);
  const size_t nbytes = at::detail::computeStorageNbytes(sizes, strides, t.itemsize(), t.storage_offset());
  if (nbytes > storage->nbytes()) grow_without_contents(storage, nbytes);
}

// What an operator has written: of the size that the shape function gave it, and nobody knows what.
void written(const Tensor& t, const Tensor& meta) {
  if (t.sizes() != meta.sizes()) fit(t, meta.sizes(), meta.strides());
  if (t.numel()) forget_contents(storage_of(t));
}

void value_written(const IValue& value, const IValue& meta) {
  if (value.isTensor()) {
    if (value.toTensor().defined()) written(value.toTensor(), meta.toTensor());
  } else if (value.isTensorList()) {
    const auto tensors = value.toTensorVector(), metas = meta.toTensorVector();
    for (size_t i = 0; i < tensors.size(); i++) written(tensors[i], metas[i]);
  }
}

bool covers_its_storage(const Tensor& t) {
  return t.is_non_overlapping_and_dense() && static_cast<size_t>(t.numel()) * t.itemsize() == storage_of(t)->nbytes();
}

// ---------------------------------------------------------------- running

IValue* arguments_of(const c10::OperatorHandle& handle, Stack* stack) {
  return stack->data() + (stack->size() - handle.schema().arguments().size());
}

// A kernel that computes needs the contents of what it allocates on the way, whatever the size.
struct AllWithContents {
  explicit AllWithContents(bool on) : previous(tls_all_with_contents) { tls_all_with_contents = tls_all_with_contents || on; }
  ~AllWithContents() { tls_all_with_contents = previous; }
  bool previous;
};

void compute(const c10::OperatorHandle& handle, const HollowOp& op, Stack* stack) {
  c10::impl::IncludeDispatchKeyGuard gate(DispatchKey::Fake);
  AllWithContents kernel(op.computes());
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  handle.redispatchBoxed(DispatchKeySet(DispatchKey::CPU), stack);
}

void run_shape_function(const c10::OperatorHandle& handle, const HollowOp& op, Stack* stack, Stack metas) {
  const auto& schema = handle.schema();
  const size_t n = schema.arguments().size();
  const std::vector<IValue> written_metas(metas.begin(), metas.end());
  if (op.has_shape_function) {
    at::AutoDispatchBelowADInplaceOrView below_autograd;
    try {
      handle.redispatchBoxed(DispatchKeySet(DispatchKey::Meta), &metas);
    } catch (const c10::NotImplementedError&) {
      refuse(op, "has no shape function, and meets a tensor without contents");
    }
  } else if (!op.only_writes) {
    refuse(op, "has no shape function, and meets a tensor without contents");
  }
  const std::vector<IValue> arguments(arguments_of(handle, stack), arguments_of(handle, stack) + n);
  torch::jit::drop(*stack, n);
  for (size_t i = 0; i < n; i++) {
    const auto* alias = schema.arguments()[i].alias_info();
    if (alias && alias->isWrite()) value_written(arguments[i], written_metas[i]);
  }
  for (size_t r = 0; r < schema.returns().size(); r++) {
    const auto* alias = schema.returns()[r].alias_info();
    if (!alias || !alias->isWrite()) {
      stack->push_back(value_without_contents(metas[r]));
      continue;
    }
    size_t i = 0;
    while (i + 1 < n && !(schema.arguments()[i].alias_info() && schema.arguments()[i].alias_info()->beforeSets() == alias->beforeSets())) i++;
    stack->push_back(arguments[i]);
  }
}

Stack metas_of(const c10::OperatorHandle& handle, Stack* stack) {
  Stack metas;
  const IValue* arguments = arguments_of(handle, stack);
  for (size_t i = 0; i < handle.schema().arguments().size(); i++) metas.push_back(meta_value(arguments[i]));
  return metas;
}

// Masks become the indices that they stand for: their shape hangs on what they hold, which is known.
void unmask(const HollowOp& op, IValue& indices) {
  c10::List<std::optional<Tensor>> result;
  const auto add = [&](const Tensor& t) {
    if (t.defined() && (t.scalar_type() == at::kBool || t.scalar_type() == at::kByte)) {
      if (has_no_contents(t)) refuse(op, "wants to know where a mask is true, which has no contents");
      for (const Tensor& dimension : at::nonzero(t).unbind(1)) result.push_back(dimension);
    } else {
      result.push_back(t.defined() ? std::optional<Tensor>(t) : std::nullopt);
    }
  };
  if (indices.isTensorList()) {
    for (const Tensor& t : indices.toTensorVector()) add(t);
  } else {
    const auto list = indices.toOptionalTensorList();
    for (size_t i = 0; i < list.size(); i++) add(std::optional<Tensor>(list.get(i)).value_or(Tensor()));
  }
  indices = IValue(std::move(result));
}

void masked_select(const HollowOp& op, Stack* stack) {
  const Tensor mask = torch::jit::pop(*stack).toTensor(), self = torch::jit::pop(*stack).toTensor();
  if (has_no_contents(mask)) refuse(op, "wants to know where a mask is true, which has no contents");
  const auto count = mask.expand(at::infer_size(self.sizes(), mask.sizes())).sum().item<int64_t>();
  stack->emplace_back(without_contents(at::detail::empty_strided_meta({count}, {1}, self.scalar_type())));
}

void overwrite(const c10::OperatorHandle& handle, const HollowOp& op, Stack* stack) {
  const IValue* arguments = arguments_of(handle, stack);
  const size_t n = handle.schema().arguments().size();
  const Tensor self = arguments[0].toTensor();
  bool known = true;
  for (size_t i = 1; i < n; i++) known = known && !any_tensor(arguments[i], has_no_contents);
  if (!known) return run_shape_function(handle, op, stack, metas_of(handle, stack));
  // A copy of known values is known too, however large: as many values are there already.
  const bool copied = n > 1 && arguments[1].isTensor() && arguments[1].toTensor().numel() == self.numel();
  if (covers_its_storage(self) && (copied || !hollow_by_size(self.scalar_type(), static_cast<int64_t>(self.nbytes())))) {
    have_contents(storage_of(self));
    return compute(handle, op, stack);
  }
  run_shape_function(handle, op, stack, metas_of(handle, stack));
}

// Some of the tensors, all on the CPU, are without contents.
void run_hollow(const c10::OperatorHandle& handle, Stack* stack) {
  const HollowOp& op = op_of(handle);
  IValue* arguments = arguments_of(handle, stack);
  switch (op.kind) {
    case Kind::Shape:
      return run_shape_function(handle, op, stack, metas_of(handle, stack));
    case Kind::Passes:
    case Kind::Empty:
      return compute(handle, op, stack);
    case Kind::Overwrites:
      return overwrite(handle, op, stack);
    case Kind::Read: {
      const c10::Scalar value = read_number(op.name, arguments[0].toTensor().scalar_type());
      torch::jit::drop(*stack, 1);
      stack->emplace_back(value);
      return;
    }
    case Kind::Index: {
      unmask(op, arguments[1]);
      return run_shape_function(handle, op, stack, metas_of(handle, stack));
    }
    case Kind::MaskedSelect:
      return masked_select(op, stack);
    case Kind::Resize: {
      const Tensor self = arguments[0].toTensor();
      const auto sizes = arguments[1].toIntVector();
      const Tensor meta = at::detail::empty_meta(sizes, self.scalar_type());
      fit(self, meta.sizes(), meta.strides());
      torch::jit::drop(*stack, handle.schema().arguments().size());
      stack->emplace_back(self);
      return;
    }
    case Kind::Refused:
      refuse(op, "wants contents of a tensor that has none");
  }
}

// ---------------------------------------------------------------- the gate

// Where a call makes a floating CPU tensor of the size: its meta tensor; otherwise undefined.
Tensor meta_of_made(const c10::OperatorHandle& handle, const HollowOp& op, Stack* stack, bool* pinned) {
  const IValue* arguments = arguments_of(handle, stack);
  const auto& schema = handle.schema().arguments();
  for (size_t i = 0; i < schema.size(); i++) {
    const std::string& name = schema[i].name();
    if (name == "device" && arguments[i].isDevice() && !arguments[i].toDevice().is_cpu()) return {};
    if (name == "layout" && arguments[i].isInt() && static_cast<c10::Layout>(arguments[i].toInt()) != c10::Layout::Strided) return {};
    if (name == "pin_memory") *pinned = arguments[i].isBool() && arguments[i].toBool();
    if (name == "dtype" && arguments[i].isInt() && !c10::isFloatingType(arguments[i].toScalarType())) return {};
  }
  Stack metas = metas_of(handle, stack);
  for (size_t i = 0; i < schema.size(); i++) {
    if (schema[i].name() == "device") metas[i] = IValue(c10::Device(c10::DeviceType::Meta));
    if (schema[i].name() == "pin_memory") metas[i] = IValue();
  }
  if (!op.has_shape_function) return {};
  handle.redispatchBoxed(DispatchKeySet(DispatchKey::Meta), &metas);
  Tensor meta = metas.back().toTensor();
  return hollow_by_size(meta.scalar_type(), static_cast<int64_t>(meta.storage().nbytes())) ? meta : Tensor();
}

void gate(const c10::OperatorHandle& handle, DispatchKeySet keys, Stack* stack) {
  const HollowOp& op = op_of(handle);
  const bool computes = op.computes() && !any_argument(handle, *stack, is_npu);
  if (op.kind == Kind::Empty) {
    bool pinned = false;
    if (const Tensor meta = meta_of_made(handle, op, stack, &pinned); meta.defined()) {
      torch::jit::drop(*stack, handle.schema().arguments().size());
      stack->emplace_back(without_contents(meta, pinned));
      return;
    }
  } else if (computes && any_argument(handle, *stack, has_no_contents)) {
    return run_hollow(handle, stack);
  }
  AllWithContents kernel(computes);
  handle.redispatchBoxed(keys & DispatchKeySet(DispatchKeySet::FULL_AFTER, DispatchKey::Fake), stack);
}

TORCH_LIBRARY_IMPL(_, Fake, m) { m.fallback(torch::CppFunction::makeFromBoxedFunction<&gate>()); }

}  // namespace

void make_hollow(int64_t bytes, HollowHooks given) {
  hooks() = std::move(given);
  from_bytes = bytes;
  c10::impl::tls_set_dispatch_key_included(DispatchKey::Fake, true);
}

bool set_all_with_contents(bool on) { return std::exchange(tls_all_with_contents, on); }

bool hollow_by_size(c10::ScalarType dtype, int64_t nbytes) {
  const int64_t from = from_bytes.load(std::memory_order_relaxed);
  return from >= 0 && nbytes >= from && nbytes > 0 && c10::isFloatingType(dtype) && !tls_all_with_contents;
}

bool is_hollow(const Tensor& t) {
  if (!t.defined() || !t.has_storage()) return false;
  const c10::StorageImpl* storage = storage_of(t);
  if (t.device().type() == kNPU) storage = twin_of(storage);
  return storage && is_hollow(storage);
}

c10::Scalar read_number(const std::string& op, c10::ScalarType dtype) { return hooks().read(op, dtype); }

void give_zeros(const Tensor& t) {
  TORCH_CHECK(is_hollow(t) && covers_its_storage(t), "give_zeros: expected a tensor without contents that is all of its storage");
  c10::StorageImpl* storage = storage_of(t);
  have_contents(t.device().type() == kNPU ? twin_of(storage) : storage);
  t.zero_();
}

void run_on_cpu(const c10::OperatorHandle& handle, Stack* stack) {
  if (from_bytes.load(std::memory_order_relaxed) < 0) return handle.redispatchBoxed(DispatchKeySet(DispatchKey::CPU), stack);
  if (any_argument(handle, *stack, has_no_contents)) return run_hollow(handle, stack);
  compute(handle, op_of(handle), stack);
}

}  // namespace npu_sim
