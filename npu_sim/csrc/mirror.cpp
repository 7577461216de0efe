// SPDX-License-Identifier: Apache-2.0
#include "mirror.h"

#include <ATen/core/LegacyTypeDispatch.h>

#include <atomic>
#include <numeric>

namespace npu_sim {
namespace {

using at::Tensor;
using Tensors = ProcessGroupMirror::Tensors;
using WorkPtr = ProcessGroupMirror::WorkPtr;

std::atomic<bool> world_of_one{false};

class MirrorWork final : public c10d::Work {
 public:
  MirrorWork(Tensors outputs, int source) : outputs_(std::move(outputs)), source_(source) { finish(); }
  int sourceRank() const override { return source_; }
  std::vector<Tensor> result() override { return outputs_; }
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override {
    auto future = c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()));
    future->markCompleted(c10::IValue(outputs_));
    return future;
  }

 private:
  Tensors outputs_;
  int source_;
};

// Own data in a tensor of any size: as it is where the sizes agree, cut where the target is smaller, repeated where it is larger.
void deliver(const Tensor& target, const Tensor& own) {
  TORCH_CHECK(target.scalar_type() == own.scalar_type(), "mirror: input and output must have one dtype, got ", own.dtype(), " and ", target.dtype());
  const int64_t wanted = target.numel(), held = own.numel();
  if (!wanted) return;
  if (!held) {
    target.zero_();
    return;
  }
  if (wanted == held) {
    target.copy_(own.reshape(target.sizes()));
    return;
  }
  const Tensor flat = target.view(-1), source = own.reshape(-1);
  const int64_t whole = wanted / held * held;
  if (whole) flat.narrow(0, 0, whole).view({-1, held}).copy_(source.expand({whole / held, held}));
  if (whole < wanted) flat.narrow(0, whole, wanted - whole).copy_(source.narrow(0, 0, wanted - whole));
}

void zero_unless_floating(const Tensor& t) {
  if (!t.is_floating_point() && !t.is_complex()) t.zero_();
}

std::vector<int64_t> rows_per_rank(const Tensor& t, const std::vector<int64_t>& splits, int ranks) {
  const int64_t rows = t.size(0);
  if (splits.empty()) {
    TORCH_CHECK(rows % ranks == 0, "mirror alltoall: ", rows, " rows are not divided by ", ranks, " ranks");
    return std::vector<int64_t>(ranks, rows / ranks);
  }
  TORCH_CHECK(static_cast<int>(splits.size()) == ranks && std::accumulate(splits.begin(), splits.end(), int64_t{0}) == rows,
              "mirror alltoall: splits must be ", ranks, " numbers that add up to ", rows, " rows");
  return splits;
}

}  // namespace

void make_world_of_one() { world_of_one = true; }
bool in_world_of_one() { return world_of_one; }

template <typename F>
WorkPtr ProcessGroupMirror::at_once(Tensors outputs, F&& body, int source) {
  sequence_++;
  for (const auto& t : outputs) TORCH_CHECK(t.device().is_cpu(), "mirror: expected CPU tensors, got one on ", t.device());
  {
    // as with every backend, autograd knows nothing of what a collective writes
    at::AutoDispatchBelowADInplaceOrView guard;
    body();
  }
  return c10::make_intrusive<MirrorWork>(std::move(outputs), source);
}

void ProcessGroupMirror::check_peers(size_t found, const char* collective) const {
  TORCH_CHECK(static_cast<int>(found) == size_, "mirror ", collective, ": expected a list of ", size_, " tensors, got ", found);
}

