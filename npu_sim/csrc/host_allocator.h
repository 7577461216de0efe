// SPDX-License-Identifier: Apache-2.0
// "Pinned" host memory: ordinary memory whose addresses are remembered, so that Tensor.is_pinned() tells the truth.
#pragma once

#include <ATen/core/CachingHostAllocator.h>

#include <cstddef>

namespace npu_sim {

at::HostAllocator* host_allocator();
bool is_pinned(const void* p);
void pin(const void* start, size_t nbytes);
void unpin(const void* start, size_t nbytes);
int64_t pinned_bytes();

}  // namespace npu_sim
