/* What the cases of a family share; see ../oracle.py for the rules. */
#ifndef CONFORMANCE_H
#define CONFORMANCE_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <dirent.h>
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

struct conformance_case {
    const char *name;
    void (*run)(void);
};

static struct conformance_case conformance_cases[512];
static int conformance_count;
static const char *conformance_name = "?";

__attribute__((unused)) static struct conformance_case conformance_entry(const char *name,
                                                                         void (*run)(void)) {
    struct conformance_case entry = {name, run};
    return entry;
}

/* Defines a case. They run in the order in which they are written. */
#define CASE(name)                                                             \
    static void case_##name(void);                                             \
    __attribute__((constructor)) static void add_##name(void) {                \
        conformance_cases[conformance_count++] =                               \
            conformance_entry(#name, case_##name);                     \
    }                                                                          \
    static void case_##name(void)

/* One line, in one write: nothing is lost and nothing is mixed. */
__attribute__((format(printf, 1, 2), unused)) static void say(const char *format, ...) {
    char line[512];
    int used = snprintf(line, sizeof line, "%s: ", conformance_name);
    va_list arguments;
    va_start(arguments, format);
    used += vsnprintf(line + used, sizeof line - used - 1, format, arguments);
    va_end(arguments);
    line[used++] = '\n';
    if (write(1, line, used) != used)
        _exit(99);
}

/* A number. */
__attribute__((unused)) static void result(const char *what, long value) {
    say("%s = %ld", what, value);
}

/* A result of the pthread kind: 0 or an error number, by its name. */
__attribute__((unused)) static void code(const char *what, int value) {
    const char *name = value > 0 ? strerrorname_np(value) : NULL;
    if (name != NULL)
        say("%s = %s", what, name);
    else
        say("%s = %d", what, value);
}

/* A result of the system call kind: a value, or -1 with errno by its name. */
__attribute__((unused)) static void call_result(const char *what, long value) {
    int error = errno;
    if (value == -1)
        say("%s = -1 %s", what, strerrorname_np(error));
    else
        say("%s = %ld", what, value);
}

/* The source text of a call is its name. */
#define CODE(...) code(#__VA_ARGS__, (__VA_ARGS__))
#define CALL(...) call_result(#__VA_ARGS__, (long)(__VA_ARGS__))
#define RESULT(...) result(#__VA_ARGS__, (long)(__VA_ARGS__))

/* What must not fail for the case to make sense. */
#define NEED(condition)                                                        \
    do {                                                                       \
        if (!(condition)) {                                                    \
            say("line %d needs " #condition, __LINE__);                        \
            _exit(98);                                                         \
        }                                                                      \
    } while (0)

/* The time `ms` milliseconds from now on a clock (negative: before now). */
__attribute__((unused)) static struct timespec in_ms_on(clockid_t id, long ms) {
    struct timespec at;
    clock_gettime(id, &at);
    long long ns = at.tv_sec * 1000000000ll + at.tv_nsec + ms * 1000000ll;
    at.tv_sec = ns / 1000000000;
    at.tv_nsec = ns % 1000000000;
    return at;
}

__attribute__((unused)) static struct timespec in_ms(long ms) {
    return in_ms_on(CLOCK_REALTIME, ms);
}

__attribute__((unused)) static long now_ms(void) {
    struct timespec at;
    clock_gettime(CLOCK_MONOTONIC, &at);
    return at.tv_sec * 1000 + at.tv_nsec / 1000000;
}

/* The state letter in a stat file of /proc, 0 when it is gone. */
__attribute__((unused)) static char state_in(const char *path) {
    char text[256];
    FILE *file = fopen(path, "re");
    size_t length = file != NULL ? fread(text, 1, sizeof text - 1, file) : 0;
    if (file != NULL)
        fclose(file);
    text[length] = 0;
    const char *end = strrchr(text, ')');
    return end != NULL ? end[2] : 0;
}

/* Whether a thread of `pid` other than this one does something. */
__attribute__((unused)) static bool is_busy(pid_t pid) {
    char path[64];
    bool busy = false;
    snprintf(path, sizeof path, "/proc/%d/task", pid);
    DIR *tasks = opendir(path);
    for (struct dirent *one; tasks != NULL && (one = readdir(tasks)) != NULL;) {
        if (one->d_name[0] == '.')
            continue;
        snprintf(path, sizeof path, "/proc/%d/task/%d/stat", pid, atoi(one->d_name));
        char state = state_in(path);
        busy |= atoi(one->d_name) != gettid() && (state == 'R' || state == 'D');
        snprintf(path, sizeof path, "/proc/%d/task/%d/children", pid, atoi(one->d_name));
        FILE *children = fopen(path, "re");
        int child;
        while (children != NULL && fscanf(children, "%d", &child) == 1)
            busy |= is_busy(child);
        if (children != NULL)
            fclose(children);
    }
    if (tasks != NULL)
        closedir(tasks);
    return busy;
}

/* Returns when every other thread and child has come to its wait. Under the
 * interposer time goes on only when all wait, so there sleeping is enough; the
 * machine may be busy, so natively it is not. */
__attribute__((unused)) static void settle(void) {
    const char *preloaded = getenv("LD_PRELOAD");
    usleep(20000);
    if (preloaded != NULL && strstr(preloaded, "interposer") != NULL)
        return;
    /* Some cases have threads that never wait. */
    for (int quiet = 0, looks = 0; quiet < 3 && looks < 100; quiet++, looks++) {
        usleep(2000);
        if (is_busy(getpid()))
            quiet = -1;
    }
}

/* Memory that forked children share. */
__attribute__((unused)) static void *shared_page(void) {
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    NEED(page != MAP_FAILED);
    return page;
}

/* Runs a part of a case in a process of its own and says how that ended. */
__attribute__((unused)) static void in_child(void (*run)(void)) {
    pid_t child = fork();
    NEED(child >= 0);
    if (child == 0) {
        run();
        _exit(0);
    }
    int status = 0;
    NEED(waitpid(child, &status, 0) == child);
    if (WIFSIGNALED(status))
        say("child ended by SIG%s", sigabbrev_np(WTERMSIG(status)));
    else if (WEXITSTATUS(status) != 0)
        say("child ended with %d", WEXITSTATUS(status));
}

int main(int argc, char **argv) {
    for (int i = 0; i < conformance_count; i++) {
        bool wanted = argc < 2;
        for (int a = 1; a < argc; a++)
            wanted |= strcmp(argv[a], conformance_cases[i].name) == 0;
        if (!wanted)
            continue;
        conformance_name = conformance_cases[i].name;
        say("begins");
        conformance_cases[i].run();
    }
    return 0;
}

#endif
