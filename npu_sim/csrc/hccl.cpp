// SPDX-License-Identifier: Apache-2.0
// Over 400 lines, because it is one class with one short method for each collective of torch's interface.
#include "hccl.h"

#include "mirror.h"

#include <ATen/ops/cat.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/view_as_real.h>

#include <mutex>
#include <numeric>
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

bool all_equal_numel(const Tensors& list) {
  for (const auto& t : list)
    if (t.numel() != list.front().numel()) return false;
  return true;
}

// Two tensors that one collective moves between: bytes of one dtype must not become those of another.
void check_dtype(const char* name, const Tensor& expected, const Tensor& found) {
  TORCH_CHECK(found.scalar_type() == expected.scalar_type(), "hccl ", name, ": input and output must have one dtype, got ", dtype_name(expected.scalar_type()),
              " and ", dtype_name(found.scalar_type()));
}

// What a rank brings to a broadcast. The root's goes ahead of its tensor, so that another dtype or size is an error and not garbage.
struct Announcement {
  Tensor words;  // dtype, elements

  explicit Announcement(const Tensor& t) : words(at::empty({2}, at::kLong)) {
    words.mutable_data_ptr<int64_t>()[0] = static_cast<int64_t>(t.scalar_type());
    words.mutable_data_ptr<int64_t>()[1] = t.numel();
  }
  c10::ScalarType dtype() const { return static_cast<c10::ScalarType>(words.const_data_ptr<int64_t>()[0]); }
  int64_t elements() const { return words.const_data_ptr<int64_t>()[1]; }
  bool operator==(const Announcement& other) const { return dtype() == other.dtype() && elements() == other.elements(); }
};

void check_announced(const Announcement& root, const Announcement& here, int64_t root_rank) {
  TORCH_CHECK(root == here, "hccl broadcast: rank ", root_rank, " sends ", root.elements(), " elements of ", dtype_name(root.dtype()),
              ", this rank expects ", here.elements(), " of ", dtype_name(here.dtype()));
}

}  // namespace

