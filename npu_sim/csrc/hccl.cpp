// SPDX-License-Identifier: Apache-2.0
// Over 400 lines, because it is one class with one short method for each collective of torch's interface.
#include "hccl.h"

#include "counters.h"
#include "memory.h"
#include "refusals.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <torch/csrc/autograd/grad_mode.h>
#include <torch/csrc/distributed/c10d/Work.hpp>

#include <chrono>
#include <functional>
#include <mutex>
#include <numeric>
#include <thread>
#include <utility>

namespace npu_sim {
namespace {

using at::Tensor;
using Tensors = ProcessGroupHCCL::Tensors;
using WorkPtr = ProcessGroupHCCL::WorkPtr;

std::mutex names_mutex;
std::map<std::string, c10::weak_intrusive_ptr<ProcessGroupHCCL>>& names() {
  static auto* m = new std::map<std::string, c10::weak_intrusive_ptr<ProcessGroupHCCL>>();
  return *m;
}

// gloo's thread says that a work is through before it lets go of its tensors; who is told must find their bytes given back.
void until_let_go(const WorkPtr& work) {
  const auto limit = std::chrono::steady_clock::now() + std::chrono::milliseconds(200);
  while (work.use_count() > 1 && std::chrono::steady_clock::now() < limit) std::this_thread::yield();
}

// One or more gloo works and what remains to be done on this rank once they are through.
class HcclWork final : public c10d::Work {
 public:
  HcclWork(std::vector<WorkPtr> parts, std::vector<std::function<void()>> then, Tensors outputs)
      : parts_(std::move(parts)), then_(std::move(then)), outputs_(std::move(outputs)) {}

  bool isCompleted() override {
    for (auto& part : parts_)
      if (!part->isCompleted()) return false;
    return true;
  }
  bool isSuccess() const override {
    for (auto& part : parts_)
      if (!part->isSuccess()) return false;
    return true;
  }
  bool wait(std::chrono::milliseconds timeout) override {
    for (auto& part : parts_) part->wait(timeout);
    for (auto& part : parts_)
      if (!dynamic_cast<HcclWork*>(part.get())) until_let_go(part);
    std::call_once(once_, [this] {
      torch::autograd::AutoGradMode no_grad(false);
      for (auto& step : then_) step();
    });
    return true;
  }
  void synchronize() override { wait(kNoTimeout); }
  void blockCurrentStream() override { wait(kNoTimeout); }
  int sourceRank() const override { return parts_.at(0)->sourceRank(); }
  std::vector<Tensor> result() override { return outputs_; }
  c10::intrusive_ptr<c10::ivalue::Future> getFuture() override {  // complete when handed out
    wait(kNoTimeout);
    auto future = c10::make_intrusive<c10::ivalue::Future>(c10::ListType::create(c10::TensorType::get()));
    future->markCompleted(c10::IValue(outputs_));
    return future;
  }

