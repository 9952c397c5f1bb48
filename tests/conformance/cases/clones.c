/* clone(2) where it makes a process, by name and by number. */
#include "conformance.h"
#include <sched.h>
#include <sys/syscall.h>

static int child(void *argument) {
    say("in the child");
    return (int)(intptr_t)argument;
}

static void ended(pid_t pid) {
    int status = -1;
    NEED(pid > 0);
    NEED(waitpid(pid, &status, 0) == pid);
    RESULT(WIFEXITED(status));
    RESULT(WEXITSTATUS(status));
}

CASE(by_name) {
    static char stack[65536] __attribute__((aligned(16)));
    ended(clone(child, stack + sizeof stack, SIGCHLD, (void *)7));
}

CASE(by_number) {
    pid_t pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        _exit(8);
    ended(pid);
    pid = syscall(SYS_fork);
    if (pid == 0)
        _exit(9);
    ended(pid);
}