ProcessGroupHCCL::ProcessGroupHCCL(c10::intrusive_ptr<Backend> below, c10::intrusive_ptr<c10d::Store> store, int rank, int size,
                                   c10::intrusive_ptr<HcclOptions> options, const std::vector<int64_t>& ranks)
    : Backend(rank, size),
      below_(std::move(below)),
      mirrored_(dynamic_cast<ProcessGroupMirror*>(below_.get()) != nullptr),
      device_(std::move(store), rank),
      options_(std::move(options)),
      traffic_(traffic_of(ranks)) {
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

// A contiguous tensor flat, as what is moved below: as bytes, so that gloo moves every dtype; the mirror must know which it is.
Tensor ProcessGroupHCCL::moved(const Tensor& t) const { return mirrored_ ? t.view(-1) : t.view(-1).view(at::kByte); }

WorkPtr ProcessGroupHCCL::finish(HcclCall&& call) {
  sequence_++;
  traffic_.add(call.name, call.sent, call.received);
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
  HcclCall call("broadcast", device_);
  for (auto& t : tensors) {
    const bool is_root = rank_ == opts.rootRank;
    Tensors one{moved(call.in_out(t, is_root, !is_root))};
    if (mirrored_) continue;  // every rank holds the root's
    const Announcement here(t), root(t);
    Tensors words{root.words};
    const WorkPtr announced = below_->broadcast(words, opts);
    if (!is_root && !opts.asyncOp && !coalescing_) {
      announced->wait();
      if (root != here) {  // the root must still get rid of what it sends
        const auto bytes = root.elements() * static_cast<int64_t>(c10::elementSize(root.dtype()));
        Tensors unwanted{at::empty({bytes}, at::kByte)};
        if (bytes) below_->broadcast(unwanted, opts)->wait();
        check_announced(root, here, opts.rootRank);
      }
    } else {
      call.parts.push_back(announced);
      call.then.insert(call.then.begin(), [root, here, from = opts.rootRank] { check_announced(root, here, from); });
    }
    if (one[0].numel()) call.parts.push_back(below_->broadcast(one, opts));
  }
  return finish(std::move(call));
}

WorkPtr ProcessGroupHCCL::allreduce(Tensors& tensors, const c10d::AllreduceOptions& opts) {
  HcclCall call("allreduce", device_, &opts.reduceOp);
  for (auto& t : tensors) {
    auto gloo_opts = opts;
    gloo_opts.reduceOp = call.gloo_reduction(t);
    Tensor buffer = call.reduced(call.in_out(t));
    call.average(buffer, size_);
    Tensors one{buffer};
    if (buffer.numel()) call.parts.push_back(below_->allreduce(one, gloo_opts));
  }
  return finish(std::move(call));
}

WorkPtr ProcessGroupHCCL::allreduce_coalesced(Tensors& tensors, const c10d::AllreduceCoalescedOptions& opts) {
  return together([&] { allreduce(tensors, opts); });
}

WorkPtr ProcessGroupHCCL::reduce(Tensors& tensors, const c10d::ReduceOptions& opts) {
  HcclCall call("reduce", device_, &opts.reduceOp);
  for (auto& t : tensors) {
    auto gloo_opts = opts;
    gloo_opts.reduceOp = call.gloo_reduction(t);
    const bool is_root = rank_ == opts.rootRank;
    Tensor target = call.reduced(call.in_out(t, true, is_root));
    // gloo uses the buffers of other ranks as scratch; theirs must stay as they are
    Tensor buffer = is_root || mirrored_ ? target : target.clone();
    if (is_root) call.average(buffer, size_);
    Tensors one{buffer};
    if (buffer.numel()) call.parts.push_back(below_->reduce(one, gloo_opts));
  }
  return finish(std::move(call));
}

WorkPtr ProcessGroupHCCL::allgather(TensorLists& outputs, Tensors& inputs, const c10d::AllgatherOptions& opts) {
  HcclCall call("allgather", device_);
  TORCH_CHECK(outputs.size() == inputs.size(), "hccl allgather: ", inputs.size(), " inputs, but ", outputs.size(), " output lists");
  for (size_t i = 0; i < inputs.size(); i++) {
    TORCH_CHECK(static_cast<int>(outputs[i].size()) == size_, "hccl allgather: expected ", size_, " outputs, got ", outputs[i].size());
    const Tensor own = call.input(inputs[i]);
    Tensors buffers;
    for (auto& t : outputs[i]) {
      check_dtype(call.name, inputs[i], t);
      buffers.push_back(moved(call.output(t, true)));
    }
    const Tensor source = moved(own);
    TORCH_CHECK(buffers[rank_].nbytes() == source.nbytes(), "hccl allgather: this rank gives ", source.nbytes(),
                " bytes, but its place in the output holds ", buffers[rank_].nbytes());
    if (mirrored_ || all_equal_numel(buffers)) {
      TensorLists out{buffers};
      Tensors in{source};
      if (mirrored_ || source.numel()) call.parts.push_back(below_->allgather(out, in, opts));
      continue;
    }
    buffers[rank_].copy_(source);
    for (int root = 0; root < size_; root++) {
      c10d::BroadcastOptions from;
      from.rootRank = root;
      from.timeout = opts.timeout;
      Tensors one{buffers[root]};
      if (buffers[root].numel()) call.parts.push_back(below_->broadcast(one, from));
    }
  }
  return finish(std::move(call));
}

WorkPtr ProcessGroupHCCL::_allgather_base(Tensor& output, Tensor& input, const c10d::AllgatherOptions& opts) {
  HcclCall call("_allgather_base", device_);
  check_dtype(call.name, input, output);
  Tensor in = moved(call.input(input));
  Tensor out = moved(call.output(output));
  TORCH_CHECK(out.numel() == in.numel() * size_, "hccl allgather: the output holds ", out.nbytes(), " bytes, expected ", size_, " times the input's ",
              in.nbytes());
  if (in.numel()) call.parts.push_back(below_->_allgather_base(out, in, opts));
  return finish(std::move(call));
}

WorkPtr ProcessGroupHCCL::allgather_into_tensor_coalesced(Tensors& outputs, Tensors& inputs, const c10d::AllgatherOptions& opts) {
  TORCH_CHECK(outputs.size() == inputs.size(), "hccl allgather: ", inputs.size(), " inputs, but ", outputs.size(), " outputs");
  return together([&] {
    for (size_t i = 0; i < inputs.size(); i++) _allgather_base(outputs[i], inputs[i], opts);
  });
}

WorkPtr ProcessGroupHCCL::gather(TensorLists&, Tensors&, const c10d::GatherOptions&) {
  TORCH_CHECK_NOT_IMPLEMENTED(false, "hccl gather: HCCL has none; torch.distributed.gather on npu tensors is an all-gather");
}

WorkPtr ProcessGroupHCCL::scatter(Tensors& outputs, TensorLists& inputs, const c10d::ScatterOptions& opts) {
  HcclCall call("scatter", device_);
  Tensors out{moved(call.output(outputs.at(0)))};
  TensorLists in;
  if (rank_ == opts.rootRank) {
    in.emplace_back();
    for (auto& t : inputs.at(0)) {
      check_dtype(call.name, t, outputs[0]);
      in[0].push_back(moved(call.input(t, true)));
      TORCH_CHECK(in[0].back().nbytes() == out[0].nbytes(), "hccl scatter: every rank must get ", out[0].nbytes(), " bytes, an input holds ",
                  in[0].back().nbytes());
    }
  }
  if (out[0].numel()) call.parts.push_back(below_->scatter(out, in, opts));
  return finish(std::move(call));
}

// Chunk r, summed over ranks, ends on rank r: one reduction per rank, on copies, since gloo overwrites what it reduces.
WorkPtr ProcessGroupHCCL::reduce_scatter(Tensors& outputs, TensorLists& inputs, const c10d::ReduceScatterOptions& opts) {
  HcclCall call("reduce_scatter", device_, &opts.reduceOp);
  const Tensors& chunks = inputs.at(0);
  TORCH_CHECK(static_cast<int>(chunks.size()) == size_, "hccl reduce_scatter: expected ", size_, " inputs, got ", chunks.size());
  const Tensor out = call.output(outputs.at(0));
  for (int root = 0; root < size_; root++) {
    check_dtype(call.name, chunks[root], out);
    c10d::ReduceOptions to;
    to.reduceOp = call.gloo_reduction(chunks[root]);
    const Tensor chunk = call.input(chunks[root], true);
    if (mirrored_ && root != rank_) continue;  // nobody takes it
    const Tensor copy = call.addend(chunk).clone();
    to.rootRank = root;
    to.timeout = opts.timeout;
    Tensors one{copy};
    if (copy.numel()) call.parts.push_back(below_->reduce(one, to));
    if (root != rank_) {
      call.then.emplace_back([copy] {});  // keeps it alive
      continue;
    }
    TORCH_CHECK(out.numel() == chunks[root].numel(), "hccl reduce_scatter: the output holds ", out.numel(), " elements, this rank's chunk ",
                chunks[root].numel());
    const Tensor target = out.is_complex() ? at::view_as_real(out) : out;
    call.then.insert(call.then.begin(), [target, copy] { target.view(-1).copy_(copy.view(-1)); });
    call.average(copy, size_);
  }
  return finish(std::move(call));
}

WorkPtr ProcessGroupHCCL::_reduce_scatter_base(Tensor& output, Tensor& input, const c10d::ReduceScatterOptions& opts) {
  HcclCall call("_reduce_scatter_base", device_, &opts.reduceOp);
  check_dtype(call.name, input, output);
  auto gloo_opts = opts;
  gloo_opts.reduceOp = call.gloo_reduction(input);
  Tensor in = call.addend(call.input(input)).view(-1);
  const Tensor out = call.reduced(call.output(output));
  Tensor flat = out.view(-1);
  TORCH_CHECK(in.numel() == flat.numel() * size_, "hccl reduce_scatter: the input holds ", in.numel(), " elements, expected ", size_,
              " times the output's ", flat.numel());
  call.average(out, size_);
  if (in.numel()) call.parts.push_back(below_->_reduce_scatter_base(flat, in, gloo_opts));
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
  HcclCall call("alltoall_base", device_);
  Tensor in = call.input(input);
  Tensor out = call.output(output);
  check_dtype(call.name, in, out);
  const auto flat_splits = [&](const Tensor& t, const Tensor& flat, const std::vector<int64_t>& splits, const char* what) {
    const int64_t rows = t.dim() ? t.size(0) : 1, total = flat.numel();
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
  Tensor flat_out = moved(out), flat_in = moved(in);
  auto send = flat_splits(in, flat_in, input_splits, "input");
  auto receive = flat_splits(out, flat_out, output_splits, "output");
  call.parts.push_back(below_->alltoall_base(flat_out, flat_in, receive, send, opts));
  return finish(std::move(call));
}

WorkPtr ProcessGroupHCCL::alltoall(Tensors& outputs, Tensors& inputs, const c10d::AllToAllOptions& opts) {
  HcclCall call("alltoall", device_);
  TORCH_CHECK(static_cast<int>(outputs.size()) == size_ && static_cast<int>(inputs.size()) == size_, "hccl alltoall: expected ", size_,
              " inputs and outputs, got ", inputs.size(), " and ", outputs.size());
  std::vector<int64_t> send, receive;
  Tensors in, out;
  for (int r = 0; r < size_; r++) {
    check_dtype(call.name, inputs[r], outputs[r]);
    in.push_back(moved(call.input(inputs[r])));
    out.push_back(moved(call.output(outputs[r])));
    send.push_back(in.back().numel());
    receive.push_back(out.back().numel());
  }
  if (mirrored_) {
    call.parts.push_back(below_->alltoall(out, in, opts));
    return finish(std::move(call));
  }
  Tensor flat_in = at::cat(in);
  Tensor flat_out = at::empty({std::accumulate(receive.begin(), receive.end(), int64_t{0})}, flat_in.options());
  call.parts.push_back(below_->alltoall_base(flat_out, flat_in, receive, send, opts));  // moves the splits away
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
  HcclCall call("send", device_);
  for (auto& t : tensors) {
    Tensors one{moved(call.input(t))};
    call.parts.push_back(below_->send(one, destination, tag));
    call.then.emplace_back([one] {});  // keeps it alive
  }
  return finish(std::move(call));
}

WorkPtr ProcessGroupHCCL::recv(Tensors& tensors, int source, int tag) {
  HcclCall call("recv", device_);
  for (auto& t : tensors) {
    Tensors one{moved(call.output(t))};
    call.parts.push_back(below_->recv(one, source, tag));
  }
  return finish(std::move(call));
}

WorkPtr ProcessGroupHCCL::recvAnysource(Tensors&, int) {
  TORCH_CHECK_NOT_IMPLEMENTED(false, "hccl recv: HCCL receives from a named rank only; give a source");
}

WorkPtr ProcessGroupHCCL::barrier(const c10d::BarrierOptions& opts) {
  HcclCall call("barrier", device_);
  call.parts.push_back(below_->barrier(opts));
  return finish(std::move(call));
}

}  // namespace npu_sim
