/* Preloaded into a process, fails a quarter of all writes to files below the folder FAIL_UNDER. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static int fails(int file) {
    char link[64], path[4096];
    struct timespec now;
    const char *folder = getenv("FAIL_UNDER");
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, sizeof path - 1);
    if (!folder || length < 0) return 0;
    path[length] = 0;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return !strncmp(path, folder, strlen(folder)) && now.tv_nsec / 100 % 4 == 0;
}

ssize_t write(int file, const void *content, size_t size) {
    ssize_t (*real)(int, const void *, size_t) = dlsym(RTLD_NEXT, "write");
    if (fails(file)) { errno = EIO; return -1; }
    return real(file, content, size);
}
