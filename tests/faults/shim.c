/* A shim between a process and the kernel, preloaded: it fails, shortens or kills at the n-th call that changes, or
 * reads, files below one folder, keeps a log of changes, and moves the wall clock. Unarmed it only passes calls on.
 * What is read through a map is no call, and not caught.
 *
 * Single-threaded use; Linux with 64-bit file offsets. Calls go to the kernel directly, so nothing is looked up.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { WRITE = 1, SYNC = 2, NAME = 4, SIZE = 8, OPEN = 16, READ = 32 };
enum { FAIL = 0, SHORT = 1, KILL_BEFORE = 2, KILL_AFTER = 3, KILL_TORN = 4 };

static char root[PATH_MAX];
static size_t root_length;
static long calls, nth;
static int verbs, kind, error_number, forever, armed, log_fd = -1;
static long clock_offset;
static char last_call[64];

void faults_arm(const char *folder, int verbs_, long nth_, int kind_, int error_, int forever_) {
    strncpy(root, folder, PATH_MAX - 1);
    root_length = strlen(root);
    verbs = verbs_, nth = nth_, kind = kind_, error_number = error_, forever = forever_;
    calls = 0, armed = 1;
}
void faults_disarm(void) { armed = 0; }
long faults_calls(void) { return calls; }
const char *faults_last(void) { return last_call; }
void faults_clock(long seconds) { clock_offset = seconds; }
void faults_record(const char *folder, int fd) {
    strncpy(root, folder, PATH_MAX - 1);
    root_length = strlen(root);
    log_fd = fd;
}

/* -- where a call leads ------------------------------------------------------------------------------------- */

static int below(const char *path) {
    return strncmp(path, root, root_length) == 0 && (path[root_length] == '/' || path[root_length] == 0);
}

static int fd_below(int fd) {
    char link[64], path[PATH_MAX];
    if ((!armed && log_fd < 0) || fd == log_fd) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (length < 0) return 0;
    path[length] = 0;
    return below(path);
}

static int resolve(int dir, const char *path, char *out) {
    if ((!armed && log_fd < 0) || !path) return 0;
    if (path[0] == '/') {
        snprintf(out, PATH_MAX, "%s", path);
    } else {
        char folder[PATH_MAX / 2], link[64];
        if (dir == AT_FDCWD) {
            if (!getcwd(folder, sizeof folder)) return 0;
        } else {
            snprintf(link, sizeof link, "/proc/self/fd/%d", dir);
            ssize_t length = readlink(link, folder, sizeof folder - 1);
            if (length < 0) return 0;
            folder[length] = 0;
        }
        snprintf(out, PATH_MAX, "%s/%s", folder, path);
    }
    return below(out);
}

/* -- what to do with it --------------------------------------------------------------------------------------- */

/* 0: pass on; 1: fail with errno; 2: do half of it; 3: do it, then die; 4: do half of it, then die. */
static int verdict(int verb, const char *name) {
    if (!armed || !(verb & verbs)) return 0;
    calls++;
    if (nth <= 0 || !(calls == nth || (forever && calls > nth))) return 0;
    snprintf(last_call, sizeof last_call, "%s", name);
    switch (kind) {
        case FAIL: errno = error_number; return 1;
        case SHORT: return verb == WRITE || verb == READ ? 2 : 0;
        case KILL_BEFORE: syscall(SYS_kill, getpid(), SIGKILL); return 1;
        case KILL_AFTER: return 3;
        default: return verb == WRITE ? 4 : 3;
    }
}
static void die(int what) {
    if (what >= 3) syscall(SYS_kill, getpid(), SIGKILL);
}

/* -- the log ---------------------------------------------------------------------------------------------------- */

struct record { uint32_t op, name_length; uint64_t inode, folder, offset, data_length; };