void ProcessGroupMirror::reduce_mirrored(const Tensor& t, const c10d::ReduceOp& op) const {
  switch (op.op_) {
    case c10d::ReduceOp::SUM:
      if (t.scalar_type() != at::kBool) t.mul_(size_);
      return;
    case c10d::ReduceOp::PRODUCT: {
      Tensor power = t.clone();
      for (int left = size_ - 1; left; left >>= 1) {
        if (left & 1) t.mul_(power);
        if (left > 1) power.mul_(power);
      }
      return;
    }
    case c10d::ReduceOp::BXOR:
      if (size_ % 2 == 0) t.zero_();
      return;
    case c10d::ReduceOp::MIN:
    case c10d::ReduceOp::MAX:
    case c10d::ReduceOp::BAND:
    case c10d::ReduceOp::BOR:
      return;
    default:
      TORCH_CHECK_NOT_IMPLEMENTED(false, "mirror: gloo, which this group stands in for, reduces neither by AVG nor by PREMUL_SUM");
  }
}

WorkPtr ProcessGroupMirror::broadcast(Tensors& tensors, const c10d::BroadcastOptions&) {
  return at_once(tensors, [] {});
}

WorkPtr ProcessGroupMirror::allreduce(Tensors& tensors, const c10d::AllreduceOptions& opts) {
  return at_once(tensors, [&] {
    for (const auto& t : tensors) reduce_mirrored(t, opts.reduceOp);
  });
}

WorkPtr ProcessGroupMirror::allreduce_coalesced(Tensors& tensors, const c10d::AllreduceCoalescedOptions& opts) { return allreduce(tensors, opts); }

WorkPtr ProcessGroupMirror::reduce(Tensors& tensors, const c10d::ReduceOptions& opts) {
  return at_once(tensors, [&] {
    if (rank_ != opts.rootRank) return;
    for (const auto& t : tensors) reduce_mirrored(t, opts.reduceOp);
  });
}

WorkPtr ProcessGroupMirror::allgather(TensorLists& outputs, Tensors& inputs, const c10d::AllgatherOptions&) {
  Tensors written;
  for (const auto& list : outputs) {
    check_peers(list.size(), "allgather");
    written.insert(written.end(), list.begin(), list.end());
  }
  return at_once(std::move(written), [&] {
    for (size_t i = 0; i < outputs.size(); i++)
      for (const auto& t : outputs[i]) deliver(t, inputs.at(i));
  });
}

WorkPtr ProcessGroupMirror::_allgather_base(Tensor& output, Tensor& input, const c10d::AllgatherOptions&) {
  TORCH_CHECK(output.numel() == input.numel() * size_, "mirror allgather: the output holds ", output.numel(), " elements, expected ", size_,
              " times the input's ", input.numel());
  return at_once({output}, [&] { deliver(output, input); });
}

// torch hands over a list per rank here, of one output for each input.
WorkPtr ProcessGroupMirror::allgather_coalesced(TensorLists& outputs, Tensors& inputs, const c10d::AllgatherOptions&) {
  check_peers(outputs.size(), "allgather_coalesced");
  Tensors written;
  for (const auto& list : outputs) written.insert(written.end(), list.begin(), list.end());
  return at_once(std::move(written), [&] {
    for (const auto& list : outputs)
      for (size_t i = 0; i < inputs.size(); i++) deliver(list.at(i), inputs[i]);
  });
}

WorkPtr ProcessGroupMirror::allgather_into_tensor_coalesced(Tensors& outputs, Tensors& inputs, const c10d::AllgatherOptions&) {
  return at_once(outputs, [&] {
    for (size_t i = 0; i < outputs.size(); i++) deliver(outputs[i], inputs.at(i));
  });
}

WorkPtr ProcessGroupMirror::gather(TensorLists& outputs, Tensors& inputs, const c10d::GatherOptions& opts) {
  Tensors written;
  if (rank_ == opts.rootRank) {
    written = outputs.at(0);
    check_peers(written.size(), "gather");
  }
  return at_once(written, [&] {
    for (const auto& t : written) deliver(t, inputs.at(0));
  });
}

WorkPtr ProcessGroupMirror::scatter(Tensors& outputs, TensorLists& inputs, const c10d::ScatterOptions& opts) {
  return at_once(outputs, [&] {
    if (rank_ != opts.rootRank) {
      zero_unless_floating(outputs.at(0));
      return;
    }
    check_peers(inputs.at(0).size(), "scatter");
    deliver(outputs.at(0), inputs[0][rank_]);
  });
}

