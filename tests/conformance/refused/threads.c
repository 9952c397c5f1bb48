/* Threads that the C library does not know: refused, and the program goes on. */
#include "../cases/conformance.h"
#include <linux/futex.h>
#include <linux/sched.h>
#include <sched.h>
#include <sys/syscall.h>

static char stack[65536] __attribute__((aligned(16)));

static int child(void *unused) {
    (void)unused;
    say("not here");
    return 0;
}

CASE(clone_thread) {
    int flags = CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD;
    CALL(clone(child, stack + sizeof stack, flags, NULL));
    CALL(syscall(SYS_clone, flags, stack + sizeof stack, NULL, NULL, 0));
}

CASE(clone3) {
    struct clone_args arguments = {.flags = CLONE_VM, .exit_signal = SIGCHLD};
    CALL(syscall(SYS_clone3, &arguments, sizeof arguments));
}

CASE(futex_waitv) { CALL(syscall(SYS_futex_waitv, NULL, 0, 0, NULL, CLOCK_MONOTONIC)); }

CASE(futex_requeue_pi) {
    static uint32_t word, other;
    CALL(syscall(SYS_futex, &word, FUTEX_WAIT_REQUEUE_PI_PRIVATE, 0, NULL, &other, 0));
    CALL(syscall(SYS_futex, &word, FUTEX_CMP_REQUEUE_PI_PRIVATE, 1, NULL, &other, 0));
}
