// SPDX-License-Identifier: Apache-2.0
// "hccl": a c10d backend that hands the bytes of npu tensors to gloo, or to the mirror of a world of one.
#pragma once

#include "hccl_call.h"

#include <torch/csrc/distributed/c10d/Backend.hpp>

#include <map>
#include <string>

namespace npu_sim {

struct HcclOptions : c10d::Backend::Options {
  explicit HcclOptions(bool high_priority = false) : Options("hccl"), is_high_priority_stream(high_priority) {}
  bool is_high_priority_stream;
};

// What HCCL does and gloo does not: uneven lists in all_gather, all_to_all and reduce_scatter, ReduceOp.AVG, every dtype in
// collectives that only move data. Work is complete for the caller after wait(); outputs that gloo could not write in place
// are filled then.
class ProcessGroupHCCL final : public c10d::Backend {
 public:
  using Tensors = std::vector<at::Tensor>;
  using TensorLists = std::vector<std::vector<at::Tensor>>;
  using WorkPtr = c10::intrusive_ptr<c10d::Work>;

  // Args: `below` moves the bytes, as CPU tensors; `ranks` are those of the whole world, empty if unknown.
  ProcessGroupHCCL(c10::intrusive_ptr<Backend> below, c10::intrusive_ptr<c10d::Store> store, int rank, int size,
                   c10::intrusive_ptr<HcclOptions> options, const std::vector<int64_t>& ranks);
  ~ProcessGroupHCCL() override;

  const std::string getBackendName() const override { return "hccl"; }
  c10::intrusive_ptr<Options> getBackendOptions() override { return options_; }
  // The name under which operators (MC2, fused all-to-all) find this group; the same on every call.
  const std::string& comm_name() const { return comm_name_; }
  static c10::intrusive_ptr<ProcessGroupHCCL> by_comm_name(const std::string& name);
  // For fused operators, which move bytes on their own.
  const c10::intrusive_ptr<Backend>& below() const { return below_; }
  GroupTraffic& traffic() { return traffic_; }

  bool supportsCoalescing() const override { return true; }
  void startCoalescing() override;
  WorkPtr endCoalescing() override;

  WorkPtr broadcast(Tensors& tensors, const c10d::BroadcastOptions& opts) override;
  WorkPtr allreduce(Tensors& tensors, const c10d::AllreduceOptions& opts) override;
  WorkPtr allreduce_coalesced(Tensors& tensors, const c10d::AllreduceCoalescedOptions& opts) override;
  WorkPtr reduce(Tensors& tensors, const c10d::ReduceOptions& opts) override;
  WorkPtr allgather(TensorLists& outputs, Tensors& inputs, const c10d::AllgatherOptions& opts) override;
  WorkPtr _allgather_base(at::Tensor& output, at::Tensor& input, const c10d::AllgatherOptions& opts) override;
  WorkPtr allgather_into_tensor_coalesced(Tensors& outputs, Tensors& inputs, const c10d::AllgatherOptions& opts) override;
  WorkPtr gather(TensorLists& outputs, Tensors& inputs, const c10d::GatherOptions& opts) override;
  WorkPtr scatter(Tensors& outputs, TensorLists& inputs, const c10d::ScatterOptions& opts) override;
  WorkPtr reduce_scatter(Tensors& outputs, TensorLists& inputs, const c10d::ReduceScatterOptions& opts) override;
  WorkPtr _reduce_scatter_base(at::Tensor& output, at::Tensor& input, const c10d::ReduceScatterOptions& opts) override;
  WorkPtr reduce_scatter_tensor_coalesced(Tensors& outputs, Tensors& inputs, const c10d::ReduceScatterOptions& opts) override;
  WorkPtr alltoall_base(at::Tensor& output, at::Tensor& input, std::vector<int64_t>& output_splits, std::vector<int64_t>& input_splits,
                        const c10d::AllToAllOptions& opts) override;
  WorkPtr alltoall(Tensors& outputs, Tensors& inputs, const c10d::AllToAllOptions& opts) override;
  WorkPtr send(Tensors& tensors, int destination, int tag) override;
  WorkPtr recv(Tensors& tensors, int source, int tag) override;
  WorkPtr recvAnysource(Tensors& tensors, int tag) override;
  WorkPtr barrier(const c10d::BarrierOptions& opts) override;

  void setSequenceNumberForGroup() override {}
  uint64_t getSequenceNumberForGroup() override { return sequence_; }
  void setTimeout(std::chrono::milliseconds timeout) override { options_->timeout = timeout; }
  c10d::ErrorType getError() override { return c10d::ErrorType::SUCCESS; }
  void abort() override { below_->abort(); }
  void shutdown() override { below_->shutdown(); }

 private:
  WorkPtr finish(HcclCall&& call);
  template <typename F>
  WorkPtr together(F&& body);
  at::Tensor moved(const at::Tensor& t) const;

  c10::intrusive_ptr<Backend> below_;
  bool mirrored_;  // in a world of one
  HcclDevice device_;
  c10::intrusive_ptr<HcclOptions> options_;
  std::string comm_name_;
  uint64_t sequence_ = 0;
  GroupTraffic& traffic_;
  bool coalescing_ = false;
  std::vector<WorkPtr> coalesced_;
};

}  // namespace npu_sim
