// SPDX-License-Identifier: Apache-2.0
#include "device.h"

#include <c10/util/Exception.h>

#include <atomic>
#include <cctype>
#include <cmath>
#include <cstdlib>
#include <mutex>

namespace npu_sim {
namespace {

thread_local c10::DeviceIndex tls_device = 0;

int parse_int(const std::string& name, const std::string& text) {
  size_t used = 0;
  int value = -1;
  try {
    value = std::stoi(text, &used);
  } catch (const std::exception&) {
    used = 0;
  }
  while (used > 0 && used < text.size() && std::isspace(static_cast<unsigned char>(text[used]))) used++;
  TORCH_CHECK(used == text.size() && !text.empty() && value >= 0, name, " holds '", text,
              "', expected a number that is not negative; correct the environment variable");
  return value;
}

std::vector<int> read_visible() {
  int count = 8;
  if (const char* text = std::getenv("NPU_SIM_DEVICES")) count = parse_int("NPU_SIM_DEVICES", text);
  TORCH_CHECK(count >= 1 && count <= kMaxDevices, "NPU_SIM_DEVICES is ", count, ", expected 1 to ", kMaxDevices);
  std::vector<int> physical;
  const char* visible = std::getenv("ASCEND_RT_VISIBLE_DEVICES");
  if (!visible) {
    for (int i = 0; i < count; i++) physical.push_back(i);
    return physical;
  }
  const std::string list(visible);
  for (size_t start = 0; start < list.size();) {
    size_t end = list.find(',', start);
    if (end == std::string::npos) end = list.size();
    const int index = parse_int("ASCEND_RT_VISIBLE_DEVICES", list.substr(start, end - start));
    TORCH_CHECK(index < count, "ASCEND_RT_VISIBLE_DEVICES names device ", index, ", but only ", count,
                " devices are simulated; raise NPU_SIM_DEVICES or correct the list '", list, "'");
    physical.push_back(index);
    start = end + 1;
  }
  return physical;
}

struct Holder {
  std::mutex mutex;
  Config config;
  std::atomic<bool> ready{false};
};
Holder& holder() {
  static auto* h = new Holder();  // never destroyed: tensors may outlive static destruction
  return *h;
}

}  // namespace

const Config& config() {
  Holder& h = holder();
  if (h.ready.load(std::memory_order_acquire)) return h.config;
  std::lock_guard<std::mutex> guard(h.mutex);
  if (!h.ready.load(std::memory_order_relaxed)) {
    h.config.physical = read_visible();
    const char* hbm = std::getenv("NPU_SIM_HBM");
    h.config.hbm_bytes = parse_bytes("NPU_SIM_HBM", hbm ? hbm : "64GiB");
    const char* outside = std::getenv("NPU_SIM_OUTSIDE");
    h.config.outside_bytes = outside && std::string(outside) != "0" ? parse_bytes("NPU_SIM_OUTSIDE", outside) : 0;
    const char* slots = std::getenv("NPU_SIM_SLOTS");
    h.config.slots_file = slots ? slots : "";
    h.ready.store(true, std::memory_order_release);
  }
  return h.config;
}

bool config_is_fixed() { return holder().ready.load(std::memory_order_acquire); }

void set_hbm_bytes(int64_t bytes) {
  TORCH_CHECK(bytes > 0, "device memory must be positive, got ", bytes, " bytes");
  config();
  holder().config.hbm_bytes = bytes;
}

int visible_devices() {
  return static_cast<int>(config_is_fixed() ? config().physical.size() : read_visible().size());
}

c10::DeviceIndex current_device() { return tls_device; }

c10::DeviceIndex resolve(c10::DeviceIndex index) {
  if (index < 0) index = tls_device;
  const int count = static_cast<int>(config().physical.size());
  TORCH_CHECK(index < count, "invalid device index ", static_cast<int>(index), ": this process sees ", count,
              " NPU(s) (ASCEND_RT_VISIBLE_DEVICES, NPU_SIM_DEVICES)");
  return index;
}

void set_current_device(c10::DeviceIndex index) { tls_device = resolve(index); }

void set_current_device_unchecked(c10::DeviceIndex index) {
  if (index >= 0) tls_device = index;
}

int64_t parse_bytes(const char* variable, const std::string& text) {
  size_t used = 0;
  double number = -1;
  try {
    number = std::stod(text, &used);
  } catch (const std::exception&) {
    number = -1;
  }
  std::string unit;
  for (size_t i = used; i < text.size(); i++)
    if (!std::isspace(static_cast<unsigned char>(text[i]))) unit += static_cast<char>(std::toupper(text[i]));
  double base = 1000;
  if (!unit.empty() && unit.back() == 'B') unit.pop_back();
  if (!unit.empty() && unit.back() == 'I') {
    base = 1024;
    unit.pop_back();
  }
  const std::string letters = "KMGT";
  const size_t power = unit.empty() ? 0 : letters.find(unit) == std::string::npos ? 99 : letters.find(unit) + 1;
  const double bytes = power == 99 ? -1 : number * std::pow(base, static_cast<double>(power));
  TORCH_CHECK(unit.size() <= 1 && power != 99 && std::isfinite(bytes) && bytes >= 1 && bytes < 9e18,
              variable, " is '", text, "', expected a positive size such as 268435456, 256MiB or 64GiB");
  return static_cast<int64_t>(bytes);
}

WithDevice::WithDevice(c10::DeviceIndex index) : previous_(tls_device) { tls_device = resolve(index); }
WithDevice::~WithDevice() { tls_device = previous_; }

}  // namespace npu_sim
