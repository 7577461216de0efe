// SPDX-License-Identifier: Apache-2.0
// What the hardware's documents exclude though CPU kernels would compute it: dtypes of operators, dtypes and reductions of
// collectives. Python fills the tables (torch_npu._sim.refuse_dtypes, refuse_collective); an empty one costs a load per tensor.
#pragma once

#include <c10/core/ScalarType.h>

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace npu_sim {

struct Refusal {
  std::vector<c10::ScalarType> dtypes;  // empty: every dtype
  std::vector<std::string> parts;       // arguments of an operator, reductions of a collective; empty: every one
  std::string message;
  bool warn = false;                    // say it once instead of refusing
};

// The refusals of one operator (an overload) or one collective.
class Refusals {
 public:
  // `owner` and `as` are words of the message: found torch.float64 {as} mat2 in {owner}.
  Refusals(std::string owner, std::string as) : owner_(std::move(owner)), as_(std::move(as)) {}
  // Throws RuntimeError when a refusal names this dtype in this part. A collective without a reduction has the part "".
  void check(c10::ScalarType dtype, std::string_view part) const {
    if (dtypes_.load(std::memory_order_relaxed) >> static_cast<int>(dtype) & 1u) refuse(dtype, part);
  }
  void add(Refusal refusal);
  void clear();

 private:
  struct Entry {
    Refusal refusal;
    std::atomic<bool> said{false};
  };
  void refuse(c10::ScalarType dtype, std::string_view part) const;

  std::string owner_, as_;
  std::atomic<uint64_t> dtypes_{0};  // one bit for each dtype that any refusal names
  std::vector<std::shared_ptr<Entry>> entries_;
};

Refusals& refusals_of_operator(const std::string& full_name);  // "aten::mm", "aten::mm.out"; found or made, lives for ever
Refusals& refusals_of_collective(const std::string& name);     // likewise, by c10d's backend names

// "aten::mm" is every overload that reaches the device, "aten::mm.out" that one. Throws ValueError for a name that does not exist
// or whose calls never reach the device as such, since its refusals would never be met.
void refuse_dtypes(const std::string& name, Refusal refusal);
void refuse_collective(const std::string& name, Refusal refusal);
void clear_refusals();

}  // namespace npu_sim
