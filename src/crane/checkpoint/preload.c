/* What is preloaded into CRIU, and only there.
 *
 * Limits of other users' processes without CAP_SYS_RESOURCE. CRIU asks for the
 * limits of every process with prlimit(2). The kernel refuses that for a process
 * of another user to a root that lacks CAP_SYS_RESOURCE, as in many containers and
 * virtual machines, although anybody allowed to trace the process can read the
 * same numbers in /proc/PID/limits. The answer comes from there when the kernel
 * refuses.
 *
 * No traces in the program's files. CRIU runs among them, and would leave a cache
 * in /run and make directories in /tmp for a moment; a program could see both, and
 * other replicas have none. The cache goes to /.crane, which is Crane's, and the
 * directories to /dev, which every replica has anew.
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
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* In the order of the RLIMIT_ numbers, as /proc names them. */
static const char *const names[] = {
    "Max cpu time",       "Max file size",       "Max data size",     "Max stack size",
    "Max core file size", "Max resident set",    "Max processes",     "Max open files",
    "Max locked memory",  "Max address space",   "Max file locks",    "Max pending signals",
    "Max msgqueue size",  "Max nice priority",   "Max realtime priority",
    "Max realtime timeout",
};
/* The two values begin behind the name's column. */
#define NAME_COLUMN 26

/* The C library's syscall() is replaced below, so this goes to the kernel itself. */
static long kernel(long number, long a, long b, long c, long d, long e, long f)
{
    long result;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = f;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
                     : "rcx", "r11", "memory");
    if ((unsigned long)result > -4096UL) {
        errno = (int)-result;
        return -1;
    }
    return result;
}

static unsigned long long value(const char *text)
{
    return strcmp(text, "unlimited") == 0 ? ~0ULL : strtoull(text, NULL, 10);
}

static int from_proc(pid_t pid, unsigned which, struct rlimit64 *to)
{
    char path[64], line[256], soft[32], hard[32];
    int found = -1;
    snprintf(path, sizeof path, "/proc/%d/limits", (int)pid);
    FILE *file = fopen(path, "re");
    if (file == NULL)
        return -1;
    size_t length = strlen(names[which]);
    while (found < 0 && fgets(line, sizeof line, file) != NULL) {
        if (strncmp(line, names[which], length) != 0 || line[length] != ' ')
            continue;
        if (strlen(line) <= NAME_COLUMN)
            break;
        if (sscanf(line + NAME_COLUMN, "%31s %31s", soft, hard) == 2) {
            to->rlim_cur = value(soft);
            to->rlim_max = value(hard);
            found = 0;
        }
    }
    fclose(file);
    return found;
}

int prlimit64(pid_t pid, enum __rlimit_resource which, const struct rlimit64 *new_limit,
              struct rlimit64 *old_limit)
{
    long result = kernel(SYS_prlimit64, pid, (long)which, (long)new_limit, (long)old_limit, 0, 0);
    if (result >= 0 || errno != EPERM || new_limit != NULL || old_limit == NULL || pid <= 0 ||
        (unsigned)which >= sizeof names / sizeof *names)
        return (int)result;
    if (from_proc(pid, (unsigned)which, old_limit) == 0)
        return 0;
    errno = EPERM;
    return -1;
}

int prlimit(pid_t pid, enum __rlimit_resource which, const struct rlimit *new_limit,
            struct rlimit *old_limit) __attribute__((alias("prlimit64")));

/* CRIU asks by number. */
long syscall(long number, ...)
{
    va_list list;
    va_start(list, number);
    long a = va_arg(list, long), b = va_arg(list, long), c = va_arg(list, long);
    long d = va_arg(list, long), e = va_arg(list, long), f = va_arg(list, long);
    va_end(list);
    if (number == SYS_prlimit64)
        return prlimit64((pid_t)a, (enum __rlimit_resource)b, (const struct rlimit64 *)c,
                         (struct rlimit64 *)d);
    return kernel(number, a, b, c, d, e, f);
}

/* Where a file goes that CRIU would make among the program's. */
static const char *moved(const char *path, char room[PATH_MAX])
{
    static const char from[] = "/run/criu.kdat";
    if (path == NULL || strncmp(path, from, sizeof from - 1) != 0)
        return path;
    snprintf(room, PATH_MAX, "/.crane/%s", path + sizeof "/run/" - 1);
    return room;
}

int open(const char *path, int flags, ...)
{
    char room[PATH_MAX];
    mode_t mode = 0;
    if (flags & (O_CREAT | O_TMPFILE)) {
        va_list list;
        va_start(list, flags);
        mode = va_arg(list, mode_t);
        va_end(list);
    }
    return (int)kernel(SYS_openat, AT_FDCWD, (long)moved(path, room), flags, mode, 0, 0);
}

int open64(const char *path, int flags, ...) __attribute__((alias("open")));

int unlink(const char *path)
{
    char room[PATH_MAX];
    return (int)kernel(SYS_unlinkat, AT_FDCWD, (long)moved(path, room), 0, 0, 0, 0);
}

int rename(const char *old, const char *new)
{
    char first[PATH_MAX], second[PATH_MAX];
    return (int)kernel(SYS_renameat, AT_FDCWD, (long)moved(old, first), AT_FDCWD,
                       (long)moved(new, second), 0, 0);
}

char *mkdtemp(char *template)
{
    char *(*real)(char *) = (char *(*)(char *))dlsym(RTLD_NEXT, "mkdtemp");
    if (strncmp(template, "/tmp/", 5) == 0)
        memcpy(template, "/dev/", 5);
    return real(template);
}
