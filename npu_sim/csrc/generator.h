// SPDX-License-Identifier: Apache-2.0
// Random numbers: an npu generator is a CPU generator that belongs to a device.
#pragma once

#include <ATen/core/Generator.h>

namespace npu_sim {

const at::Generator& default_generator(c10::DeviceIndex device);  // negative: current device
at::Generator new_generator(c10::DeviceIndex device);
at::Generator cpu_generator_of(const at::Generator& npu);  // the CPU generator inside; throws for another device's

}  // namespace npu_sim
