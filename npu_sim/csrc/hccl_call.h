// SPDX-License-Identifier: Apache-2.0
// One collective under way: what it checks of its tensors, the host's view of them, the works below, and what is left to do then.
#pragma once

#include "counters.h"
#include "refusals.h"

#include <ATen/core/Tensor.h>
#include <torch/csrc/distributed/c10d/Store.hpp>
#include <torch/csrc/distributed/c10d/Types.hpp>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include <functional>
#include <mutex>
#include <string_view>
#include <vector>

namespace npu_sim {

using HcclStep = std::function<void()>;

// The device that a group works on: that of the first tensor it sees, and no other rank's. HCCL gives each rank one device.
class HcclDevice {
 public:
  HcclDevice(c10::intrusive_ptr<c10d::Store> store, int rank) : store_(std::move(store)), rank_(rank) {}
  void check(const at::Tensor& t, const char* collective);

 private:
  c10::intrusive_ptr<c10d::Store> store_;  // shared by the ranks of the group
  int rank_;
  std::mutex mutex_;
  int device_ = -1;
};

class HcclCall {
 public:
  HcclCall(const char* name, HcclDevice& device, const c10d::ReduceOp* reduction = nullptr);

  const char* name;
  std::vector<c10::intrusive_ptr<c10d::Work>> parts;
  std::vector<HcclStep> then;  // once all parts are through, in this order
  std::vector<at::Tensor> outputs;
  int64_t sent = 0, received = 0;  // bytes

  // Contiguous CPU tensors over, or in place of, the device's bytes. What is read counts as this rank's traffic. As in HCCL, the
  // tensor must be contiguous; `piece` is one of a list that torch_npu copies from or into itself, and may have any strides.
  at::Tensor input(const at::Tensor& t, bool piece = false);
  at::Tensor output(const at::Tensor& t, bool piece = false);
  at::Tensor in_out(const at::Tensor& t, bool sent = true, bool received = true);

  // What gloo can reduce in place of such a tensor: int16 and bool in 32 bits, complex numbers as pairs.
  at::Tensor addend(const at::Tensor& cpu) const;
  // The same for a tensor that receives the reduction, which ends up in it.
  at::Tensor reduced(const at::Tensor& cpu);
  c10d::ReduceOp gloo_reduction(const at::Tensor& t) const;
  void average(const at::Tensor& t, int ranks);  // t is gloo's buffer; nothing unless the reduction is AVG

 private:
  at::Tensor checked(const at::Tensor& t, bool piece) const;
  at::Tensor into(const at::Tensor& t, bool piece, bool keep_contents);

  Counter& counter_;
  const Refusals& refusals_;
  HcclDevice& device_;
  const c10d::ReduceOp* reduction_;
};

// One or more gloo works and what remains to be done on this rank once they are through.
class HcclWork final : public c10d::Work {
 public:
  HcclWork(std::vector<c10::intrusive_ptr<c10d::Work>> parts, std::vector<HcclStep> then, std::vector<at::Tensor> outputs)
      : parts_(std::move(parts)), then_(std::move(then)), outputs_(std::move(outputs)) {}

  bool isCompleted() override;
  bool isSuccess() const override;
  bool wait(std::chrono::milliseconds timeout) override;
  void synchronize() override { wait(kNoTimeout); }
  void blockCurrentStream() override { wait(kNoTimeout); }
  int sourceRank() const override { return parts_.at(0)->sourceRank(); }
  std::vector<at::Tensor> result() override { return outputs_; }
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override;  // complete when handed out

 private:
  std::vector<c10::intrusive_ptr<c10d::Work>> parts_;
  std::vector<HcclStep> then_;
  std::vector<at::Tensor> outputs_;
  std::once_flag once_;
};

}  // namespace npu_sim