 private:
  std::vector<WorkPtr> parts_;
  std::vector<std::function<void()>> then_;
  Tensors outputs_;
  std::once_flag once_;
};

// Contiguous tensors as flat bytes, so that gloo moves every dtype.
Tensor bytes_of(const Tensor& t) { return t.view(-1).view(at::kByte); }

bool all_equal_numel(const Tensors& list) {
  for (const auto& t : list)
    if (t.numel() != list.front().numel()) return false;
  return true;
}

c10d::ReduceOp gloo_op(const c10d::ReduceOp& op, const Tensor& t, const char* name) {
  TORCH_CHECK_NOT_IMPLEMENTED(op.op_ != c10d::ReduceOp::PREMUL_SUM, "hccl ", name, ": ReduceOp.PREMUL_SUM is not simulated");
  if (op.op_ != c10d::ReduceOp::AVG) return op;
  TORCH_CHECK(t.is_floating_point() || t.is_complex(), "hccl ", name, ": ReduceOp.AVG needs a floating dtype, got ", t.dtype());
  return c10d::ReduceOp(c10d::ReduceOp::SUM);
}

std::string_view name_of(const c10d::ReduceOp& op) {
  constexpr std::string_view names[] = {"SUM", "AVG", "PRODUCT", "MIN", "MAX", "BAND", "BOR", "BXOR", "PREMUL_SUM"};
  return op.op_ < std::size(names) ? names[op.op_] : "unknown";
}

// gloo knows neither complex numbers nor booleans and int16 in reductions.
Tensor reducible(const Tensor& t, const char* name) {
  const auto dtype = t.scalar_type();
  TORCH_CHECK(dtype != at::kBool && !isFloat8Type(dtype) && dtype != at::kShort, "hccl ", name, ": dtype ", dtype, " is not supported in reductions");
  return t.is_complex() ? at::view_as_real(t) : t;
}

}  // namespace

// One collective under way: its CPU views, gloo works and last steps.
class ProcessGroupHCCL::Call {
 public:
  Call(ProcessGroupHCCL& group, const char* name, const c10d::ReduceOp* reduction = nullptr)
      : name(name), counter_(collective_counter(name)), refusals_(refusals_of_collective(name)),
        reduction_(reduction ? name_of(*reduction) : "") {
    group.sequence_++;
    counter_.calls.fetch_add(1, std::memory_order_relaxed);
  }

  const char* name;
  std::vector<WorkPtr> parts;
  std::vector<std::function<void()>> then;
  Tensors outputs;

  // The tensor's bytes, contiguous; counted as traffic of this rank.
  Tensor input(const Tensor& t) {
    counter_.bytes.fetch_add(static_cast<int64_t>(t.nbytes()), std::memory_order_relaxed);
    return checked(t).contiguous();
  }
  // A contiguous tensor that ends up in t.
  Tensor output(const Tensor& t, bool keep_contents = false) {
    outputs.push_back(t);
    Tensor cpu = checked(t);
    if (cpu.is_contiguous()) return cpu;
    Tensor buffer = keep_contents ? cpu.contiguous() : at::empty(cpu.sizes(), cpu.options());
    then.emplace_back([cpu, buffer] { cpu.copy_(buffer); });
    return buffer;
  }
  Tensor in_out(const Tensor& t) {
    counter_.bytes.fetch_add(static_cast<int64_t>(t.nbytes()), std::memory_order_relaxed);
    return output(t, true);
  }
  void average(const Tensor& t, const c10d::ReduceOp& op, int size) {
    if (op.op_ == c10d::ReduceOp::AVG) then.insert(then.begin(), [t, size] { Tensor(t).div_(size); });
  }

