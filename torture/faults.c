/* Loaded before libc (LD_PRELOAD): lets the n-th call on files below one folder fail with a chosen errno.
 *
 * Knows open, write, truncate, fsync, rename and mkdir as libc names them, so that Python, HDF5 and SQLite are
 * hit alike. Armed by fault_arm(), or for a whole process by FAULT_AT, FAULT_ERRNO, FAULT_LASTS, FAULT_BELOW.
 * Only errors that the kernel could give are given: a full disk fails no read, a full table of files no write.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { READ = 1, CREATE = 2, WRITE = 4, SYNC = 8, NAME = 16 };

static long at = 0, seen = 0;
static int number = 0, lasts = 0;
static char below[PATH_MAX];

/* Call `at` (from 1) fails with `number`; if `lasts`, so do all later ones. at = 0 only counts. */
void fault_arm(long at_, int number_, int lasts_, const char *below_) {
    number = number_, lasts = lasts_, at = at_;
    snprintf(below, sizeof below, "%s", below_);
    __atomic_store_n(&seen, 0, __ATOMIC_SEQ_CST);
}

long fault_seen(void) { return __atomic_load_n(&seen, __ATOMIC_SEQ_CST); }

__attribute__((constructor)) static void from_environment(void) {
    const char *folder = getenv("FAULT_BELOW");
    if (folder)
        fault_arm(atol(getenv("FAULT_AT")), atoi(getenv("FAULT_ERRNO")), atoi(getenv("FAULT_LASTS")), folder);
}

static int kinds(void) {
    switch (number) {
    case ENOSPC: return CREATE | WRITE | SYNC | NAME;
    case EMFILE: return READ | CREATE;
    case EACCES: return READ | CREATE | NAME;
    default: return READ | CREATE | WRITE | SYNC | NAME;
    }
}

static int fails(int kind, const char *path) {
    if (!number || !(kinds() & kind) || !path || strncmp(path, below, strlen(below))) return 0;
    long n = __atomic_add_fetch(&seen, 1, __ATOMIC_SEQ_CST);
    if (!at || n < at || (n > at && !lasts)) return 0;
    errno = number;
    return 1;
}

static int fails_fd(int kind, int fd) {
    char link[64], path[PATH_MAX];
    if (!number) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t n = readlink(link, path, sizeof path - 1);
    if (n < 0) return 0;
    path[n] = 0;
    return fails(kind, path);
}

#define REAL(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define OPENS(flags) ((flags) & (O_WRONLY | O_RDWR | O_CREAT) ? CREATE : READ)
#define MODE(flags, mode, last)                                                                                \
    mode_t mode = 0;                                                                                           \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {                                                                   \
        va_list list;                                                                                          \
        va_start(list, last);                                                                                  \
        mode = va_arg(list, mode_t);                                                                           \
        va_end(list);                                                                                          \
    }

int open(const char *path, int flags, ...) {
    MODE(flags, mode, flags)
    return fails(OPENS(flags), path) ? -1 : REAL(open)(path, flags, mode);
}
int open64(const char *path, int flags, ...) {
    MODE(flags, mode, flags)
    return fails(OPENS(flags), path) ? -1 : REAL(open64)(path, flags, mode);
}
int openat(int folder, const char *path, int flags, ...) {
    MODE(flags, mode, flags)
    return fails(OPENS(flags), path) ? -1 : REAL(openat)(folder, path, flags, mode);
}
int openat64(int folder, const char *path, int flags, ...) {
    MODE(flags, mode, flags)
    return fails(OPENS(flags), path) ? -1 : REAL(openat64)(folder, path, flags, mode);
}
ssize_t write(int fd, const void *data, size_t size) {
    return fails_fd(WRITE, fd) ? -1 : REAL(write)(fd, data, size);
}
ssize_t pwrite(int fd, const void *data, size_t size, off_t place) {
    return fails_fd(WRITE, fd) ? -1 : REAL(pwrite)(fd, data, size, place);
}
ssize_t pwrite64(int fd, const void *data, size_t size, off64_t place) {
    return fails_fd(WRITE, fd) ? -1 : REAL(pwrite64)(fd, data, size, place);
}
int ftruncate(int fd, off_t size) { return fails_fd(WRITE, fd) ? -1 : REAL(ftruncate)(fd, size); }
int ftruncate64(int fd, off64_t size) { return fails_fd(WRITE, fd) ? -1 : REAL(ftruncate64)(fd, size); }
/* Nothing is really synced: that no power fails meanwhile makes a sweep of thousands of runs quick. */
int fsync(int fd) { return fails_fd(SYNC, fd) ? -1 : 0; }
int fdatasync(int fd) { return fails_fd(SYNC, fd) ? -1 : 0; }
int rename(const char *from, const char *to) { return fails(NAME, to) ? -1 : REAL(rename)(from, to); }
int mkdir(const char *path, mode_t mode) { return fails(NAME, path) ? -1 : REAL(mkdir)(path, mode); }
