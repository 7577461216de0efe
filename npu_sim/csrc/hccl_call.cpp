// SPDX-License-Identifier: Apache-2.0
#include "hccl_call.h"

#include "memory.h"

#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/view_as_real.h>
#include <torch/csrc/autograd/grad_mode.h>

#include <chrono>
#include <thread>

namespace npu_sim {
namespace {

using at::Tensor;

// gloo's thread says that a work is through before it lets go of its tensors; who is told must find their bytes given back.
void until_let_go(const c10::intrusive_ptr<c10d::Work>& work) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::milliseconds(200);
  while (work.use_count() > 1 && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
}

std::string_view name_of(const c10d::ReduceOp* op) {
  constexpr std::string_view names[] = {"SUM", "AVG", "PRODUCT", "MIN", "MAX", "BAND", "BOR", "BXOR", "PREMUL_SUM"};
  if (!op) return "";
  return op->op_ < std::size(names) ? names[op->op_] : "unknown";
}

bool in_32_bits(c10::ScalarType dtype) { return dtype == at::kShort || dtype == at::kBool; }

}  // namespace

// ---------------------------------------------------------------- the device of a group

void HcclDevice::check(const Tensor& t, const char* collective) {
  std::lock_guard<std::mutex> guard(mutex_);
  const int device = t.get_device();
  if (device_ == device) return;
  TORCH_CHECK(device_ < 0, "hccl ", collective, ": this group works on npu:", device_, ", got a tensor on npu:", device,
              " (HCCL gives each rank of a group one device)");
  const std::string key = "npu_sim/device/" + std::to_string(config().physical[device]);
  TORCH_CHECK(!store_ || store_->add(key, 1) == 1, "hccl ", collective, ": rank ", rank_, " brings a tensor on npu:", device,
              ", which is the device of another rank of this group");
  device_ = device;
}

// ---------------------------------------------------------------- one collective

HcclCall::HcclCall(const char* name, HcclDevice& device, const c10d::ReduceOp* reduction)
    : name(name), counter_(collective_counter(name)), refusals_(refusals_of_collective(name)), device_(device), reduction_(reduction) {
  counter_.calls.fetch_add(1, std::memory_order_relaxed);
}

Tensor HcclCall::checked(const Tensor& t, bool piece) const {
  TORCH_CHECK(t.device().type() == kNPU, "hccl ", name, ": expected npu tensors, got one on ", t.device(),
              " (use a gloo group for CPU tensors)");
  device_.check(t, name);
  refusals_.check(t.scalar_type(), name_of(reduction_));
  TORCH_CHECK(piece || t.is_contiguous(t.suggest_memory_format()), "hccl ", name, ": expected contiguous tensors, got sizes ", t.sizes(),
              " with strides ", t.strides());
  return as_cpu(t);
}

Tensor HcclCall::input(const Tensor& t, bool piece) {
  sent += static_cast<int64_t>(t.nbytes());
  counter_.bytes.fetch_add(static_cast<int64_t>(t.nbytes()), std::memory_order_relaxed);
  return checked(t, piece).resolve_conj().resolve_neg().contiguous();
}

Tensor HcclCall::into(const Tensor& t, bool piece, bool keep_contents) {
  outputs.push_back(t);
  const Tensor cpu = checked(t, piece);
  if (cpu.is_contiguous() && !cpu.is_conj() && !cpu.is_neg()) return cpu;
  const Tensor buffer = at::empty(cpu.sizes(), cpu.options());
  if (keep_contents) buffer.copy_(cpu);
  then.emplace_back([cpu, buffer] { cpu.copy_(buffer); });
  return buffer;
}

Tensor HcclCall::output(const Tensor& t, bool piece) {
  received += static_cast<int64_t>(t.nbytes());
  return into(t, piece, false);
}

Tensor HcclCall::in_out(const Tensor& t, bool is_sent, bool is_received) {
  if (is_sent) sent += static_cast<int64_t>(t.nbytes());
  if (is_received) received += static_cast<int64_t>(t.nbytes());
  counter_.bytes.fetch_add(static_cast<int64_t>(t.nbytes()), std::memory_order_relaxed);
  return into(t, false, true);
}

Tensor HcclCall::addend(const Tensor& cpu) const {
  const auto dtype = cpu.scalar_type();
  const auto op = reduction_->op_;
  const bool sums = op == c10d::ReduceOp::SUM || op == c10d::ReduceOp::AVG;
  TORCH_CHECK(!isFloat8Type(dtype) && !isBarebonesUnsignedType(dtype) && (!cpu.is_complex() || sums), "hccl ", name, ": ", dtype_name(dtype),
              " is not supported in reductions by ", name_of(reduction_));
  if (in_32_bits(dtype)) return cpu.to(at::kInt);
  return cpu.is_complex() ? at::view_as_real(cpu) : cpu;
}

Tensor HcclCall::reduced(const Tensor& cpu) {
  const Tensor buffer = addend(cpu);
  if (in_32_bits(cpu.scalar_type())) then.insert(then.begin(), [cpu, buffer] { cpu.copy_(buffer); });
  return buffer;
}

c10d::ReduceOp HcclCall::gloo_reduction(const Tensor& t) const {
  TORCH_CHECK_NOT_IMPLEMENTED(reduction_->op_ != c10d::ReduceOp::PREMUL_SUM, "hccl ", name, ": ReduceOp.PREMUL_SUM is not simulated");
  if (reduction_->op_ != c10d::ReduceOp::AVG) return *reduction_;
  TORCH_CHECK(t.is_floating_point() || t.is_complex(), "hccl ", name, ": ReduceOp.AVG needs a floating dtype, got ", t.dtype());
  return c10d::ReduceOp(c10d::ReduceOp::SUM);
}

void HcclCall::average(const Tensor& t, int ranks) {
  if (reduction_->op_ == c10d::ReduceOp::AVG) then.insert(then.begin(), [t, ranks] { Tensor(t).div_(ranks); });
}

// ---------------------------------------------------------------- its work

bool HcclWork::isCompleted() {
  for (auto& part : parts_)
    if (!part->isCompleted()) return false;
  return true;
}

bool HcclWork::isSuccess() const {
  for (auto& part : parts_)
    if (!part->isSuccess()) return false;
  return true;
}

bool HcclWork::wait(std::chrono::milliseconds timeout) {
  for (auto& part : parts_) part->wait(timeout);
  for (auto& part : parts_)
    if (!dynamic_cast<HcclWork*>(part.get())) until_let_go(part);
  std::call_once(once_, [this] {
    torch::autograd::AutoGradMode no_grad(false);
    for (auto& step : then_) step();
  });
  return true;
}

c10::intrusive_ptr<c10::ivalue::Future> HcclWork::getFuture() {
  wait(kNoTimeout);
  auto future = c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()));
  future->markCompleted(c10::IValue(outputs_));
  return future;
}

}  // namespace npu_sim
