// SPDX-License-Identifier: Apache-2.0
// What torch asks of a device runtime: guard, streams, events, hooks.
//
// Everything runs at once on the calling thread, so streams only carry an identity and events only a time.
#include "generator.h"
#include "host_allocator.h"
#include "memory.h"

#include <ATen/detail/PrivateUse1HooksInterface.h>
#include <c10/core/impl/DeviceGuardImplInterface.h>

#include <atomic>
#include <chrono>

namespace npu_sim {
namespace {

using c10::Device;
using c10::DeviceIndex;
using c10::Stream;
using Clock = std::chrono::steady_clock;

thread_local std::array<c10::StreamId, kMaxDevices> tls_stream{};  // 0: the default stream
std::atomic<c10::StreamId> next_stream{1};

struct Event {
  Clock::time_point time;
};

struct NpuGuard final : c10::impl::DeviceGuardImplInterface {
  c10::DeviceType type() const override { return kNPU; }
  Device exchangeDevice(Device device) const override {
    const Device previous = getDevice();
    setDevice(device);
    return previous;
  }
  Device getDevice() const override { return Device(kNPU, current_device()); }
  void setDevice(Device device) const override {
    TORCH_CHECK(device.type() == kNPU, "expected an npu device, got ", device);
    set_current_device(device.index());
  }
  void uncheckedSetDevice(Device device) const noexcept override { set_current_device_unchecked(device.index()); }
  DeviceIndex deviceCount() const noexcept override {
    try {
      return static_cast<DeviceIndex>(visible_devices());
    } catch (...) {
      return 0;  // a malformed environment is reported by the first real use
    }
  }

  Stream getStream(Device device) const override { return stream(device, tls_stream[resolve(device.index())]); }
  Stream getDefaultStream(Device device) const override { return stream(device, 0); }
  Stream getStreamFromGlobalPool(Device device, bool) const override { return stream(device, next_stream++); }
  Stream getNewStream(Device device, int) const override { return stream(device, next_stream++); }
  Stream exchangeStream(Stream s) const override {
    auto& current = tls_stream[resolve(s.device_index())];
    return stream(s.device(), std::exchange(current, s.id()));
  }
  void* getStreamNativeHandle(const Stream s) const override { return reinterpret_cast<void*>(s.id() + 1); }
  bool queryStream(const Stream&) const override { return true; }
  void synchronizeStream(const Stream&) const override {}
  void synchronizeDevice(DeviceIndex) const override {}

  void record(void** event, const Stream&, DeviceIndex, c10::EventFlag) const override {
    if (!*event) *event = new Event();
    static_cast<Event*>(*event)->time = Clock::now();
  }
  void block(void*, const Stream&) const override {}
  bool queryEvent(void*) const override { return true; }
  void synchronizeEvent(void*) const override {}
  void destroyEvent(void* event, DeviceIndex) const noexcept override { delete static_cast<Event*>(event); }
  double elapsedTime(void* start, void* end, DeviceIndex) const override {
    TORCH_CHECK(start && end, "both events must be recorded before calculating elapsed time");
    return std::chrono::duration<double, std::milli>(static_cast<Event*>(end)->time - static_cast<Event*>(start)->time).count();
  }

 private:
  static Stream stream(Device device, c10::StreamId id) {
    return Stream(Stream::UNSAFE, Device(kNPU, resolve(device.index())), id);
  }
};

struct NpuHooks final : at::PrivateUse1HooksInterface {
  void init() const override { config(); }
  bool isBuilt() const override { return true; }
  bool isAvailable() const override { return visible_devices() > 0; }
  bool hasPrimaryContext(DeviceIndex) const override { return config_is_fixed(); }
  DeviceIndex deviceCount() const override { return static_cast<DeviceIndex>(visible_devices()); }
  DeviceIndex getCurrentDevice() const override { return current_device(); }
  void setCurrentDevice(DeviceIndex device) const override { set_current_device(device); }
  DeviceIndex exchangeDevice(DeviceIndex device) const override {
    const DeviceIndex previous = current_device();
    if (device >= 0) set_current_device(device);
    return previous;
  }
  DeviceIndex maybeExchangeDevice(DeviceIndex device) const override { return exchangeDevice(device); }
  const at::Generator& getDefaultGenerator(DeviceIndex device) const override { return default_generator(device); }
  at::Generator getNewGenerator(DeviceIndex device) const override { return new_generator(device); }
  Device getDeviceFromPtr(void* data) const override { return device_of_pointer(data); }
  bool isPinnedPtr(const void* data) const override { return is_pinned(data); }
  c10::Allocator* getPinnedMemoryAllocator() const override { return host_allocator(); }
  void resizePrivateUse1Bytes(const c10::Storage& storage, size_t nbytes) const override {
    resize_storage(storage.unsafeGetStorageImpl(), nbytes);
  }
};

}  // namespace

void install_runtime() {
  c10::impl::registerDeviceGuard(kNPU, new NpuGuard());
  at::RegisterPrivateUse1HooksInterface(new NpuHooks());
}

}  // namespace npu_sim
