// SPDX-License-Identifier: Apache-2.0
// Device use of all processes on the machine: a shared file of {pid, start time, device, bytes} slots.
//
// A slot belongs to one process and one physical device. A process that dies without giving back (kill -9) leaves its slot
// behind; whoever needs memory or asks for the free memory finds that (pid, start time) no longer lives and frees it.
#pragma once

#include <cstdint>
#include <vector>

namespace npu_sim::slots {

struct Entry {
  int64_t pid, start_time;
  int device;
  int64_t bytes;
};

bool enabled();  // NPU_SIM_SLOTS is set
// Bytes held on a physical device by other live processes.
int64_t others(int physical);
// Publish that this process holds `bytes` on `physical`, where all processes together stay within `limit`. Returns false
// and publishes nothing if they would not; `others_bytes` receives what the others hold either way.
bool publish(int physical, int64_t bytes, int64_t limit, int64_t* others_bytes);
std::vector<Entry> list();  // live entries
void forget_after_fork();   // the child holds nothing yet

}  // namespace npu_sim::slots