static void put(const void *data, size_t length) {
    const char *at = data;
    while (length) {
        ssize_t done = syscall(SYS_write, log_fd, at, length);
        if (done <= 0) abort();
        at += done, length -= (size_t)done;
    }
}
static void record(char op, uint64_t inode, uint64_t folder, const char *name, uint64_t offset,
                   const void *data, uint64_t length) {
    struct record head = {(uint32_t)op, (uint32_t)strlen(name), inode, folder, offset, length};
    int saved = errno;
    put(&head, sizeof head);
    put(name, head.name_length);
    if (data) put(data, length);
    errno = saved;
}
static uint64_t inode_of(int fd) {
    struct stat found;
    return fstat(fd, &found) == 0 ? found.st_ino : 0;
}
static uint64_t inode_at(const char *path) {
    struct stat found;
    return lstat(path, &found) == 0 ? found.st_ino : 0;
}
static uint64_t folder_of(const char *path, const char **name) {
    char folder[PATH_MAX];
    snprintf(folder, sizeof folder, "%s", path);
    char *cut = strrchr(folder, '/');
    *name = path + (cut - folder) + 1;
    *cut = 0;
    return inode_at(folder);
}
void faults_mark(uint64_t number) {
    if (log_fd >= 0) record('K', 0, 0, "", number, NULL, 0);
}

/* -- writes ----------------------------------------------------------------------------------------------------- */

static ssize_t written(int fd, const void *data, size_t length, off_t offset, int at, const char *name) {
    int ours = fd_below(fd), what = ours ? verdict(WRITE, name) : 0;
    if (what == 1) return -1;
    if ((what == 2 || what == 4) && length > 1) length /= 2;
    if (log_fd >= 0 && ours && !at) offset = lseek(fd, 0, SEEK_CUR);
    ssize_t done = at ? syscall(SYS_pwrite64, fd, data, length, offset) : syscall(SYS_write, fd, data, length);
    if (log_fd >= 0 && ours && done > 0) record('W', inode_of(fd), 0, "", (uint64_t)offset, data, (uint64_t)done);
    die(what);
    return done;
}
ssize_t write(int fd, const void *data, size_t length) { return written(fd, data, length, 0, 0, "write"); }
ssize_t pwrite64(int fd, const void *data, size_t length, off_t at) { return written(fd, data, length, at, 1, "pwrite"); }
ssize_t pwrite(int fd, const void *data, size_t length, off_t at) { return written(fd, data, length, at, 1, "pwrite"); }
ssize_t pwritev64(int fd, const struct iovec *parts, int count, off_t at) {
    ssize_t total = 0;
    for (int i = 0; i < count; i++) {
        ssize_t done = written(fd, parts[i].iov_base, parts[i].iov_len, at + total, 1, "pwritev");
        if (done < 0) return total ? total : -1;
        total += done;
        if ((size_t)done < parts[i].iov_len) break;
    }
    return total;
}
ssize_t pwritev(int fd, const struct iovec *parts, int count, off_t at) { return pwritev64(fd, parts, count, at); }
/* Copies inside the kernel would pass the log by: callers fall back to reading and writing. */
ssize_t sendfile64(int out, int in, off_t *at, size_t count) {
    if (fd_below(out)) { errno = ENOTSOCK; return -1; }
    return syscall(SYS_sendfile, out, in, at, count);
}
ssize_t sendfile(int out, int in, off_t *at, size_t count) { return sendfile64(out, in, at, count); }
ssize_t copy_file_range(int in, off_t *from, int out, off_t *to, size_t count, unsigned flags) {
    if (fd_below(out)) { errno = ENOSYS; return -1; }
    return syscall(SYS_copy_file_range, in, from, out, to, count, flags);
}

/* -- reads ------------------------------------------------------------------------------------------------------ */

static ssize_t got(int fd, void *data, size_t length, off_t offset, int at, const char *name) {
    int what = armed && (verbs & READ) && fd_below(fd) ? verdict(READ, name) : 0;
    if (what == 1) return -1;
    if ((what == 2 || what == 4) && length > 1) length /= 2;
    ssize_t done = at ? syscall(SYS_pread64, fd, data, length, offset) : syscall(SYS_read, fd, data, length);
    die(what);
    return done;
}
ssize_t read(int fd, void *data, size_t length) { return got(fd, data, length, 0, 0, "read"); }
ssize_t pread64(int fd, void *data, size_t length, off_t at) { return got(fd, data, length, at, 1, "pread"); }
ssize_t pread(int fd, void *data, size_t length, off_t at) { return got(fd, data, length, at, 1, "pread"); }
ssize_t __read_chk(int fd, void *data, size_t length, size_t room) {
    return length > room ? (abort(), -1) : read(fd, data, length);
}
ssize_t __pread64_chk(int fd, void *data, size_t length, off_t at, size_t room) {
    return length > room ? (abort(), -1) : pread64(fd, data, length, at);
}
ssize_t preadv64(int fd, const struct iovec *parts, int count, off_t at) {
    ssize_t total = 0;
    for (int i = 0; i < count; i++) {
        ssize_t done = got(fd, parts[i].iov_base, parts[i].iov_len, at + total, 1, "preadv");
        if (done < 0) return total ? total : -1;
        total += done;
        if ((size_t)done < parts[i].iov_len) break;
    }
    return total;
}
ssize_t preadv(int fd, const struct iovec *parts, int count, off_t at) { return preadv64(fd, parts, count, at); }

