/*
 * Faults of a disk, for a process that is started with this library in LD_PRELOAD and SHIM_CONTROL naming a file of rules, one a
 * line:
 *
 *   sync|write PATTERN AFTER EIO|ENOSPC|torn|slow:MS
 *
 * A call on a file whose path contains PATTERN fails, or is late, after AFTER calls have gone through. "torn": half of the
 * bytes are written, then there is no room. The file may be changed at any time; counting begins anew then. Each fault adds a line to
 * SHIM_CONTROL.log.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define RULES 16

struct rule {
  char operation[16], pattern[256], action[32];
  long after, calls;
};

static struct rule rules[RULES];
static int count;
static struct timespec seen;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;

static void load(const char *control) {
  struct stat facts;
  if (stat(control, &facts) != 0) {
    count = 0;
    seen.tv_sec = 0;
    return;
  }
  if (facts.st_mtim.tv_sec == seen.tv_sec && facts.st_mtim.tv_nsec == seen.tv_nsec) return;
  seen = facts.st_mtim;
  count = 0;
  FILE *file = fopen(control, "r");
  if (file == NULL) return;
  for (; count < RULES; count++) {
    struct rule *rule = &rules[count];
    rule->calls = 0;
    if (fscanf(file, "%15s %255s %ld %31s", rule->operation, rule->pattern, &rule->after, rule->action) != 4) break;
  }
  fclose(file);
}

static void tell(const char *control, const struct rule *rule, const char *path) {
  char name[PATH_MAX], line[PATH_MAX + 64];
  snprintf(name, sizeof name, "%s.log", control);
  int length = snprintf(line, sizeof line, "%s %s %s\n", rule->operation, rule->action, path);
  long fd = syscall(SYS_openat, AT_FDCWD, name, O_WRONLY | O_CREAT | O_APPEND, 0644);
  if (fd < 0) return;
  syscall(SYS_write, fd, line, (long)length);
  syscall(SYS_close, fd);
}

/* A write is a sync as well where each one is durable. */
static int durable(int fd) {
  int flags = fcntl(fd, F_GETFL);
  return flags >= 0 && (flags & O_DSYNC) != 0;
}

/* What is to become of a call: 0 nothing, -1 it is torn, else the error. */
static int fate(int fd, const char *operation) {
  const char *control = getenv("SHIM_CONTROL");
  if (control == NULL) return 0;
  char link[64], path[PATH_MAX];
  snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
  ssize_t length = readlink(link, path, sizeof path - 1);
  if (length <= 0) return 0;
  path[length] = 0;
  int error = 0, late = 0;
  pthread_mutex_lock(&lock);
  load(control);
  for (int i = 0; i < count && error == 0; i++) {
    struct rule *rule = &rules[i];
    if (strcmp(rule->operation, operation) != 0 || strstr(path, rule->pattern) == NULL) continue;
    if (rule->calls++ < rule->after) continue;
    tell(control, rule, path);
    if (strcmp(rule->action, "EIO") == 0) error = EIO;
    else if (strcmp(rule->action, "ENOSPC") == 0) error = ENOSPC;
    else if (strcmp(rule->action, "torn") == 0) error = rule->calls == rule->after + 1 ? -1 : ENOSPC;
    else if (strncmp(rule->action, "slow:", 5) == 0) late = atoi(rule->action + 5);
  }
  pthread_mutex_unlock(&lock);
  if (late > 0) usleep((useconds_t)late * 1000);
  return error;
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))

#define SYNC(name)                                                                                                     \
  int name(int fd) {                                                                                                   \
    int error = fate(fd, "sync");                                                                                      \
    if (error > 0) {                                                                                                   \
      errno = error;                                                                                                   \
      return -1;                                                                                                       \
    }                                                                                                                  \
    return REAL(name)(fd);                                                                                             \
  }

SYNC(fsync)
SYNC(fdatasync)

static ssize_t failed(int error) {
  errno = error;
  return -1;
}

ssize_t write(int fd, const void *bytes, size_t length) {
  int error = fate(fd, "write");
  if (error > 0) return failed(error);
  return REAL(write)(fd, bytes, error < 0 && length > 1 ? length / 2 : length);
}

#define PWRITE(name, offset_type)                                                                                      \
  ssize_t name(int fd, const void *bytes, size_t length, offset_type offset) {                                         \
    int error = fate(fd, "write");                                                                                     \
    if (error == 0 && durable(fd)) error = fate(fd, "sync");                                                           \
    if (error > 0) return failed(error);                                                                               \
    return REAL(name)(fd, bytes, error < 0 && length > 1 ? length / 2 : length, offset);                               \
  }

PWRITE(pwrite, off_t)
PWRITE(pwrite64, off64_t)

/* Half of the first piece, when it is torn. */
static struct iovec half(const struct iovec *pieces) {
  struct iovec first = pieces[0];
  if (first.iov_len > 1) first.iov_len /= 2;
  return first;
}

ssize_t writev(int fd, const struct iovec *pieces, int length) {
  int error = fate(fd, "write");
  if (error > 0) return failed(error);
  if (error == 0 || length == 0) return REAL(writev)(fd, pieces, length);
  struct iovec first = half(pieces);
  return REAL(writev)(fd, &first, 1);
}

#define PWRITEV(name, offset_type)                                                                                     \
  ssize_t name(int fd, const struct iovec *pieces, int length, offset_type offset) {                                   \
    int error = fate(fd, "write");                                                                                     \
    if (error > 0) return failed(error);                                                                               \
    if (error == 0 || length == 0) return REAL(name)(fd, pieces, length, offset);                                      \
    struct iovec first = half(pieces);                                                                                 \
    return REAL(name)(fd, &first, 1, offset);                                                                          \
  }

PWRITEV(pwritev, off_t)
PWRITEV(pwritev64, off64_t)