WorkPtr ProcessGroupMirror::reduce_scatter(Tensors& outputs, TensorLists& inputs, const c10d::ReduceScatterOptions& opts) {
  return at_once(outputs, [&] {
    for (size_t i = 0; i < outputs.size(); i++) {
      check_peers(inputs.at(i).size(), "reduce_scatter");
      deliver(outputs[i], inputs[i][rank_]);
      reduce_mirrored(outputs[i], opts.reduceOp);
    }
  });
}

WorkPtr ProcessGroupMirror::_reduce_scatter_base(Tensor& output, Tensor& input, const c10d::ReduceScatterOptions& opts) {
  TORCH_CHECK(input.numel() == output.numel() * size_, "mirror reduce_scatter: the input holds ", input.numel(), " elements, expected ", size_,
              " times the output's ", output.numel());
  return at_once({output}, [&] {
    deliver(output, input.view(-1).narrow(0, rank_ * output.numel(), output.numel()));
    reduce_mirrored(output, opts.reduceOp);
  });
}

WorkPtr ProcessGroupMirror::reduce_scatter_tensor_coalesced(Tensors& outputs, Tensors& inputs, const c10d::ReduceScatterOptions& opts) {
  for (size_t i = 0; i < outputs.size(); i++) _reduce_scatter_base(outputs[i], inputs.at(i), opts);
  return at_once(outputs, [] {});
}

WorkPtr ProcessGroupMirror::alltoall_base(Tensor& output, Tensor& input, std::vector<int64_t>& output_splits, std::vector<int64_t>& input_splits,
                                          const c10d::AllToAllOptions&) {
  const auto send = rows_per_rank(input, input_splits, size_), receive = rows_per_rank(output, output_splits, size_);
  const int64_t before = std::accumulate(send.begin(), send.begin() + rank_, int64_t{0});
  return at_once({output}, [&] {
    const Tensor own = input.narrow(0, before, send[rank_]);
    if (receive == std::vector<int64_t>(size_, send[rank_])) {  // over again, in one operator
      deliver(output, own);
      return;
    }
    int64_t offset = 0;
    for (const int64_t rows : receive) {
      deliver(output.narrow(0, offset, rows), own);
      offset += rows;
    }
  });
}

WorkPtr ProcessGroupMirror::alltoall(Tensors& outputs, Tensors& inputs, const c10d::AllToAllOptions&) {
  check_peers(outputs.size(), "alltoall");
  check_peers(inputs.size(), "alltoall");
  return at_once(outputs, [&] {
    for (const auto& t : outputs) deliver(t, inputs[rank_]);
  });
}

WorkPtr ProcessGroupMirror::send(Tensors& tensors, int, int) {
  return at_once({}, [&] {
    std::lock_guard<std::mutex> guard(sent_mutex_);
    for (const auto& t : tensors)
      if (!t.is_floating_point() && !t.is_complex()) sent_.insert_or_assign({t.scalar_type(), t.numel()}, t.clone());
  });
}

WorkPtr ProcessGroupMirror::recv(Tensors& tensors, int source, int) {
  return at_once(
      tensors,
      [&] {
        std::lock_guard<std::mutex> guard(sent_mutex_);
        for (const auto& t : tensors) {
          const auto found = sent_.find({t.scalar_type(), t.numel()});
          if (found == sent_.end())
            zero_unless_floating(t);
          else
            deliver(t, found->second);
        }
      },
      source);
}

WorkPtr ProcessGroupMirror::recvAnysource(Tensors& tensors, int tag) { return recv(tensors, (rank_ + 1) % size_, tag); }

WorkPtr ProcessGroupMirror::barrier(const c10d::BarrierOptions&) {
  return at_once({}, [] {});
}

}  // namespace npu_sim
