// SPDX-License-Identifier: Apache-2.0
// A world of one: a c10d backend for CPU tensors in which this rank is real and every peer holds what this rank holds.
#pragma once

#include <torch/csrc/distributed/c10d/Backend.hpp>

#include <map>
#include <mutex>
#include <utility>
#include <vector>

namespace npu_sim {

// From now on all hccl groups of this process stand on mirrors.
void make_world_of_one();
bool in_world_of_one();

// Collectives are through when they return. They go through torch's operators only, so that tensors without contents pass. Sizes
// that the caller names rule: where they differ from those of the mirrored data, that is cut, or repeated, to fill them. A tensor
// that only a peer could fill stays as it is if it is floating, and is zeroed otherwise: what steers must not be garbage.
class ProcessGroupMirror final : public c10d::Backend {
 public:
  using Tensor = at::Tensor;
  using Tensors = std::vector<at::Tensor>;
  using TensorLists = std::vector<std::vector<at::Tensor>>;
  using WorkPtr = c10::intrusive_ptr<c10d::Work>;

  ProcessGroupMirror(int rank, int size) : Backend(rank, size), options_(c10::make_intrusive<Options>("mirror")) {}

  const std::string getBackendName() const override { return options_->backend; }
  c10::intrusive_ptr<Options> getBackendOptions() override { return options_; }

  WorkPtr broadcast(Tensors& tensors, const c10d::BroadcastOptions& opts) override;
  WorkPtr allreduce(Tensors& tensors, const c10d::AllreduceOptions& opts) override;
  WorkPtr allreduce_coalesced(Tensors& tensors, const c10d::AllreduceCoalescedOptions& opts) override;
  WorkPtr reduce(Tensors& tensors, const c10d::ReduceOptions& opts) override;
  WorkPtr allgather(TensorLists& outputs, Tensors& inputs, const c10d::AllgatherOptions& opts) override;
  WorkPtr _allgather_base(Tensor& output, Tensor& input, const c10d::AllgatherOptions& opts) override;
  WorkPtr allgather_coalesced(TensorLists& outputs, Tensors& inputs, const c10d::AllgatherOptions& opts) override;
  WorkPtr allgather_into_tensor_coalesced(Tensors& outputs, Tensors& inputs, const c10d::AllgatherOptions& opts) override;
  WorkPtr gather(TensorLists& outputs, Tensors& inputs, const c10d::GatherOptions& opts) override;
  WorkPtr scatter(Tensors& outputs, TensorLists& inputs, const c10d::ScatterOptions& opts) override;
  WorkPtr reduce_scatter(Tensors& outputs, TensorLists& inputs, const c10d::ReduceScatterOptions& opts) override;
  WorkPtr _reduce_scatter_base(Tensor& output, Tensor& input, const c10d::ReduceScatterOptions& opts) override;
  WorkPtr reduce_scatter_tensor_coalesced(Tensors& outputs, Tensors& inputs, const c10d::ReduceScatterOptions& opts) override;
  // What this rank would send to its own index comes from every peer.
  WorkPtr alltoall_base(Tensor& output, Tensor& input, std::vector<int64_t>& output_splits, std::vector<int64_t>& input_splits,
                        const c10d::AllToAllOptions& opts) override;
  WorkPtr alltoall(Tensors& outputs, Tensors& inputs, const c10d::AllToAllOptions& opts) override;
  WorkPtr send(Tensors& tensors, int destination, int tag) override;
  // Integers: what this rank last sent of that dtype and size, to anybody.
  WorkPtr recv(Tensors& tensors, int source, int tag) override;
  WorkPtr recvAnysource(Tensors& tensors, int tag) override;
  WorkPtr barrier(const c10d::BarrierOptions& opts) override;
  void monitoredBarrier(const c10d::BarrierOptions&, bool) override {}

  void setSequenceNumberForGroup() override {}
  uint64_t getSequenceNumberForGroup() override { return sequence_; }
  void setTimeout(std::chrono::milliseconds timeout) override { options_->timeout = timeout; }
  c10d::ErrorType getError() override { return c10d::ErrorType::SUCCESS; }
  void abort() override {}
  void shutdown() override {}

 private:
  template <typename F>
  WorkPtr at_once(Tensors outputs, F&& body, int source = -1);
  void check_peers(size_t found, const char* collective) const;
  void reduce_mirrored(const Tensor& t, const c10d::ReduceOp& op) const;

  c10::intrusive_ptr<Options> options_;
  uint64_t sequence_ = 0;
  std::mutex sent_mutex_;
  std::map<std::pair<c10::ScalarType, int64_t>, Tensor> sent_;  // the last integers, by dtype and elements
};

}  // namespace npu_sim
