// SPDX-License-Identifier: Apache-2.0
// What the simulated devices are: how many, how much memory, which one is current.
#pragma once

#include <c10/core/Device.h>

#include <cstdint>
#include <string>
#include <vector>

namespace npu_sim {

constexpr c10::DeviceType kNPU = c10::DeviceType::PrivateUse1;
constexpr int kMaxDevices = 64;

// Read from the environment when a device is first used, then fixed for the life of the process:
//   NPU_SIM_DEVICES            devices on this machine, 1..64 (default 8)
//   ASCEND_RT_VISIBLE_DEVICES  comma-separated physical indices; empty means none (default: all)
//   NPU_SIM_HBM                bytes per device, with an optional suffix such as MiB (default 64GiB)
//   NPU_SIM_OUTSIDE            of these, bytes that others than torch hold (default 0): HCCL's buffers and the context of a process
//   NPU_SIM_SLOTS              file for accounting across processes (default: this process only)
struct Config {
  std::vector<int> physical;  // logical index -> physical index
  int64_t hbm_bytes = 0;
  int64_t outside_bytes = 0;
  std::string slots_file;
};

const Config& config();
bool config_is_fixed();
void set_hbm_bytes(int64_t bytes);  // for tests

// Number of visible devices. Does not fix the configuration: Ray and verl set the visible devices after `import torch`.
int visible_devices();

c10::DeviceIndex current_device();
void set_current_device(c10::DeviceIndex index);            // throws on an index that does not exist
void set_current_device_unchecked(c10::DeviceIndex index);  // ignores negative indices
c10::DeviceIndex resolve(c10::DeviceIndex index);           // negative -> current; throws on one that does not exist

// "64GiB", "192 MiB", "1e9"-free: digits, optional fraction, optional K/M/G/T with optional i and B. `variable` is named in errors.
int64_t parse_bytes(const char* variable, const std::string& text);

struct WithDevice {  // switches this thread's current device for a scope
  explicit WithDevice(c10::DeviceIndex index);
  ~WithDevice();
  WithDevice(const WithDevice&) = delete;
  WithDevice& operator=(const WithDevice&) = delete;

 private:
  c10::DeviceIndex previous_;
};

}  // namespace npu_sim
