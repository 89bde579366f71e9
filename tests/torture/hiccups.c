/* Preloaded, it lets calls of the file system fail now and then: one in HICCUP_ODDS of those on what is below the
   folder HICCUP_UNDER, with an error that says nothing about the files. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MOST 65536
#define REAL(name) \
  static __typeof__(name) *real; \
  if (!real) real = (__typeof__(name) *)dlsym(RTLD_NEXT, #name)

static unsigned char ours[MOST]; /* descriptors of what is below the folder */

static int below(int folder, const char *path) {
  const char *under = getenv("HICCUP_UNDER");
  if (!under || !path) return 0;
  if (path[0] != '/') return folder >= 0 && folder < MOST && ours[folder];
  return strncmp(path, under, strlen(under)) == 0;
}

static int hiccup(int writes) {
  static _Atomic uint64_t state;
  static const int reading[] = {EIO, EMFILE, ESTALE}, writing[] = {EIO, EMFILE, ESTALE, ENOSPC};
  const char *odds = getenv("HICCUP_ODDS");
  struct timespec now;
  if (!odds || atoi(odds) <= 0) return 0;
  clock_gettime(CLOCK_MONOTONIC, &now);
  uint64_t x = atomic_fetch_add(&state, 0x9E3779B97F4A7C15u) ^ (uint64_t)getpid() << 32 ^ (uint64_t)now.tv_nsec;
  x = (x ^ x >> 30) * 0xBF58476D1CE4E5B9u;
  x = (x ^ x >> 27) * 0x94D049BB133111EBu;
  x ^= x >> 31;
  if (x % (uint64_t)atoi(odds)) return 0;
  errno = writes ? writing[x >> 40 & 3] : reading[(x >> 40) % 3];
  return 1;
}

static int noted(int fd, int is_ours) {
  if (fd >= 0 && fd < MOST) ours[fd] = (unsigned char)is_ours;
  return fd;
}

#define OPEN(name) \
  int name(const char *path, int flags, ...) { \
    va_list args; \
    va_start(args, flags); \
    mode_t mode = va_arg(args, mode_t); \
    va_end(args); \
    REAL(name); \
    int is_ours = below(AT_FDCWD, path); \
    if (is_ours && hiccup(flags & O_CREAT)) return -1; \
    return noted(real(path, flags, mode), is_ours); \
  }
OPEN(open)
OPEN(open64)

#define OPENAT(name) \
  int name(int folder, const char *path, int flags, ...) { \
    va_list args; \
    va_start(args, flags); \
    mode_t mode = va_arg(args, mode_t); \
    va_end(args); \
    REAL(name); \
    int is_ours = below(folder, path); \
    if (is_ours && hiccup(flags & O_CREAT)) return -1; \
    return noted(real(folder, path, flags, mode), is_ours); \
  }
OPENAT(openat)
OPENAT(openat64)

int close(int fd) {
  REAL(close);
  noted(fd, 0);
  return real(fd);
}

#define ON_FD(type, name, writes, params, args) \
  type name params { \
    REAL(name); \
    if (fd >= 0 && fd < MOST && ours[fd] && hiccup(writes)) return -1; \
    return real args; \
  }
ON_FD(ssize_t, read, 0, (int fd, void *data, size_t size), (fd, data, size))
ON_FD(ssize_t, write, 1, (int fd, const void *data, size_t size), (fd, data, size))
ON_FD(ssize_t, pread, 0, (int fd, void *data, size_t size, off_t at), (fd, data, size, at))
ON_FD(ssize_t, pread64, 0, (int fd, void *data, size_t size, off_t at), (fd, data, size, at))
ON_FD(int, fsync, 1, (int fd), (fd))

int rename(const char *from, const char *to) {
  REAL(rename);
  if (below(AT_FDCWD, to) && hiccup(1)) return -1;
  return real(from, to);
}

int renameat(int from_folder, const char *from, int to_folder, const char *to) {
  REAL(renameat);
  if (below(to_folder, to) && hiccup(1)) return -1;
  return real(from_folder, from, to_folder, to);
}

int unlink(const char *path) {
  REAL(unlink);
  if (below(AT_FDCWD, path) && hiccup(0)) return -1;
  return real(path);
}

int unlinkat(int folder, const char *path, int flags) {
  REAL(unlinkat);
  if (below(folder, path) && hiccup(0)) return -1;
  return real(folder, path, flags);
}

int mkdir(const char *path, mode_t mode) {
  REAL(mkdir);
  if (below(AT_FDCWD, path) && hiccup(1)) return -1;
  return real(path, mode);
}
