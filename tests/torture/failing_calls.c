/* The k-th call that writes to a file below a folder fails, whichever library makes it: to be preloaded, and armed.

   Seen are write, pwrite, writev, fsync and fdatasync. Not seen is what libc does within itself (fwrite), nor
   copy_file_range, sendfile and writes to mapped memory. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/uio.h>
#include <unistd.h>

static char below[PATH_MAX], begun[PATH_MAX];
static long count, at;
static int number;

/* Count from now on; the call `fail_at` fails with errno `error`, after the file `touch` has been made. */
void torture_arm(const char *folder, long fail_at, int error, const char *touch) {
    snprintf(begun, sizeof begun, "%s", touch);
    at = fail_at, number = error, count = 0;
    snprintf(below, sizeof below, "%s/", folder);
}

long torture_count(void) { return count; }

static int fails(int fd) {
    char link[64], path[PATH_MAX];
    int before = errno, file;
    if (!below[0]) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, sizeof path - 1);
    errno = before;
    if (length < 0) return 0;
    path[length] = 0;
    if (strncmp(path, below, strlen(below))) return 0;
    if (__atomic_add_fetch(&count, 1, __ATOMIC_SEQ_CST) != at) return 0;
    if ((file = open(begun, O_CREAT | O_WRONLY, 0644)) >= 0) close(file);
    errno = number;
    return 1;
}

#define SEEN(type, name, parameters, arguments)                         \
    type name parameters {                                              \
        static type(*real) parameters;                                  \
        if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name);           \
        return fails(fd) ? -1 : real arguments;                         \
    }

SEEN(ssize_t, write, (int fd, const void *data, size_t size), (fd, data, size))
SEEN(ssize_t, pwrite, (int fd, const void *data, size_t size, off_t from), (fd, data, size, from))
SEEN(ssize_t, pwrite64, (int fd, const void *data, size_t size, off64_t from), (fd, data, size, from))
SEEN(ssize_t, writev, (int fd, const struct iovec *parts, int parts_count), (fd, parts, parts_count))
SEEN(int, fsync, (int fd), (fd))
SEEN(int, fdatasync, (int fd), (fd))
