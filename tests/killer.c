/* Preloaded (LD_PRELOAD) into a process: kills it -9 at a chosen system call.

   arm(below, call, count, mode) makes the count-th `call`, of any thread, on a
   path that begins with `below` the last one: mode 0 kills before it, 1 after
   it, 2 in a write of the first half. `counts` tells how many there were. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { CREATE, WRITE, SYNC, RENAME, UNLINK, MKDIR, CALLS };

static char below[4096];
static int chosen = -1, mode;
static long count;
static atomic_long counts_[CALLS];

void arm(const char *path, int call, long n, int how) {
  chosen = call, count = n, mode = how;
  strncpy(below, path, sizeof below - 1);
}

long counts(int call) { return counts_[call]; }

static void die(void) {
  kill(getpid(), SIGKILL);
  for (;;) pause();
}

static int at_last(int call, const char *path) {
  if (!*below || !path || strncmp(path, below, strlen(below))) return 0;
  int last = atomic_fetch_add(&counts_[call], 1) + 1 == count && call == chosen;
  if (last && mode == 0) die();
  return last;
}

static const char *path_of(int file, char *buffer) {
  char link[64];
  snprintf(link, sizeof link, "/proc/self/fd/%d", file);
  ssize_t size = *below ? readlink(link, buffer, 4095) : -1;
  if (size < 0) return 0;
  buffer[size] = 0;
  return buffer;
}

static const char *joined(int folder, const char *path, char *buffer) {
  if (*path == '/' || folder == AT_FDCWD || !path_of(folder, buffer))
    return path;
  strncat(buffer, "/", 4095 - strlen(buffer));
  return strncat(buffer, path, 4095 - strlen(buffer));
}

/* The next function of that name, called; then the process ends if it is due. */
#define PASS(type, name, call, path, signature, ...)            \
  type name signature {                                         \
    static type(*next) signature;                               \
    char buffer[4096];                                          \
    (void)buffer;                                               \
    if (!next) next = dlsym(RTLD_NEXT, #name);                  \
    int last = at_last(call, path);                             \
    type result = next(__VA_ARGS__);                            \
    if (last) die();                                            \
    return result;                                              \
  }

#define WRITES(name, signature, ...)                            \
  ssize_t name signature {                                      \
    static ssize_t(*next) signature;                            \
    char buffer[4096];                                          \
    if (!next) next = dlsym(RTLD_NEXT, #name);                  \
    int last = at_last(WRITE, path_of(file, buffer));           \
    if (last && mode == 2) size /= 2;                           \
    ssize_t result = next(__VA_ARGS__);                         \
    if (last) die();                                            \
    return result;                                              \
  }

#define OPENS(name, folder, signature, ...)                     \
  int name signature {                                          \
    static int (*next)();                                       \
    char buffer[4096];                                          \
    va_list rest;                                               \
    va_start(rest, flags);                                      \
    int bits = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, int) : 0; \
    va_end(rest);                                               \
    if (!next) next = dlsym(RTLD_NEXT, #name);                  \
    int last = flags & O_CREAT &&                               \
               at_last(CREATE, joined(folder, path, buffer));   \
    int result = next(__VA_ARGS__, bits);                       \
    if (last) die();                                            \
    return result;                                              \
  }

OPENS(open, AT_FDCWD, (const char *path, int flags, ...), path, flags)
OPENS(open64, AT_FDCWD, (const char *path, int flags, ...), path, flags)
OPENS(openat, at, (int at, const char *path, int flags, ...), at, path, flags)
OPENS(openat64, at, (int at, const char *path, int flags, ...), at, path, flags)
WRITES(write, (int file, const void *data, size_t size), file, data, size)
WRITES(pwrite, (int file, const void *data, size_t size, off_t at), file, data,
       size, at)
WRITES(pwrite64, (int file, const void *data, size_t size, off64_t at), file,
       data, size, at)
PASS(int, fsync, SYNC, path_of(file, buffer), (int file), file)
PASS(int, fdatasync, SYNC, path_of(file, buffer), (int file), file)
PASS(int, rename, RENAME, from, (const char *from, const char *to), from, to)
PASS(int, unlink, UNLINK, path, (const char *path), path)
PASS(int, unlinkat, UNLINK, joined(at, path, buffer),
     (int at, const char *path, int flags), at, path, flags)
PASS(int, rmdir, UNLINK, path, (const char *path), path)
PASS(int, mkdir, MKDIR, path, (const char *path, mode_t bits), path, bits)
