// SPDX-License-Identifier: Apache-2.0
// The Python module torch_npu._sim.
#include "counters.h"
#include "generator.h"
#include "hccl.h"
#include "hollow.h"
#include "host_allocator.h"
#include "memory.h"
#include "mirror.h"
#include "refusals.h"
#include "slots.h"

#include <torch/csrc/autograd/python_variable.h>
#include <torch/csrc/Generator.h>
#include <torch/csrc/utils/pybind.h>
#include <torch/version.h>

#include <unistd.h>

namespace npu_sim {

void install_runtime();
void install_direct_fallbacks();
void register_comm_name(const c10::intrusive_ptr<ProcessGroupHCCL>& group);

namespace {

// All groups of a process share gloo's device: each device has a thread that looks for work a hundred times a second.
py::object gloo_device(const py::object& gloo_class) {
  const char* interface = std::getenv("GLOO_SOCKET_IFNAME");
  // A fork has none of its parent's threads.
  const py::tuple key = py::make_tuple(getpid(), interface ? interface : "");
  py::dict devices = py::module::import("torch_npu._sim").attr("gloo_devices");
  if (!devices.contains(key))
    // Without an interface: all simulated devices are on this machine.
    devices[key] = interface ? gloo_class.attr("create_default_device")() : gloo_class.attr("create_device")(py::arg("hostname") = "127.0.0.1");
  return devices[key];
}

// gloo's own Python constructor knows how to find the network interface.
c10::intrusive_ptr<c10d::Backend> make_gloo(const py::module& distributed, const py::object& store, int rank, int size, const py::object& timeout) {
  const py::object gloo_class = distributed.attr("ProcessGroupGloo");
  const py::object gloo_options = gloo_class.attr("_Options")();
  py::list devices;
  devices.append(gloo_device(gloo_class));
  gloo_options.attr("_devices") = devices;
  gloo_options.attr("_timeout") = timeout;
  return gloo_class(store, rank, size, gloo_options).cast<c10::intrusive_ptr<c10d::Backend>>();
}

c10::intrusive_ptr<ProcessGroupHCCL> make_group(const py::object& store, int rank, int size, const py::object& options,
                                                const std::vector<int64_t>& ranks) {
  const py::module distributed = py::module::import("torch._C._distributed_c10d");
  c10::intrusive_ptr<HcclOptions> hccl_options;
  py::object timeout = options;
  if (py::isinstance<HcclOptions>(options)) {
    hccl_options = options.cast<c10::intrusive_ptr<HcclOptions>>();
    timeout = options.attr("_timeout");
  } else {
    hccl_options = c10::make_intrusive<HcclOptions>();
    if (options.is_none()) timeout = py::cast(hccl_options).attr("_timeout");
    py::cast(hccl_options).attr("_timeout") = timeout;
  }
  const py::object prefix = distributed.attr("PrefixStore")("hccl_sim/", store);
  c10::intrusive_ptr<c10d::Backend> below;
  if (in_world_of_one())
    below = c10::make_intrusive<ProcessGroupMirror>(rank, size);
  else
    below = make_gloo(distributed, prefix, rank, size, timeout);
  auto group =
      c10::make_intrusive<ProcessGroupHCCL>(below, prefix.cast<c10::intrusive_ptr<c10d::Store>>(), rank, size, hccl_options, ranks);
  register_comm_name(group);
  return group;
}

void bind_hccl(py::module& m) {
  py::module::import("torch._C._distributed_c10d");  // base classes
  auto options = py::class_<HcclOptions, c10d::Backend::Options, c10::intrusive_ptr<HcclOptions>>(m, "HcclOptions", py::dynamic_attr())
                     .def(py::init<bool>(), py::arg("is_high_priority_stream") = false)
                     .def_readwrite("is_high_priority_stream", &HcclOptions::is_high_priority_stream);
  auto group = py::class_<ProcessGroupHCCL, c10d::Backend, c10::intrusive_ptr<ProcessGroupHCCL>>(m, "ProcessGroupHCCL")
                   .def(py::init(&make_group), py::arg("store"), py::arg("rank"), py::arg("size"), py::arg("options") = py::none(),
                        py::arg("ranks") = std::vector<int64_t>())
                   .def(
                       "get_hccl_comm_name", [](const ProcessGroupHCCL& g, int, bool) { return g.comm_name(); }, py::arg("rank"),
                       py::arg("init_comm") = true)
                   .def_property_readonly("below", &ProcessGroupHCCL::below)
                   .def(
                       "count_traffic",
                       [](ProcessGroupHCCL& g, const std::string& kind, int64_t sent, int64_t received) { g.traffic().add(kind, sent, received); },
                       py::arg("kind"), py::arg("sent"), py::arg("received"))
                   .def_property_readonly("options", &ProcessGroupHCCL::getBackendOptions);
  group.attr("Options") = options;
  // Made as ProcessGroupGloo is.
  py::class_<ProcessGroupMirror, c10d::Backend, c10::intrusive_ptr<ProcessGroupMirror>>(m, "ProcessGroupMirror")
      .def(py::init([](const py::object&, int rank, int size, const py::object&) { return c10::make_intrusive<ProcessGroupMirror>(rank, size); }),
           py::arg("store"), py::arg("rank"), py::arg("size"), py::arg("timeout") = py::none())
      .def_property_readonly("options", &ProcessGroupMirror::getBackendOptions);
  m.attr("gloo_devices") = py::dict();
  m.def("make_world_of_one", &make_world_of_one);
  m.def("group_by_comm_name", &ProcessGroupHCCL::by_comm_name);
}

void bind_memory(py::module& m) {
  m.def("memory_stats", [](int device) {
    const MemoryStats s = memory_stats(static_cast<c10::DeviceIndex>(device));
    py::dict d;
    d["allocated"] = s.allocated;
    d["allocated_peak"] = s.allocated_peak;
    d["allocated_total"] = s.allocated_total;
    d["freed_total"] = s.freed_total;
    d["reserved"] = s.reserved;
    d["reserved_peak"] = s.reserved_peak;
    d["allocations"] = s.allocations;
    d["frees"] = s.frees;
    d["ooms"] = s.ooms;
    return d;
  });
  m.def("reset_peak", [](int device) { reset_peak(static_cast<c10::DeviceIndex>(device)); });
  m.def("reset_accumulated", [](int device) { reset_accumulated(static_cast<c10::DeviceIndex>(device)); });
  m.def("empty_cache", &empty_cache);
  m.def("free_and_total", [](int device) { return free_and_total(static_cast<c10::DeviceIndex>(device)); });
  m.def("live_blocks", [](int device) { return live_blocks(static_cast<c10::DeviceIndex>(device)); });
  m.def("pinned_bytes", &pinned_bytes);
  m.def("set_hbm_bytes", &set_hbm_bytes);
  m.def("hbm_bytes", [] { return config().hbm_bytes; });
  m.def("parse_bytes", [](const std::string& text) { return parse_bytes("NPU_SIM_HBM", text); });
  m.def("slots", [] {
    py::list result;
    for (const auto& e : slots::list()) result.append(py::make_tuple(e.pid, e.device, e.bytes));
    return result;
  });
  m.def("as_cpu", &as_cpu, py::arg("t"));
  m.def("as_npu", &as_npu, py::arg("t"), py::arg("dev") = -1);
}

void bind_device(py::module& m) {
  m.def("device_count", &visible_devices);
  m.def("current_device", [] { return static_cast<int>(current_device()); });
  m.def("set_device", [](int device) { set_current_device(static_cast<c10::DeviceIndex>(device)); });
  m.def("physical_device", [](int device) { return config().physical[resolve(static_cast<c10::DeviceIndex>(device))]; });
  m.def("is_initialized", &config_is_fixed);
  m.def("init", [] { config(); });
  m.def("default_generator", [](int device) { return default_generator(static_cast<c10::DeviceIndex>(device)); });
}

void bind_counters(py::module& m) {
  m.def("op_counts", &op_counts);
  m.def("collective_counts", &collective_counts);
  m.def("reset_counts", &reset_counts);
  m.def("traffic", [] {
    py::list rows;
    for (const auto& [ranks, kinds] : traffic())
      for (const auto& [kind, row] : kinds) rows.append(py::make_tuple(py::tuple(py::cast(ranks)), kind, row.calls, row.sent, row.received));
    return rows;
  });
  m.def("host_traffic", [] {
    py::dict rows;
    const HostTraffic& host = host_traffic();
    for (const auto& [name, counter] :
         {std::make_pair("to_device", &host.to_device), std::make_pair("to_host", &host.to_host), std::make_pair("locked", &host.locked)})
      rows[name] = py::make_tuple(counter->calls.load(), counter->bytes.load());
    return rows;
  });
  m.def("reset_traffic", &reset_traffic);
  m.def("count_op", [](const std::string& name) { op_counter(name).add(); });
}

void bind_hollow(py::module& m) {
  m.def(
      "make_hollow",
      [](int64_t from_bytes, const py::function& read, const py::function& refuse) {
        // Kept for the life of the process: a backward thread may ask after the interpreter began to end.
        auto* const asked = new py::function(read);
        auto* const refused = new py::function(refuse);
        make_hollow(from_bytes, {[asked](const std::string& op, c10::ScalarType dtype) {
                                   const py::gil_scoped_acquire gil;
                                   const py::object value = (*asked)(op, dtype);
                                   if (py::isinstance<py::float_>(value)) return c10::Scalar(value.cast<double>());
                                   if (py::isinstance<py::bool_>(value)) return c10::Scalar(value.cast<bool>());
                                   return c10::Scalar(value.cast<int64_t>());
                                 },
                                 [refused](const std::string& op, const std::string& why) {
                                   const py::gil_scoped_acquire gil;
                                   (*refused)(op, why);
                                 }});
      },
      py::arg("from_bytes"), py::arg("read"), py::arg("refuse"));
  m.def("is_hollow", [](const at::Tensor& t) { return is_hollow(t); });
  m.def("give_zeros", &give_zeros);
  m.def("set_all_with_contents", &set_all_with_contents);
}

void bind_refusals(py::module& m) {
  m.def(
      "refuse_dtypes",
      [](const std::string& name, std::vector<c10::ScalarType> dtypes, std::string message, bool warn, std::vector<std::string> arguments) {
        refuse_dtypes(name, {std::move(dtypes), std::move(arguments), std::move(message), warn});
      },
      py::arg("operator"), py::arg("dtypes"), py::arg("message"), py::arg("warn") = false, py::arg("arguments") = std::vector<std::string>());
  m.def(
      "refuse_collective",
      [](const std::string& name, std::vector<c10::ScalarType> dtypes, std::vector<std::string> reduce_ops, std::string message, bool warn) {
        refuse_collective(name, {std::move(dtypes), std::move(reduce_ops), std::move(message), warn});
      },
      py::arg("collective"), py::arg("dtypes"), py::arg("reduce_ops"), py::arg("message"), py::arg("warn") = false);
  m.def("clear_refusals", &clear_refusals);
}

}  // namespace
}  // namespace npu_sim

PYBIND11_MODULE(TORCH_EXTENSION_NAME, m) {
  m.attr("BUILT_FOR_TORCH") = TORCH_VERSION;
  npu_sim::install_allocators();
  npu_sim::install_runtime();
  npu_sim::install_direct_fallbacks();
  npu_sim::bind_device(m);
  npu_sim::bind_memory(m);
  npu_sim::bind_counters(m);
  npu_sim::bind_hccl(m);
  npu_sim::bind_hollow(m);
  npu_sim::bind_refusals(m);
}