 private:
  Tensor checked(const Tensor& t) const {
    TORCH_CHECK(t.device().type() == kNPU, "hccl ", name, ": expected npu tensors, got one on ", t.device(),
                " (use a gloo group for CPU tensors)");
    refusals_.check(t.scalar_type(), reduction_);
    return as_cpu(t);
  }
  Counter& counter_;
  const Refusals& refusals_;
  std::string_view reduction_;
};

ProcessGroupHCCL::ProcessGroupHCCL(c10::intrusive_ptr<Backend> gloo, int rank, int size, c10::intrusive_ptr<HcclOptions> options)
    : Backend(rank, size), gloo_(std::move(gloo)), options_(std::move(options)) {
  static std::atomic<int64_t> serial{0};
  comm_name_ = "sim_hccl_" + std::to_string(serial++);
}

ProcessGroupHCCL::~ProcessGroupHCCL() {
  std::lock_guard<std::mutex> guard(names_mutex);
  names().erase(comm_name_);
}

c10::intrusive_ptr<ProcessGroupHCCL> ProcessGroupHCCL::by_comm_name(const std::string& name) {
  std::lock_guard<std::mutex> guard(names_mutex);
  auto it = names().find(name);
  auto group = it == names().end() ? nullptr : it->second.lock();
  TORCH_CHECK(group, "no hccl group is named '", name, "'; names come from get_hccl_comm_name() of a group that still lives");
  return group;
}

void register_comm_name(const c10::intrusive_ptr<ProcessGroupHCCL>& group) {
  std::lock_guard<std::mutex> guard(names_mutex);
  names().insert_or_assign(group->comm_name(), c10::weak_intrusive_ptr<ProcessGroupHCCL>(group));
}

WorkPtr ProcessGroupHCCL::finish(Call&& call) {
  auto work = c10::make_intrusive<HcclWork>(std::move(call.parts), std::move(call.then), std::move(call.outputs));
  if (coalescing_) coalesced_.push_back(work);
  return work;
}

void ProcessGroupHCCL::startCoalescing() {
  coalescing_ = true;
  coalesced_.clear();
}

WorkPtr ProcessGroupHCCL::endCoalescing() {
  coalescing_ = false;
  return c10::make_intrusive<HcclWork>(std::exchange(coalesced_, {}), std::vector<std::function<void()>>{}, Tensors{});
}

template <typename F>
WorkPtr ProcessGroupHCCL::together(F&& body) {
  const bool nested = coalescing_;
  const size_t before = coalesced_.size();
  coalescing_ = true;
  try {
    body();
  } catch (...) {
    coalescing_ = nested;
    coalesced_.resize(before);
    throw;
  }
  coalescing_ = nested;
  std::vector<WorkPtr> works(coalesced_.begin() + static_cast<std::ptrdiff_t>(before), coalesced_.end());
  if (!nested) coalesced_.resize(before);
  return c10::make_intrusive<HcclWork>(std::move(works), std::vector<std::function<void()>>{}, Tensors{});
}

WorkPtr ProcessGroupHCCL::broadcast(Tensors& tensors, const c10d::BroadcastOptions& opts) {
  Call call(*this, "broadcast");
  for (auto& t : tensors) {
    Tensors one{bytes_of(call.in_out(t))};
    if (one[0].numel()) call.parts.push_back(gloo_->broadcast(one, opts));
  }
  return finish(std::move(call));
}

WorkPtr ProcessGroupHCCL::allreduce(Tensors& tensors, const c10d::AllreduceOptions& opts) {
  Call call(*this, "allreduce", &opts.reduceOp);
  for (auto& t : tensors) {
    Tensor buffer = reducible(call.in_out(t), call.name);
    auto gloo_opts = opts;
    gloo_opts.reduceOp = gloo_op(opts.reduceOp, t, call.name);
    call.average(buffer, opts.reduceOp, size_);
    Tensors one{buffer};
    if (buffer.numel()) call.parts.push_back(gloo_->allreduce(one, gloo_opts));
  }
  return finish(std::move(call));
}

WorkPtr ProcessGroupHCCL::allreduce_coalesced(Tensors& tensors, const c10d::AllreduceCoalescedOptions& opts) {
  return together([&] { allreduce(tensors, opts); });
}

WorkPtr ProcessGroupHCCL::reduce(Tensors& tensors, const c10d::ReduceOptions& opts) {
  Call call(*this, "reduce", &opts.reduceOp);
  for (auto& t : tensors) {
    Tensor target = reducible(call.in_out(t), call.name);
    // gloo uses the buffers of other ranks as scratch; theirs must stay as they are
    Tensor buffer = rank_ == opts.rootRank ? target : target.clone();
    auto gloo_opts = opts;
    gloo_opts.reduceOp = gloo_op(opts.reduceOp, t, call.name);
    if (rank_ == opts.rootRank) call.average(buffer, opts.reduceOp, size_);
    Tensors one{buffer};
    if (buffer.numel()) call.parts.push_back(gloo_->reduce(one, gloo_opts));
  }
  return finish(std::move(call));
}

WorkPtr ProcessGroupHCCL::allgather(TensorLists& outputs, Tensors& inputs, const c10d::AllgatherOptions& opts) {
  Call call(*this, "allgather");
  TORCH_CHECK(outputs.size() == inputs.size(), "hccl allgather: ", inputs.size(), " inputs, but ", outputs.size(), " output lists");
  for (size_t i = 0; i < inputs.size(); i++) {
    TORCH_CHECK(static_cast<int>(outputs[i].size()) == size_, "hccl allgather: expected ", size_, " outputs, got ", outputs[i].size());
    const Tensor own = call.input(inputs[i]);
    Tensors buffers;
    for (auto& t : outputs[i]) buffers.push_back(bytes_of(call.output(t)));
    const Tensor source = bytes_of(own);
    TORCH_CHECK(buffers[rank_].numel() == source.numel(), "hccl allgather: this rank gives ", source.numel(), " bytes, but its place in the output holds ",
                buffers[rank_].numel());
    if (all_equal_numel(buffers)) {
      TensorLists out{buffers};
      Tensors in{source};
      if (source.numel()) call.parts.push_back(gloo_->allgather(out, in, opts));
      continue;
    }
    buffers[rank_].copy_(source);
    for (int root = 0; root < size_; root++) {
      c10d::BroadcastOptions from;
      from.rootRank = root;
      from.timeout = opts.timeout;
      Tensors one{buffers[root]};
      if (buffers[root].numel()) call.parts.push_back(gloo_->broadcast(one, from));
    }
  }
  return finish(std::move(call));
}

WorkPtr ProcessGroupHCCL::_allgather_base(Tensor& output, Tensor& input, const c10d::AllgatherOptions& opts) {
  Call call(*this, "_allgather_base");
  Tensor in = bytes_of(call.input(input));
  Tensor out = bytes_of(call.output(output));
  TORCH_CHECK(out.numel() == in.numel() * size_, "hccl allgather: the output holds ", out.numel(), " bytes, expected ", size_, " times the input's ",
              in.numel());
  if (in.numel()) call.parts.push_back(gloo_->_allgather_base(out, in, opts));
  return finish(std::move(call));
}

WorkPtr ProcessGroupHCCL::allgather_into_tensor_coalesced(Tensors& outputs, Tensors& inputs, const c10d::AllgatherOptions& opts) {
  TORCH_CHECK(outputs.size() == inputs.size(), "hccl allgather: ", inputs.size(), " inputs, but ", outputs.size(), " outputs");
  return together([&] {
    for (size_t i = 0; i < inputs.size(); i++) _allgather_base(outputs[i], inputs[i], opts);
  });
}

WorkPtr ProcessGroupHCCL::gather(TensorLists& outputs, Tensors& inputs, const c10d::GatherOptions& opts) {
  Call call(*this, "gather");
  Tensors in{bytes_of(call.input(inputs.at(0)))};
  TensorLists out;
  if (rank_ == opts.rootRank) {
    out.emplace_back();
    for (auto& t : outputs.at(0)) {
      out[0].push_back(bytes_of(call.output(t)));
      TORCH_CHECK(out[0].back().numel() == in[0].numel(), "hccl gather: every rank must give ", in[0].numel(), " bytes, an output holds ",
                  out[0].back().numel());
    }
  }
  if (in[0].numel()) call.parts.push_back(gloo_->gather(out, in, opts));
  return finish(std::move(call));
}

WorkPtr ProcessGroupHCCL::scatter(Tensors& outputs, TensorLists& inputs, const c10d::ScatterOptions& opts) {
  Call call(*this, "scatter");
  Tensors out{bytes_of(call.output(outputs.at(0)))};
  TensorLists in;
  if (rank_ == opts.rootRank) {
    in.emplace_back();
    for (auto& t : inputs.at(0)) {
      in[0].push_back(bytes_of(call.input(t)));
      TORCH_CHECK(in[0].back().numel() == out[0].numel(), "hccl scatter: every rank must get ", out[0].numel(), " bytes, an input holds ",
                  in[0].back().numel());
    }
  }
  if (out[0].numel()) call.parts.push_back(gloo_->scatter(out, in, opts));
  return finish(std::move(call));
}

// Chunk r, summed over ranks, ends on rank r: one reduction per rank, on copies, since gloo overwrites what it reduces.
WorkPtr ProcessGroupHCCL::reduce_scatter(Tensors& outputs, TensorLists& inputs, const c10d::ReduceScatterOptions& opts) {
  Call call(*this, "reduce_scatter", &opts.reduceOp);
  const Tensors& chunks = inputs.at(0);
  TORCH_CHECK(static_cast<int>(chunks.size()) == size_, "hccl reduce_scatter: expected ", size_, " inputs, got ", chunks.size());
  const Tensor out = call.output(outputs.at(0));
  for (int root = 0; root < size_; root++) {
    const Tensor copy = reducible(call.input(chunks[root]), call.name).clone();
    c10d::ReduceOptions to;
    to.reduceOp = gloo_op(opts.reduceOp, chunks[root], call.name);
    to.rootRank = root;
    to.timeout = opts.timeout;
    Tensors one{copy};
    if (copy.numel()) call.parts.push_back(gloo_->reduce(one, to));
    if (root != rank_) {
      call.then.emplace_back([copy] {});  // keeps it alive
      continue;
    }
    TORCH_CHECK(out.numel() == chunks[root].numel(), "hccl reduce_scatter: the output holds ", out.numel(), " elements, this rank's chunk ",
                chunks[root].numel());
    const Tensor target = out.is_complex() ? at::view_as_real(out) : out;
    call.then.insert(call.then.begin(), [target, copy] { target.view(-1).copy_(copy.view(-1)); });
    call.average(copy, opts.reduceOp, size_);
  }
  return finish(std::move(call));
}

WorkPtr ProcessGroupHCCL::_reduce_scatter_base(Tensor& output, Tensor& input, const c10d::ReduceScatterOptions& opts) {
  Call call(*this, "_reduce_scatter_base", &opts.reduceOp);
  Tensor in = reducible(call.input(input), call.name).view(-1);
  const Tensor out = reducible(call.output(output), call.name);
  Tensor flat = out.view(-1);
  TORCH_CHECK(in.numel() == flat.numel() * size_, "hccl reduce_scatter: the input holds ", in.numel(), " elements, expected ", size_,
              " times the output's ", flat.numel());
  auto gloo_opts = opts;
  gloo_opts.reduceOp = gloo_op(opts.reduceOp, input, call.name);
  call.average(out, opts.reduceOp, size_);
  if (in.numel()) call.parts.push_back(gloo_->_reduce_scatter_base(flat, in, gloo_opts));
  return finish(std::move(call));
}

WorkPtr ProcessGroupHCCL::reduce_scatter_tensor_coalesced(Tensors& outputs, Tensors& inputs, const c10d::ReduceScatterOptions& opts) {
  TORCH_CHECK(outputs.size() == inputs.size(), "hccl reduce_scatter: ", inputs.size(), " inputs, but ", outputs.size(), " outputs");
  return together([&] {
    for (size_t i = 0; i < inputs.size(); i++) _reduce_scatter_base(outputs[i], inputs[i], opts);
  });
}

WorkPtr ProcessGroupHCCL::alltoall_base(Tensor& output, Tensor& input, std::vector<int64_t>& output_splits, std::vector<int64_t>& input_splits,
                                        const c10d::AllToAllOptions& opts) {
  Call call(*this, "alltoall_base");
  Tensor in = call.input(input);
  Tensor out = call.output(output);
  TORCH_CHECK(in.scalar_type() == out.scalar_type(), "hccl alltoall: input is ", in.dtype(), ", output is ", out.dtype());
  const auto in_bytes_splits = [&](const Tensor& t, const std::vector<int64_t>& splits, const char* what) {
    const int64_t rows = t.dim() ? t.size(0) : 1;
    const auto total = static_cast<int64_t>(t.nbytes());
    if (splits.empty()) {
      TORCH_CHECK(rows % size_ == 0, "hccl alltoall: ", what, " has ", rows, " rows, which ", size_, " ranks do not divide");
      return std::vector<int64_t>(size_, total / size_);
    }
    TORCH_CHECK(static_cast<int>(splits.size()) == size_ && std::accumulate(splits.begin(), splits.end(), int64_t{0}) == rows, "hccl alltoall: ",
                what, " splits must be ", size_, " numbers that add up to its ", rows, " rows");
    std::vector<int64_t> result;
    for (const int64_t n : splits) result.push_back(rows ? n * (total / rows) : 0);
    return result;
  };
  auto send = in_bytes_splits(in, input_splits, "input");
  auto receive = in_bytes_splits(out, output_splits, "output");
  Tensor flat_out = bytes_of(out), flat_in = bytes_of(in);
  call.parts.push_back(gloo_->alltoall_base(flat_out, flat_in, receive, send, opts));
  return finish(std::move(call));
}

WorkPtr ProcessGroupHCCL::alltoall(Tensors& outputs, Tensors& inputs, const c10d::AllToAllOptions& opts) {
  Call call(*this, "alltoall");
  TORCH_CHECK(static_cast<int>(outputs.size()) == size_ && static_cast<int>(inputs.size()) == size_, "hccl alltoall: expected ", size_,
              " inputs and outputs, got ", inputs.size(), " and ", outputs.size());
  std::vector<int64_t> send, receive;
  Tensors in, out;
  for (int r = 0; r < size_; r++) {
    in.push_back(bytes_of(call.input(inputs[r])));
    out.push_back(bytes_of(call.output(outputs[r])));
    send.push_back(in.back().numel());
    receive.push_back(out.back().numel());
  }
  Tensor flat_in = at::cat(in);
  Tensor flat_out = at::empty({std::accumulate(receive.begin(), receive.end(), int64_t{0})}, flat_in.options());
  call.parts.push_back(gloo_->alltoall_base(flat_out, flat_in, receive, send, opts));  // moves the splits away
  call.then.insert(call.then.begin(), [out, flat_out, flat_in] {
    int64_t offset = 0;
    for (const Tensor& piece : out) {
      piece.copy_(flat_out.narrow(0, offset, piece.numel()));
      offset += piece.numel();
    }
  });
  return finish(std::move(call));
}

WorkPtr ProcessGroupHCCL::send(Tensors& tensors, int destination, int tag) {
  Call call(*this, "send");
  for (auto& t : tensors) {
    Tensors one{bytes_of(call.input(t))};
    call.parts.push_back(gloo_->send(one, destination, tag));
    call.then.emplace_back([one] {});  // keeps it alive
  }
  return finish(std::move(call));
}

WorkPtr ProcessGroupHCCL::recv(Tensors& tensors, int source, int tag) {
  Call call(*this, "recv");
  for (auto& t : tensors) {
    Tensors one{bytes_of(call.output(t))};
    call.parts.push_back(gloo_->recv(one, source, tag));
  }
  return finish(std::move(call));
}

WorkPtr ProcessGroupHCCL::recvAnysource(Tensors& tensors, int tag) {
  Call call(*this, "recv");
  for (auto& t : tensors) {
    Tensors one{bytes_of(call.output(t))};
    call.parts.push_back(gloo_->recvAnysource(one, tag));
  }
  return finish(std::move(call));
}

WorkPtr ProcessGroupHCCL::barrier(const c10d::BarrierOptions& opts) {
  Call call(*this, "barrier");
  call.parts.push_back(gloo_->barrier(opts));
  return finish(std::move(call));
}

}  // namespace npu_sim
