/* Faults of the system, loaded into the gateway with LD_PRELOAD. The folder that FAULTS names says which: while it has a
 * file "fsync", no file whose name ends as that says reaches the disk; while it has a file "read", nothing is read at the
 * offset that it names, after an ending as before and a blank; while it has a file
 * "hang", nobody who tries to reach the disk comes back, and each adds a byte to it; a file "clock"
 * has the seconds by which the wall clock is wrong, or "=" and the milliseconds since 1970 at which it stands still; while it
 * has a file "memory", nothing is given to whoever asks the C library for as many bytes as that says, or more. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static int open_control(const char *name, int flags) {
    const char *folder = getenv("FAULTS");
    char path[4096];
    if (folder == NULL || snprintf(path, sizeof path, "%s/%s", folder, name) >= (int)sizeof path)
        return -1;
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags | O_CLOEXEC, 0600);
}

static int sync_file(long call, int file) {
    int hang = open_control("hang", O_WRONLY | O_APPEND);
    while (hang >= 0 && write(hang, ".", 1) == 1)
        pause();
    int control = open_control("fsync", O_RDONLY);
    if (control < 0)
        return (int)syscall(call, file);
    char ending[64] = {0}, link[32], path[4096] = {0};
    ssize_t length = read(control, ending, sizeof ending - 1);
    close(control);
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t named = readlink(link, path, sizeof path - 1);
    if (length < 0 || named < length || strcmp(path + named - length, ending) != 0)
        return (int)syscall(call, file);
    errno = EIO;
    return -1;
}

ssize_t pread64(int file, void *bytes, size_t count, off64_t offset) {
    int control = open_control("read", O_RDONLY);
    if (control >= 0) {
        char text[64] = {0}, link[32], path[4096] = {0};
        ssize_t length = read(control, text, sizeof text - 1);
        close(control);
        char *at = strchr(text, ' ');
        snprintf(link, sizeof link, "/proc/self/fd/%d", file);
        ssize_t named = readlink(link, path, sizeof path - 1), ending = at - text;
        if (length > 0 && at != NULL && named >= ending && strncmp(path + named - ending, text, ending) == 0
            && offset == atoll(at + 1)) {
            errno = EIO;
            return -1;
        }
    }
    return (ssize_t)syscall(SYS_pread64, file, bytes, count, offset);
}

int fsync(int file) { return sync_file(SYS_fsync, file); }

int fdatasync(int file) { return sync_file(SYS_fdatasync, file); }

int clock_gettime(clockid_t clock, struct timespec *now) {
    int failed = (int)syscall(SYS_clock_gettime, clock, now);
    if (failed || clock != CLOCK_REALTIME)
        return failed;
    int error = errno, control = open_control("clock", O_RDONLY);
    if (control >= 0) {
        char text[32] = {0};
        if (read(control, text, sizeof text - 1) > 0 && text[0] == '=') {
            long long millis = atoll(text + 1);
            now->tv_sec = millis / 1000;
            now->tv_nsec = millis % 1000 * 1000000;
        } else {
            now->tv_sec += atol(text);
        }
        close(control);
    }
    errno = error;
    return 0;
}

int gettimeofday(struct timeval *now, void *zone) {
    struct timespec time;
    (void)zone;
    int failed = clock_gettime(CLOCK_REALTIME, &time);
    now->tv_sec = time.tv_sec;
    now->tv_usec = time.tv_nsec / 1000;
    return failed;
}

static void *(*next_malloc)(size_t);
static void *(*next_realloc)(void *, size_t);

static int is_refused(size_t bytes) {
    if (bytes < 65536)
        return 0;
    int error = errno, control = open_control("memory", O_RDONLY);
    char text[32] = {0};
    ssize_t length = control < 0 ? -1 : read(control, text, sizeof text - 1);
    if (control >= 0)
        close(control);
    errno = error;
    return length > 0 && bytes >= (size_t)atoll(text);
}

void *malloc(size_t bytes) {
    if (next_malloc == NULL)
        next_malloc = (void *(*)(size_t))dlsym(RTLD_NEXT, "malloc");
    return is_refused(bytes) ? NULL : next_malloc(bytes);
}

void *realloc(void *old, size_t bytes) {
    if (next_realloc == NULL)
        next_realloc = (void *(*)(void *, size_t))dlsym(RTLD_NEXT, "realloc");
    return is_refused(bytes) ? NULL : next_realloc(old, bytes);
}