/* -- sizes and syncs ---------------------------------------------------------------------------------------------- */

int ftruncate64(int fd, off_t size) {
    int ours = fd_below(fd), what = ours ? verdict(SIZE, "ftruncate") : 0;
    if (what == 1) return -1;
    int done = (int)syscall(SYS_ftruncate, fd, size);
    if (log_fd >= 0 && ours && done == 0) record('T', inode_of(fd), 0, "", (uint64_t)size, NULL, 0);
    die(what);
    return done;
}
int ftruncate(int fd, off_t size) { return ftruncate64(fd, size); }
int fallocate64(int fd, int mode, off_t offset, off_t length) {
    int ours = fd_below(fd), what = ours ? verdict(SIZE, "fallocate") : 0;
    if (what == 1) return -1;
    int done = (int)syscall(SYS_fallocate, fd, mode, offset, length);
    if (log_fd >= 0 && ours && done == 0 && (mode & 2)) record('Z', inode_of(fd), 0, "", (uint64_t)offset, NULL, (uint64_t)length);
    die(what);
    return done;
}
int fallocate(int fd, int mode, off_t offset, off_t length) { return fallocate64(fd, mode, offset, length); }
static int synced(int fd, long number, const char *name) {
    int ours = fd_below(fd), what = ours ? verdict(SYNC, name) : 0;
    if (what == 1) return -1;
    int done = (int)syscall(number, fd);
    if (log_fd >= 0 && ours && done == 0) record('S', inode_of(fd), 0, "", 0, NULL, 0);
    die(what);
    return done;
}
int fsync(int fd) { return synced(fd, SYS_fsync, "fsync"); }
int fdatasync(int fd) { return synced(fd, SYS_fdatasync, "fdatasync"); }

/* -- names ---------------------------------------------------------------------------------------------------------- */

int openat64(int dir, const char *path, int flags, ...) {
    char whole[PATH_MAX];
    mode_t mode = 0;
    if (flags & (O_CREAT | O_TMPFILE)) {
        va_list more;
        va_start(more, flags);
        mode = va_arg(more, mode_t);
        va_end(more);
    }
    int ours = resolve(dir, path, whole), what = ours ? verdict(OPEN, "open") : 0;
    if (what == 1) return -1;
    int made = ours && log_fd >= 0 && (flags & O_CREAT) && inode_at(whole) == 0;
    int fd = (int)syscall(SYS_openat, dir, path, flags, mode);
    if (made && fd >= 0) {
        const char *name;
        uint64_t folder = folder_of(whole, &name);
        record('C', inode_of(fd), folder, name, 0, NULL, 0);
    } else if (ours && log_fd >= 0 && fd >= 0 && (flags & O_TRUNC)) {
        record('T', inode_of(fd), 0, "", 0, NULL, 0);
    }
    die(what);
    return fd;
}
#define MODE_OF(flags) \
    mode_t mode = 0; \
    if ((flags) & (O_CREAT | O_TMPFILE)) { va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }
int openat(int dir, const char *path, int flags, ...) { MODE_OF(flags) return openat64(dir, path, flags, mode); }
int open64(const char *path, int flags, ...) { MODE_OF(flags) return openat64(AT_FDCWD, path, flags, mode); }
int open(const char *path, int flags, ...) { MODE_OF(flags) return openat64(AT_FDCWD, path, flags, mode); }
int __open64_2(const char *path, int flags) { return openat64(AT_FDCWD, path, flags, 0); }
int __open_2(const char *path, int flags) { return openat64(AT_FDCWD, path, flags, 0); }

