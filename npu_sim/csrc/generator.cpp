// SPDX-License-Identifier: Apache-2.0
#include "generator.h"

#include "device.h"

#include <ATen/CPUGeneratorImpl.h>
#include <c10/core/GeneratorImpl.h>

#include <array>
#include <mutex>

namespace npu_sim {
namespace {

struct NpuGenerator final : c10::GeneratorImpl {
  at::Generator inner;

  NpuGenerator(c10::DeviceIndex device, at::Generator cpu)
      : c10::GeneratorImpl(c10::Device(kNPU, device), c10::DispatchKeySet(c10::DispatchKey::PrivateUse1)), inner(std::move(cpu)) {}

  void set_current_seed(uint64_t seed) override { inner.set_current_seed(seed); }
  uint64_t current_seed() const override { return inner.current_seed(); }
  uint64_t seed() override { return inner.seed(); }
  void set_offset(uint64_t) override {
    TORCH_CHECK_NOT_IMPLEMENTED(false, "the simulated NPU's generator has no Philox offset; save and restore its whole state");
  }
  uint64_t get_offset() const override {
    TORCH_CHECK_NOT_IMPLEMENTED(false, "the simulated NPU's generator has no Philox offset; save and restore its whole state");
  }
  void set_state(const c10::TensorImpl& state) override { inner.unsafeGetGeneratorImpl()->set_state(state); }
  c10::intrusive_ptr<c10::TensorImpl> get_state() const override { return inner.unsafeGetGeneratorImpl()->get_state(); }
  NpuGenerator* clone_impl() const override { return new NpuGenerator(device().index(), inner.clone()); }
};

}  // namespace

const at::Generator& default_generator(c10::DeviceIndex device) {
  static auto* all = [] {
    auto* generators = new std::array<at::Generator, kMaxDevices>();
    for (int i = 0; i < kMaxDevices; i++)
      (*generators)[i] = at::make_generator<NpuGenerator>(static_cast<c10::DeviceIndex>(i),
                                                          at::detail::createCPUGenerator(c10::default_rng_seed_val));
    return generators;
  }();
  return (*all)[resolve(device)];
}

at::Generator new_generator(c10::DeviceIndex device) {
  return at::make_generator<NpuGenerator>(resolve(device), at::detail::createCPUGenerator(c10::default_rng_seed_val));
}

at::Generator cpu_generator_of(const at::Generator& npu) {
  TORCH_CHECK(npu.device().type() == kNPU, "Expected a 'npu' device type for generator but found '", npu.device().type(), "'");
  return static_cast<NpuGenerator*>(npu.unsafeGetGeneratorImpl())->inner;
}

}  // namespace npu_sim
