// SPDX-License-Identifier: Apache-2.0
// Tensors without contents. Their bytes are in the ledger and nowhere else: an operator on one runs its shape function and
// returns tensors without contents. What a tensor holds is lost for the whole of its storage as soon as an operator writes
// into it what it computed from such a tensor; it is there again when all of it is overwritten with known values.
#pragma once

#include <ATen/core/Tensor.h>
#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/core/stack.h>
#include <c10/core/Scalar.h>

#include <functional>
#include <string>

namespace npu_sim {

// What is asked when contents are wanted that are not there. Both throw, unless `read` knows the number.
struct HollowHooks {
  std::function<c10::Scalar(const std::string& op, c10::ScalarType dtype)> read;
  std::function<void(const std::string& op, const std::string& why)> refuse;
};

// From now on, on this thread and in the backward passes that it starts, a floating tensor of at least so many bytes is made
// without contents.
void make_hollow(int64_t from_bytes, HollowHooks hooks);
// While on, this thread makes tensors of every size with contents; gives what was set before.
bool set_all_with_contents(bool on);
bool hollow_by_size(c10::ScalarType dtype, int64_t nbytes);

bool is_hollow(const at::Tensor& t);  // npu or cpu
// The number that is read of a tensor without contents. Asked by the kernel itself: torch.tensor([...]) reads its elements
// where no operator passes the gate.
c10::Scalar read_number(const std::string& op, c10::ScalarType dtype);
// Zeros from now on, whatever the size; for who knows the values and writes them next.
void give_zeros(const at::Tensor& t);

// Run an operator all of whose tensors are on the CPU, with or without contents. The stack is as for a boxed kernel.
void run_on_cpu(const c10::OperatorHandle& handle, torch::jit::Stack* stack);

}  // namespace npu_sim
