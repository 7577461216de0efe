// SPDX-License-Identifier: Apache-2.0
// Kernels of their own: what makes and reshapes storages, and what is called so often that the boxed way would cost.
#include "counters.h"
#include "hollow.h"
#include "memory.h"
#include "refusals.h"

#include <ATen/EmptyTensor.h>
#include <ATen/NativeFunctions.h>
#include <ATen/Operators.h>
#include <ATen/core/LegacyTypeDispatch.h>
#include <ATen/native/Resize.h>
#include <torch/library.h>

#include <initializer_list>

namespace npu_sim {
namespace {

using at::Tensor;
using c10::Device;
using c10::IntArrayRef;
using c10::SymInt;
using c10::SymIntArrayRef;

#define COUNT(name)                                   \
  do {                                                \
    static Counter& counter = op_counter("aten::" name); \
    counter.add();                                    \
  } while (0)

// The dtypes that documents exclude, by argument, before anything is computed.
struct Argument {
  const char* name;
  const Tensor* tensor;
};
void check_dtypes(const Refusals& refusals, std::initializer_list<Argument> arguments) {
  for (const auto& [name, tensor] : arguments)
    if (tensor && tensor->defined() && tensor->device().type() == kNPU) refusals.check(tensor->scalar_type(), name);
}
#define CHECK_DTYPES(name, ...)                                                \
  do {                                                                         \
    static const Refusals& refusals = refusals_of_operator("aten::" name);     \
    check_dtypes(refusals, {__VA_ARGS__});                                     \
  } while (0)

constexpr c10::DispatchKeySet kKeys(c10::DispatchKey::PrivateUse1);

void check_options(std::optional<c10::Layout> layout, std::optional<bool> pin_memory) {
  TORCH_CHECK_NOT_IMPLEMENTED(c10::layout_or_default(layout) == at::kStrided, "aten::empty: layout ", *layout,
                              " is not supported on the simulated NPU");
  TORCH_CHECK(!pin_memory.value_or(false), "only dense CPU tensors can be pinned");
}

Tensor empty(IntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout> layout, std::optional<Device> device,
             std::optional<bool> pin_memory, std::optional<c10::MemoryFormat> format) {
  COUNT("empty.memory_format");
  check_options(layout, pin_memory);
  WithDevice with(device ? device->index() : -1);
  StorageFor storage_for(c10::dtype_or_default(dtype));
  return at::detail::empty_generic(size, device_allocator(), kKeys, c10::dtype_or_default(dtype), format);
}

Tensor empty_strided(IntArrayRef size, IntArrayRef stride, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout> layout,
                     std::optional<Device> device, std::optional<bool> pin_memory) {
  COUNT("empty_strided");
  check_options(layout, pin_memory);
  WithDevice with(device ? device->index() : -1);
  StorageFor storage_for(c10::dtype_or_default(dtype));
  return at::detail::empty_strided_generic(size, stride, device_allocator(), kKeys, c10::dtype_or_default(dtype));
}

// A ZeroTensor has no storage to put a twin under: plain zeros instead.
Tensor zero_tensor(IntArrayRef size, std::optional<c10::ScalarType> dtype, std::optional<c10::Layout> layout, std::optional<Device> device,
                   std::optional<bool> pin_memory) {
  return empty(size, dtype, layout, device, pin_memory, std::nullopt).zero_();
}

Tensor as_strided(const Tensor& self, SymIntArrayRef size, SymIntArrayRef stride, std::optional<SymInt> offset) {
  COUNT("as_strided");
  return at::native::as_strided_tensorimpl(self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride),
                                           offset ? std::optional<int64_t>(offset->guard_int(__FILE__, __LINE__)) : std::nullopt);
}

Tensor view(const Tensor& self, SymIntArrayRef size) {
  COUNT("view");
  return at::native::view(self, C10_AS_INTARRAYREF_SLOW(size));
}

Tensor reshape_alias(const Tensor& self, SymIntArrayRef size, SymIntArrayRef stride) {
  COUNT("_reshape_alias");
  return at::native::_reshape_alias(self, C10_AS_INTARRAYREF_SLOW(size), C10_AS_INTARRAYREF_SLOW(stride));
}

// Make the storage large enough for the tensor's sizes and strides; it never shrinks.
void fit_storage(const Tensor& self) {
  auto* storage = self.unsafeGetTensorImpl()->unsafe_storage().unsafeGetStorageImpl();
  if (self.numel() == 0) return;
  const size_t nbytes = at::detail::computeStorageNbytes(self.sizes(), self.strides(), self.itemsize(), self.storage_offset());
  if (nbytes > storage->nbytes()) resize_storage(storage, nbytes);
}

// torch's own resize_ would allocate on the current device instead of the tensor's.
const Tensor& resize_to(const Tensor& self, IntArrayRef size, std::optional<c10::MemoryFormat> format) {
  auto* impl = self.unsafeGetTensorImpl();
  const std::vector<int64_t> old_sizes = self.sizes().vec(), old_strides = self.strides().vec();
  if (self.sizes() != size) impl->set_sizes_contiguous(size);
  if (format) impl->empty_tensor_restride(*format);
  try {
    fit_storage(self);
  } catch (...) {
    impl->set_sizes_and_strides(old_sizes, old_strides);
    throw;
  }
  return self;
}

const Tensor& resize_(const Tensor& self, SymIntArrayRef size, std::optional<c10::MemoryFormat> format) {
  COUNT("resize_");
  at::detail::check_size_nonnegative(size);
  TORCH_CHECK(!format || *format != c10::MemoryFormat::Preserve, "unsupported memory format: preserve");
  return resize_to(self, C10_AS_INTARRAYREF_SLOW(size), format);
}

void check_same_device(const Device& self, const Device& source) {
  TORCH_CHECK(self == source, "set_: expected a storage on ", self, ", got one on ", source);
}

Tensor& set_empty(Tensor& self) {
  COUNT("set_");
  WithDevice with(self.device().index());
  c10::Storage storage(c10::Storage::use_byte_size_t(), 0, device_allocator()->allocate(0), device_allocator(), true);
  return self.set_(std::move(storage), 0, {0}, {});
}

Tensor& set_tensor(Tensor& self, const Tensor& source) {
  COUNT("set_.source_Tensor");
  check_same_device(self.device(), source.device());
  return at::native::set_tensor_(self, source);
}

Tensor& set_storage(Tensor& self, at::Storage source) {
  COUNT("set_.source_Storage");
  check_same_device(self.device(), source.device());
  return at::native::set_(self, std::move(source));
}

Tensor& set_storage_offset(Tensor& self, at::Storage source, SymInt offset, SymIntArrayRef size, SymIntArrayRef stride) {
  COUNT("set_.source_Storage_storage_offset");
  check_same_device(self.device(), source.device());
  const int64_t at_offset = offset.guard_int(__FILE__, __LINE__);
  const auto sizes = C10_AS_INTARRAYREF_SLOW(size);
  const auto strides = C10_AS_INTARRAYREF_SLOW(stride);
  at::native::checkSetStorage(self, std::move(source), at_offset, sizes, strides);
  self.unsafeGetTensorImpl()->set_storage_offset(at_offset);
  auto* impl = self.unsafeGetTensorImpl();
  if (strides.data())
    impl->set_sizes_and_strides(sizes, strides);
  else
    impl->set_sizes_contiguous(sizes);
  fit_storage(self);
  return self;
}

// Between host and device, and between devices: the only operator that may see two devices.
Tensor copy_from(const Tensor& self, const Tensor& dst, bool non_blocking) {
  COUNT("_copy_from");
  CHECK_DTYPES("_copy_from", {"self", &self}, {"dst", &dst});
  const bool to_npu = dst.device().type() == kNPU;
  TORCH_CHECK_NOT_IMPLEMENTED(self.layout() == at::kStrided && dst.layout() == at::kStrided,
                              "aten::_copy_from: only strided tensors exist on the simulated NPU");
  const Tensor from = self.device().type() == kNPU ? cpu_view(self) : self;
  const Tensor to = to_npu ? cpu_view(dst) : dst;
  if (to_npu != (self.device().type() == kNPU)) {
    // Where dtypes differ, the host converts (torch_npu v2.5.1-7.1.0, CopyKernelOpApi.cpp).
    const Tensor& on_device = to_npu ? dst : self;
    (to_npu ? host_traffic().to_device : host_traffic().to_host).add(static_cast<int64_t>(on_device.numel() * on_device.itemsize()));
  }
  ComputeFor guard(to_npu ? dst.device().index() : -1);
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  to.copy_(from, non_blocking);
  return dst;
}

Tensor copy_from_and_resize(const Tensor& self, const Tensor& dst) {
  if (dst.device().type() == kNPU)
    resize_to(dst, self.sizes(), std::nullopt);
  else
    at::native::resize_(dst, self.sizes(), std::nullopt);
  return copy_from(self, dst, false);
}

at::Scalar local_scalar_dense(const Tensor& self) {
  COUNT("_local_scalar_dense");
  CHECK_DTYPES("_local_scalar_dense", {"self", &self});
  if (is_hollow(self)) return read_number("aten::_local_scalar_dense", self.scalar_type());
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return at::_ops::_local_scalar_dense::call(cpu_view(self));
}

void record_stream(Tensor&, c10::Stream) {}  // everything is synchronous

// The CPU kernel draws from the CPU generator; this one from the device's. Returns (output, mask), output = x*mask/(1-p).
std::tuple<Tensor, Tensor> native_dropout(const Tensor& input, double p, std::optional<bool> train) {
  COUNT("native_dropout");
  CHECK_DTYPES("native_dropout", {"input", &input});
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  Tensor mask = at::empty_like(input, input.options().dtype(at::kBool));
  if (input.numel() == 0 || !train.value_or(true)) return {input.clone(), mask.fill_(true)};
  mask.bernoulli_(1 - p);
  return {input.mul(mask).mul_(p == 1 ? 0. : 1. / (1. - p)), mask};
}

// torch hands convolutions of foreign devices to these two.
Tensor convolution(const Tensor& input, const Tensor& weight, const std::optional<Tensor>& bias, IntArrayRef stride, IntArrayRef padding,
                   IntArrayRef dilation, bool transposed, IntArrayRef output_padding, int64_t groups) {
  COUNT("convolution_overrideable");
  CHECK_DTYPES("convolution_overrideable", {"input", &input}, {"weight", &weight}, {"bias", bias ? &*bias : nullptr});
  const auto device = input.device();
  TORCH_CHECK(weight.device() == device && (!bias || !bias->defined() || bias->device() == device),
              "Expected all tensors to be on the same device: input on ", device, ", weight on ", weight.device(), " (aten::convolution)");
  std::optional<Tensor> cpu_bias;
  if (bias && bias->defined()) cpu_bias = cpu_view(*bias);
  ComputeFor guard(device.index());
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  return as_npu(at::convolution(cpu_view(input), cpu_view(weight), cpu_bias, stride, padding, dilation, transposed, output_padding, groups),
                device.index());
}

std::tuple<Tensor, Tensor, Tensor> convolution_backward(const Tensor& grad, const Tensor& input, const Tensor& weight, IntArrayRef stride,
                                                        IntArrayRef padding, IntArrayRef dilation, bool transposed,
                                                        IntArrayRef output_padding, int64_t groups, std::array<bool, 3> mask) {
  COUNT("convolution_backward_overrideable");
  CHECK_DTYPES("convolution_backward_overrideable", {"grad_output", &grad}, {"input", &input}, {"weight", &weight});
  const auto device = input.device().index();
  const int64_t bias_size = transposed ? weight.size(1) * groups : weight.size(0);
  ComputeFor guard(device);
  at::AutoDispatchBelowADInplaceOrView below_autograd;
  auto [grad_input, grad_weight, grad_bias] = at::convolution_backward(cpu_view(grad), cpu_view(input), cpu_view(weight), IntArrayRef(bias_size),
                                                                       stride, padding, dilation, transposed, output_padding, groups, mask);
  return {as_npu(grad_input, device), as_npu(grad_weight, device), as_npu(grad_bias, device)};
}

TORCH_LIBRARY_IMPL(aten, PrivateUse1, m) {
  m.impl("empty.memory_format", &empty);
  m.impl("empty_strided", &empty_strided);
  m.impl("_efficientzerotensor", &zero_tensor);
  m.impl("as_strided", &as_strided);
  m.impl("view", &view);
  m.impl("_reshape_alias", &reshape_alias);
  m.impl("resize_", &resize_);
  m.impl("set_", &set_empty);
  m.impl("set_.source_Tensor", &set_tensor);
  m.impl("set_.source_Storage", &set_storage);
  m.impl("set_.source_Storage_storage_offset", &set_storage_offset);
  m.impl("_copy_from", &copy_from);
  m.impl("_copy_from_and_resize", &copy_from_and_resize);
  m.impl("_local_scalar_dense", &local_scalar_dense);
  m.impl("record_stream", &record_stream);
  m.impl("native_dropout", &native_dropout);
  m.impl("convolution_overrideable", &convolution);
  m.impl("convolution_backward_overrideable", &convolution_backward);
}

}  // namespace
}  // namespace npu_sim
