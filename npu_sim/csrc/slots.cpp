// SPDX-License-Identifier: Apache-2.0
#include "slots.h"

#include "device.h"

#include <c10/util/Exception.h>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstring>
#include <mutex>
#include <string>

namespace npu_sim::slots {
namespace {

constexpr uint64_t kMagic = 0x3153544f4c53504eULL;  // "NPSLOTS1", little endian
constexpr uint32_t kCapacity = 2048;

struct Slot {
  int64_t pid;  // 0: free
  int64_t start_time;
  int64_t device;
  int64_t bytes;
};
struct File {
  uint64_t magic;
  uint64_t capacity;
  Slot slots[kCapacity];
};

struct Shared {
  std::mutex mutex;
  int fd = -1;
  File* file = nullptr;
  int64_t pid = 0, start_time = 0;
};
Shared& shared() {
  static auto* s = new Shared();
  return *s;
}

// Field 22 of /proc/PID/stat in clock ticks since boot; -1 when the process is gone or a zombie, 0 where there is no /proc.
int64_t start_time_of(int64_t pid) {
  char path[64];
  std::snprintf(path, sizeof path, "/proc/%lld/stat", static_cast<long long>(pid));
  std::FILE* f = std::fopen(path, "re");
  if (!f) return kill(static_cast<pid_t>(pid), 0) == 0 || errno == EPERM ? 0 : -1;
  char text[1024];
  const size_t n = std::fread(text, 1, sizeof text - 1, f);
  std::fclose(f);
  text[n] = 0;
  const char* p = std::strrchr(text, ')');  // the command name may hold spaces and parentheses
  char state = 0;
  unsigned long long start = 0;
  if (!p || std::sscanf(p + 1, " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %*d %*d %llu", &state, &start) != 2)
    return -1;
  return state == 'Z' || state == 'X' ? -1 : static_cast<int64_t>(start);
}

struct FileLock {  // a POSIX record lock: the kernel drops it when the holder dies
  int fd;
  explicit FileLock(int fd_in) : fd(fd_in) { apply(F_WRLCK); }
  ~FileLock() { apply(F_UNLCK); }
  void apply(short type) const {
    struct flock lock {};
    lock.l_type = type;
    lock.l_whence = SEEK_SET;
    lock.l_len = 1;
    while (fcntl(fd, F_SETLKW, &lock) != 0 && errno == EINTR) {
    }
  }
};

void open_file(Shared& s) {
  if (!s.file) {
    const std::string& path = config().slots_file;
    const int fd = open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    TORCH_CHECK(fd >= 0, "NPU_SIM_SLOTS: cannot open '", path, "': ", std::strerror(errno), "; name a writable file");
    {
      FileLock lock(fd);
      struct stat info {};
      const bool fits = fstat(fd, &info) == 0 &&
          (info.st_size == static_cast<off_t>(sizeof(File)) || (info.st_size == 0 && ftruncate(fd, sizeof(File)) == 0));
      void* p = fits ? mmap(nullptr, sizeof(File), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0) : MAP_FAILED;
      auto* file = static_cast<File*>(p);
      if (p != MAP_FAILED && file->magic == 0) {
        file->capacity = kCapacity;
        file->magic = kMagic;
      }
      if (p == MAP_FAILED || file->magic != kMagic || file->capacity != kCapacity) {
        close(fd);
        TORCH_CHECK(false, "NPU_SIM_SLOTS: '", path, "' is not a slot file of this version; remove it or name another file");
      }
      s.file = file;
      s.fd = fd;
    }
  }
  if (!s.pid) {
    s.pid = getpid();
    s.start_time = start_time_of(s.pid);
  }
}

void reap(File* file) {
  for (Slot& slot : file->slots)
    if (slot.pid && start_time_of(slot.pid) != slot.start_time) slot = Slot{};
}

bool mine(const Shared& s, const Slot& slot) { return slot.pid == s.pid && slot.start_time == s.start_time; }

int64_t sum_others(const Shared& s, int physical) {
  int64_t sum = 0;
  for (const Slot& slot : s.file->slots)
    if (slot.pid && slot.device == physical && !mine(s, slot)) sum += slot.bytes;
  return sum;
}

}  // namespace

bool enabled() { return !config().slots_file.empty(); }

int64_t others(int physical) {
  if (!enabled()) return 0;
  Shared& s = shared();
  std::lock_guard<std::mutex> guard(s.mutex);
  open_file(s);
  FileLock lock(s.fd);
  reap(s.file);
  return sum_others(s, physical);
}

bool publish(int physical, int64_t bytes, int64_t limit, int64_t* others_bytes) {
  *others_bytes = 0;
  if (!enabled()) return bytes <= limit;
  Shared& s = shared();
  std::lock_guard<std::mutex> guard(s.mutex);
  open_file(s);
  FileLock lock(s.fd);
  *others_bytes = sum_others(s, physical);
  if (*others_bytes + bytes > limit) {
    reap(s.file);
    *others_bytes = sum_others(s, physical);
    if (*others_bytes + bytes > limit) return false;
  }
  Slot* target = nullptr;
  for (int pass = 0; pass < 2 && !target; pass++) {
    for (Slot& slot : s.file->slots) {
      if (mine(s, slot) && slot.device == physical) {
        target = &slot;
        break;
      }
      if (!slot.pid && !target) target = &slot;
    }
    if (!target) reap(s.file);
  }
  TORCH_CHECK(target, "NPU_SIM_SLOTS: all ", kCapacity, " slots of '", config().slots_file, "' are taken by live processes");
  *target = Slot{s.pid, s.start_time, physical, bytes};
  return true;
}

std::vector<Entry> list() {
  std::vector<Entry> result;
  if (!enabled()) return result;
  Shared& s = shared();
  std::lock_guard<std::mutex> guard(s.mutex);
  open_file(s);
  FileLock lock(s.fd);
  reap(s.file);
  for (const Slot& slot : s.file->slots)
    if (slot.pid) result.push_back({slot.pid, slot.start_time, static_cast<int>(slot.device), slot.bytes});
  return result;
}

void forget_after_fork() {
  Shared& s = shared();
  new (&s.mutex) std::mutex();  // another thread of the parent may have held it
  s.pid = 0;
}

}  // namespace npu_sim::slots