int mkdirat(int dir, const char *path, mode_t mode) {
    char whole[PATH_MAX];
    int ours = resolve(dir, path, whole), what = ours ? verdict(NAME, "mkdir") : 0;
    if (what == 1) return -1;
    int done = (int)syscall(SYS_mkdirat, dir, path, mode);
    if (log_fd >= 0 && ours && done == 0) {
        const char *name;
        uint64_t folder = folder_of(whole, &name);
        record('M', inode_at(whole), folder, name, 0, NULL, 0);
    }
    die(what);
    return done;
}
int mkdir(const char *path, mode_t mode) { return mkdirat(AT_FDCWD, path, mode); }

static int unlinked(int dir, const char *path, int flags, const char *verb) {
    char whole[PATH_MAX];
    int ours = resolve(dir, path, whole), what = ours ? verdict(NAME, verb) : 0;
    if (what == 1) return -1;
    int done = (int)syscall(SYS_unlinkat, dir, path, flags);
    if (log_fd >= 0 && ours && done == 0) {
        const char *name;
        uint64_t folder = folder_of(whole, &name);
        record('U', 0, folder, name, 0, NULL, 0);
    }
    die(what);
    return done;
}
int unlinkat(int dir, const char *path, int flags) { return unlinked(dir, path, flags, "unlink"); }
int unlink(const char *path) { return unlinked(AT_FDCWD, path, 0, "unlink"); }
int rmdir(const char *path) { return unlinked(AT_FDCWD, path, AT_REMOVEDIR, "rmdir"); }

int renameat2(int from_dir, const char *from, int to_dir, const char *to, unsigned flags) {
    char source[PATH_MAX], target[PATH_MAX];
    int ours = resolve(from_dir, from, source) | resolve(to_dir, to, target);
    int what = ours ? verdict(NAME, "rename") : 0;
    if (what == 1) return -1;
    int done = (int)syscall(SYS_renameat2, from_dir, from, to_dir, to, flags);
    if (log_fd >= 0 && ours && done == 0) {
        const char *old, *new;
        uint64_t old_folder = folder_of(source, &old), new_folder = folder_of(target, &new);
        char both[2 * NAME_MAX + 2];
        snprintf(both, sizeof both, "%s/%s", old, new);
        /* an exchange leaves something under the old name, too */
        uint64_t left = flags & RENAME_EXCHANGE ? inode_at(source) : 0;
        record(left ? 'X' : 'R', inode_at(target), old_folder, both, new_folder, NULL, left);
    }
    die(what);
    return done;
}
int renameat(int a, const char *from, int b, const char *to) { return renameat2(a, from, b, to, 0); }
int rename(const char *from, const char *to) { return renameat2(AT_FDCWD, from, AT_FDCWD, to, 0); }

int linkat(int from_dir, const char *from, int to_dir, const char *to, int flags) {
    char source[PATH_MAX], target[PATH_MAX];
    int ours = resolve(from_dir, from, source) | resolve(to_dir, to, target);
    int what = ours ? verdict(NAME, "link") : 0;
    if (what == 1) return -1;
    int done = (int)syscall(SYS_linkat, from_dir, from, to_dir, to, flags);
    if (log_fd >= 0 && ours && done == 0) {
        const char *name;
        uint64_t folder = folder_of(target, &name);
        record('L', inode_at(target), folder, name, 0, NULL, 0);
    }
    die(what);
    return done;
}
int link(const char *from, const char *to) { return linkat(AT_FDCWD, from, AT_FDCWD, to, 0); }

/* -- the wall clock ---------------------------------------------------------------------------------------------------- */

int clock_gettime(clockid_t which, struct timespec *out) {
    int done = (int)syscall(SYS_clock_gettime, which, out);
    if (done == 0 && (which == CLOCK_REALTIME || which == CLOCK_REALTIME_COARSE)) out->tv_sec += clock_offset;
    return done;
}
int gettimeofday(struct timeval *restrict out, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    out->tv_sec = now.tv_sec, out->tv_usec = now.tv_nsec / 1000;
    return 0;
}
time_t time(time_t *out) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (out) *out = now.tv_sec;
    return now.tv_sec;
}
