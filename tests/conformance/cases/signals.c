/* Signals: actions, masks, waiting, sending, ends by them. */
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
#pragma GCC diagnostic ignored "-Wdeprecated"
#include "conformance.h"

#include <fcntl.h>
#include <poll.h>
#include <semaphore.h>
#include <setjmp.h>
#include <sys/resource.h>
#include <sys/select.h>
#include <sys/syscall.h>
#include <ucontext.h>

static volatile int count;
static volatile int last;
static volatile int last_code;
static volatile long last_value;
static volatile int order[16];

static void note(int signal) {
    if (count < 16)
        order[count] = signal;
    count++;
    last = signal;
}

static void note_info(int signal, siginfo_t *info, void *context) {
    (void)context;
    note(signal);
    last_code = info->si_code;
    last_value = info->si_value.sival_int;
}

static void on(int signal, void (*handler)(int), int flags) {
    struct sigaction action = {.sa_handler = handler, .sa_flags = flags};
    NEED(sigaction(signal, &action, NULL) == 0);
}

static void on_info(int signal, int flags) {
    struct sigaction action = {.sa_sigaction = note_info, .sa_flags = flags | SA_SIGINFO};
    NEED(sigaction(signal, &action, NULL) == 0);
}

static void fresh(void) {
    count = last = last_code = 0;
    last_value = 0;
    sigset_t none;
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static sigset_t set_of(int first, ...) {
    sigset_t set;
    sigemptyset(&set);
    va_list more;
    va_start(more, first);
    for (int signal = first; signal != 0; signal = va_arg(more, int))
        sigaddset(&set, signal);
    va_end(more);
    return set;
}

CASE(raise_runs_the_handler) {
    fresh();
    on(SIGUSR1, note, 0);
    CALL(raise(SIGUSR1));
    CALL(kill(getpid(), SIGUSR1));
    CALL(pthread_kill(pthread_self(), SIGUSR1));
    CALL(syscall(SYS_tgkill, getpid(), gettid(), SIGUSR1));
    RESULT(count);
}

CASE(errors) {
    CALL(raise(0));
    CALL(raise(65));
    CALL(raise(-1));
    CALL(kill(getpid(), 0));
    CALL(kill(getpid(), 99));
    CALL(kill(999999, SIGUSR1));
    CALL(kill(-999999, SIGUSR1));
    CALL(killpg(-1, SIGUSR1));
    CALL(sigqueue(999999, SIGUSR1, (union sigval){0}));
    CODE(pthread_kill(pthread_self(), 99));
    CODE(pthread_kill(pthread_self(), 0));
    struct sigaction action = {.sa_handler = note};
    CALL(sigaction(SIGKILL, &action, NULL));
    CALL(sigaction(SIGSTOP, NULL, &action));
    CALL(sigaction(0, NULL, &action));
    CALL(sigaction(65, NULL, &action));
    CALL(signal(SIGKILL, note) == SIG_ERR ? -1 : 0);
    sigset_t set = set_of(SIGUSR1, 0);
    CALL(sigprocmask(77, &set, NULL));
    CALL(sigprocmask(77, NULL, NULL));
    CODE(pthread_sigmask(77, &set, NULL));
    CALL(syscall(SYS_tgkill, getpid(), -1, SIGUSR1));
    CALL(syscall(SYS_tgkill, getpid(), 999999, SIGUSR1));
    CALL(sighold(99));
}

CASE(actions_are_shown_as_they_were_set) {
    struct sigaction action = {.sa_handler = note, .sa_flags = SA_RESTART | SA_NODEFER};
    sigaddset(&action.sa_mask, SIGUSR2);
    sigaddset(&action.sa_mask, SIGSEGV);
    NEED(sigaction(SIGUSR1, &action, NULL) == 0);
    struct sigaction seen;
    NEED(sigaction(SIGUSR1, NULL, &seen) == 0);
    RESULT(seen.sa_handler == note);
    RESULT(seen.sa_flags & ~0x04000000);
    RESULT(sigismember(&seen.sa_mask, SIGUSR2));
    RESULT(sigismember(&seen.sa_mask, SIGSEGV));
    RESULT(sigismember(&seen.sa_mask, SIGTERM));
    for (int s = 1; s < 32; s++) {
        if (s == SIGUSR1 || sigaction(s, NULL, &seen) != 0)
            continue;
        if (seen.sa_handler != SIG_DFL)
            result("not the default", s);
    }
    RESULT(signal(SIGUSR1, SIG_IGN) == note);
    RESULT(signal(SIGUSR1, SIG_DFL) == SIG_IGN);
    RESULT(sigset(SIGUSR1, note) == SIG_DFL);
    RESULT(sigset(SIGUSR1, SIG_HOLD) == note);
    RESULT(sigset(SIGUSR1, SIG_DFL) == SIG_HOLD);
}

CASE(an_alternate_stack_does_not_show) {
    stack_t seen = {.ss_flags = 77};
    CALL(sigaltstack(NULL, &seen));
    RESULT(seen.ss_flags);
    char *memory = malloc(65536);
    stack_t own = {.ss_sp = memory, .ss_size = 65536};
    CALL(sigaltstack(&own, &seen));
    CALL(sigaltstack(NULL, &seen));
    RESULT(seen.ss_sp == memory);
    RESULT(seen.ss_size);
    own.ss_size = 100;
    CALL(sigaltstack(&own, NULL));
    own.ss_flags = SS_DISABLE;
    CALL(sigaltstack(&own, &seen));
    CALL(sigaltstack(NULL, &seen));
    RESULT(seen.ss_flags);
    free(memory);
}

CASE(masks_hold_signals_back) {
    fresh();
    on(SIGUSR1, note, 0);
    on(SIGUSR2, note, 0);
    sigset_t both = set_of(SIGUSR1, SIGUSR2, 0), old, pending;
    CALL(sigprocmask(SIG_BLOCK, &both, &old));
    RESULT(sigismember(&old, SIGUSR1));
    raise(SIGUSR2);
    raise(SIGUSR1);
    raise(SIGUSR1);
    RESULT(count);
    CALL(sigpending(&pending));
    RESULT(sigismember(&pending, SIGUSR1));
    RESULT(sigismember(&pending, SIGTERM));
    sigset_t one = set_of(SIGUSR1, 0);
    CALL(sigprocmask(SIG_UNBLOCK, &one, &old));
    RESULT(sigismember(&old, SIGUSR2));
    RESULT(count);
    CALL(sigprocmask(SIG_SETMASK, &old, NULL));
    CALL(sigprocmask(SIG_UNBLOCK, &both, NULL));
    RESULT(count);
    RESULT(last);
}

CASE(what_cannot_be_blocked) {
    fresh();
    sigset_t all, now;
    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    sigprocmask(SIG_SETMASK, NULL, &now);
    for (int s = 1; s <= 64; s++)
        if (!sigismember(&now, s) && s != 32 && s != 33)
            result("not blocked", s);
    fresh();
}

CASE(old_style_masks) {
    fresh();
    RESULT(sigblock((1 << (SIGUSR1 - 1))));
    RESULT(siggetmask() == (1 << (SIGUSR1 - 1)));
    RESULT(sigsetmask(0) == (1 << (SIGUSR1 - 1)));
    CALL(sighold(SIGUSR2));
    RESULT(siggetmask() == (1 << (SIGUSR2 - 1)));
    CALL(sigrelse(SIGUSR2));
    RESULT(siggetmask());
    CALL(sigignore(SIGUSR2));
    raise(SIGUSR2);
    on(SIGUSR2, SIG_DFL, 0);
}

static void in_handler(int signal) {
    sigset_t now;
    sigprocmask(SIG_SETMASK, NULL, &now);
    say("handler of %d: %d %d %d", signal, sigismember(&now, SIGUSR1),
        sigismember(&now, SIGUSR2), sigismember(&now, SIGCHLD));
    note(signal);
    if (signal == SIGUSR1 && count < 3) {
        raise(SIGUSR1);
        raise(SIGUSR2);
        say("still in the first");
    }
}

CASE(handlers_run_with_their_mask) {
    fresh();
    struct sigaction action = {.sa_handler = in_handler};
    sigaddset(&action.sa_mask, SIGUSR2);
    sigaddset(&action.sa_mask, SIGCHLD);
    sigaction(SIGUSR1, &action, NULL);
    on(SIGUSR2, in_handler, 0);
    raise(SIGUSR1);
    RESULT(count);
    sigset_t now;
    sigprocmask(SIG_SETMASK, NULL, &now);
    RESULT(sigisemptyset(&now));
}

CASE(nodefer_and_resethand) {
    fresh();
    on(SIGUSR1, in_handler, SA_NODEFER);
    on(SIGUSR2, in_handler, 0);
    raise(SIGUSR1);
    RESULT(count);
    on(SIGUSR2, note, SA_RESETHAND);
    raise(SIGUSR2);
    struct sigaction seen;
    sigaction(SIGUSR2, NULL, &seen);
    RESULT(seen.sa_handler == SIG_DFL);
}

static sigjmp_buf place;

static void jump(int signal) {
    note(signal);
    siglongjmp(place, 5);
}

CASE(jumping_out_of_a_handler_restores_the_mask) {
    fresh();
    on(SIGUSR1, jump, 0);
    for (int i = 0; i < 3; i++) {
        int value = sigsetjmp(place, 1);
        if (value == 0)
            raise(SIGUSR1);
        RESULT(value);
    }
    sigset_t now;
    sigprocmask(SIG_SETMASK, NULL, &now);
    RESULT(sigisemptyset(&now));
    if (sigsetjmp(place, 0) == 0)
        raise(SIGUSR1);
    sigprocmask(SIG_SETMASK, NULL, &now);
    RESULT(sigismember(&now, SIGUSR1));
    fresh();
}

CASE(queued_signals_keep_their_values) {
    fresh();
    on_info(SIGRTMIN, 0);
    on_info(SIGUSR1, 0);
    sigset_t set = set_of(SIGRTMIN, SIGUSR1, 0);
    sigprocmask(SIG_BLOCK, &set, NULL);
    for (int i = 1; i <= 3; i++) {
        CALL(sigqueue(getpid(), SIGRTMIN, (union sigval){.sival_int = i * 10}));
        CALL(sigqueue(getpid(), SIGUSR1, (union sigval){.sival_int = i}));
    }
    siginfo_t info;
    struct timespec none = {0, 0};
    for (int i = 0; i < 6; i++) {
        int signal = sigtimedwait(&set, &info, &none);
        call_result("signal", signal == SIGRTMIN ? 1000 : signal);
        if (signal > 0)
            say("code %d value %d pid %d", info.si_code, info.si_value.sival_int,
                info.si_pid == getpid());
    }
    kill(getpid(), SIGUSR1);
    NEED(sigwaitinfo(&set, &info) == SIGUSR1);
    RESULT(info.si_code);
    pthread_kill(pthread_self(), SIGUSR1);
    NEED(sigwaitinfo(&set, &info) == SIGUSR1);
    RESULT(info.si_code);
    fresh();
}

CASE(sigwait_takes_what_is_blocked) {
    fresh();
    sigset_t set = set_of(SIGUSR1, SIGUSR2, SIGCHLD, 0);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGUSR2);
    int got = 0;
    CODE(sigwait(&set, &got));
    RESULT(got);
    struct timespec soon = {0, 20000000}, bad = {0, -1};
    CALL(sigtimedwait(&set, NULL, &soon));
    CALL(sigtimedwait(&set, NULL, &bad));
    pid_t child = fork();
    if (child == 0)
        _exit(3);
    siginfo_t info;
    CALL(sigwaitinfo(&set, &info));
    RESULT(info.si_code == CLD_EXITED);
    RESULT(info.si_status);
    RESULT(info.si_pid == child);
    NEED(waitpid(child, NULL, 0) == child);
    on(SIGUSR1, SIG_IGN, 0);
    sigset_t one = set_of(SIGUSR1, 0);
    raise(SIGUSR1);
    CALL(sigtimedwait(&one, NULL, &soon));
    on(SIGUSR1, SIG_DFL, 0);
    fresh();
}

static void *send_later(void *target) {
    settle();
    if (target != NULL)
        pthread_kill(*(pthread_t *)target, SIGUSR1);
    else
        kill(getpid(), SIGUSR1);
    return NULL;
}

static void later(pthread_t *thread, pthread_t *target) {
    NEED(pthread_create(thread, NULL, send_later, target) == 0);
}

CASE(waits_end_with_EINTR) {
    fresh();
    on(SIGUSR1, note, 0);
    pthread_t self = pthread_self(), helper;
    int ends[2];
    char byte;
    NEED(pipe(ends) == 0);
    later(&helper, &self);
    CALL(pause());
    pthread_join(helper, NULL);
    later(&helper, &self);
    CALL(read(ends[0], &byte, 1));
    pthread_join(helper, NULL);
    later(&helper, &self);
    CALL(poll(NULL, 0, 2000));
    pthread_join(helper, NULL);
    later(&helper, &self);
    struct timespec length = {2, 0}, rest = {0, 0};
    CALL(nanosleep(&length, &rest));
    RESULT(rest.tv_sec == 1);
    pthread_join(helper, NULL);
    later(&helper, &self);
    RESULT(sleep(5));
    pthread_join(helper, NULL);
    later(&helper, &self);
    CALL(select(0, NULL, NULL, NULL, &(struct timeval){2, 0}));
    pthread_join(helper, NULL);
    sem_t semaphore;
    sem_init(&semaphore, 0, 0);
    later(&helper, &self);
    CALL(sem_wait(&semaphore));
    pthread_join(helper, NULL);
    RESULT(count);
    close(ends[0]);
    close(ends[1]);
}

static void *write_later(void *end) {
    settle();
    kill(getpid(), SIGUSR1);
    settle();
    NEED(write(*(int *)end, "x", 1) == 1);
    return NULL;
}

CASE(waits_go_on_with_SA_RESTART) {
    fresh();
    on(SIGUSR1, note, SA_RESTART);
    pthread_t self = pthread_self(), helper;
    int ends[2];
    char byte = 0;
    NEED(pipe(ends) == 0);
    sigset_t set = set_of(SIGUSR1, 0);
    NEED(pthread_create(&helper, NULL, write_later, &ends[1]) == 0);
    CALL(read(ends[0], &byte, 1));
    RESULT(byte);
    RESULT(count);
    pthread_join(helper, NULL);
    (void)set;
    later(&helper, &self);
    CALL(poll(NULL, 0, 2000));
    pthread_join(helper, NULL);
    pid_t child = fork();
    if (child == 0) {
        settle();
        kill(getppid(), SIGUSR1);
        settle();
        _exit(4);
    }
    int status = 0;
    RESULT(waitpid(child, &status, 0) == child);
    RESULT(WEXITSTATUS(status));
    RESULT(count);
    CALL(siginterrupt(SIGUSR1, 1));
    later(&helper, &self);
    CALL(read(ends[0], &byte, 1));
    pthread_join(helper, NULL);
}

CASE(an_ignored_signal_ends_no_wait) {
    fresh();
    on(SIGUSR1, SIG_IGN, 0);
    pthread_t self = pthread_self(), helper;
    later(&helper, &self);
    long before = now_ms();
    CALL(poll(NULL, 0, 200));
    RESULT(now_ms() - before >= 200);
    pthread_join(helper, NULL);
    on(SIGUSR1, SIG_DFL, 0);
}

CASE(sigsuspend_and_ppoll_change_the_mask) {
    fresh();
    on(SIGUSR1, note, 0);
    sigset_t blocked = set_of(SIGUSR1, 0), none, now;
    sigemptyset(&none);
    sigprocmask(SIG_BLOCK, &blocked, NULL);
    raise(SIGUSR1);
    CALL(sigsuspend(&none));
    RESULT(count);
    sigprocmask(SIG_SETMASK, NULL, &now);
    RESULT(sigismember(&now, SIGUSR1));
    raise(SIGUSR1);
    CALL(ppoll(NULL, 0, &(struct timespec){2, 0}, &none));
    RESULT(count);
    raise(SIGUSR1);
    CALL(pselect(0, NULL, NULL, NULL, &(struct timespec){0, 1000000}, &blocked));
    RESULT(count);
    CALL(sigrelse(SIGUSR1));
    RESULT(count);
}

static void *blocked_thread(void *done) {
    sigset_t set = set_of(SIGUSR1, 0);
    pthread_sigmask(SIG_BLOCK, &set, NULL);
    sem_post(done);
    settle();
    settle();
    return (void *)(long)count;
}

static void *open_thread(void *done) {
    sigset_t set = set_of(SIGUSR1, 0);
    pthread_sigmask(SIG_UNBLOCK, &set, NULL);
    sem_post(done);
    poll(NULL, 0, 500);
    return (void *)(long)(errno == EINTR);
}

CASE(a_thread_that_lets_it_through_takes_it) {
    fresh();
    on(SIGUSR1, note, 0);
    sigset_t set = set_of(SIGUSR1, 0);
    sigprocmask(SIG_BLOCK, &set, NULL);
    sem_t done;
    sem_init(&done, 0, 0);
    pthread_t blocked, open;
    pthread_create(&blocked, NULL, blocked_thread, &done);
    pthread_create(&open, NULL, open_thread, &done);
    sem_wait(&done);
    sem_wait(&done);
    settle();
    kill(getpid(), SIGUSR1);
    void *took;
    pthread_join(open, &took);
    RESULT((long)took);
    pthread_join(blocked, NULL);
    RESULT(count);
    fresh();
}

static int *volatile nowhere;
static void by_null(void) { *nowhere = 1; }
CASE(a_bad_address_ends_the_process) { in_child(by_null); }

static volatile int zero;
static void by_zero(void) { zero = 100 / zero; }
CASE(a_division_by_zero_ends_the_process) { in_child(by_zero); }

static void by_abort(void) { abort(); }
CASE(abort_ends_the_process) { in_child(by_abort); }

static void by_abort_ignored(void) {
    signal(SIGABRT, SIG_IGN);
    sigset_t set = set_of(SIGABRT, 0);
    sigprocmask(SIG_BLOCK, &set, NULL);
    abort();
}
CASE(abort_cannot_be_ignored) { in_child(by_abort_ignored); }

static void by_abort_handled(void) {
    on(SIGABRT, in_handler, 0);
    abort();
}
CASE(abort_calls_its_handler_first) {
    fresh();
    in_child(by_abort_handled);
}

static void by_illegal(void) { __builtin_trap(); }
CASE(an_illegal_instruction_ends_the_process) { in_child(by_illegal); }

__attribute__((noinline)) static int deep(int n) {
    volatile char page[4096];
    page[0] = (char)n;
    return n == -1 ? 0 : deep(n + 1) + page[0];
}
static void by_overflow(void) { RESULT(deep(0)); }
CASE(an_exhausted_stack_ends_the_process) { in_child(by_overflow); }

static void by_pipe(void) {
    int ends[2];
    NEED(pipe(ends) == 0);
    close(ends[0]);
    CALL(write(ends[1], "x", 1));
}
CASE(a_broken_pipe_ends_the_process) { in_child(by_pipe); }

static void by_limit(void) {
    setrlimit(RLIMIT_FSIZE, &(struct rlimit){10, 10});
    int fd = open("limited", O_CREAT | O_WRONLY | O_TRUNC, 0600);
    CALL(write(fd, "0123456789abcdef", 16));
    CALL(write(fd, "x", 1));
}
CASE(a_file_beyond_its_limit_ends_the_process) { in_child(by_limit); }

static void by_term(void) { kill(getpid(), SIGTERM); }
CASE(the_default_of_SIGTERM_ends_the_process) { in_child(by_term); }
static void by_kill(void) { kill(getpid(), SIGKILL); }
CASE(SIGKILL_ends_the_process) { in_child(by_kill); }
static void by_real_time(void) { raise(SIGRTMIN + 3); }
CASE(a_real_time_signal_ends_the_process) {
    pid_t child = fork();
    if (child == 0) {
        by_real_time();
        _exit(0);
    }
    int status;
    waitpid(child, &status, 0);
    RESULT(WTERMSIG(status) - SIGRTMIN);
}
static void harmless(void) {
    raise(SIGCHLD);
    raise(SIGURG);
    raise(SIGWINCH);
    raise(SIGCONT);
    _exit(9);
}
CASE(harmless_defaults) { in_child(harmless); }

static void fault_handler(int signal, siginfo_t *info, void *context) {
    (void)context;
    say("fault %d code %d at %p", signal, info->si_code, info->si_addr);
    _exit(5);
}
static void handled_fault(void) {
    struct sigaction action = {.sa_sigaction = fault_handler, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    *(volatile int *)0x10 = 1;
}
CASE(a_fault_comes_to_its_handler) { in_child(handled_fault); }

static sigjmp_buf fault_place;
static void fault_jump(int signal) { siglongjmp(fault_place, signal); }
CASE(a_fault_can_be_jumped_out_of) {
    fresh();
    on(SIGSEGV, fault_jump, 0);
    for (int i = 0; i < 2; i++) {
        int value = sigsetjmp(fault_place, 1);
        if (value == 0)
            by_null();
        RESULT(value);
    }
    on(SIGSEGV, SIG_DFL, 0);
}

static void overflow_handler(int signal) {
    say("overflow %d", signal);
    _exit(6);
}
static void handled_overflow(void) {
    stack_t own = {.ss_sp = malloc(65536), .ss_size = 65536};
    sigaltstack(&own, NULL);
    on(SIGSEGV, overflow_handler, SA_ONSTACK);
    RESULT(deep(0));
}
CASE(an_exhausted_stack_comes_to_its_handler) { in_child(handled_overflow); }

static void ignored_fault(void) {
    signal(SIGSEGV, SIG_IGN);
    by_null();
}
CASE(a_fault_cannot_be_ignored) { in_child(ignored_fault); }
static void blocked_fault(void) {
    sigset_t set = set_of(SIGSEGV, 0);
    on(SIGSEGV, note, 0);
    sigprocmask(SIG_BLOCK, &set, NULL);
    by_null();
}
CASE(a_fault_cannot_be_blocked) { in_child(blocked_fault); }

static void *faulty(void *unused) {
    settle();
    by_null();
    return unused;
}
static void fault_in_thread(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, faulty, NULL);
    pause();
}
CASE(a_fault_in_a_thread_ends_the_process) { in_child(fault_in_thread); }

static pthread_t main_thread;
static void *outlives(void *unused) {
    pthread_join(main_thread, NULL);
    fresh();
    on(SIGUSR1, note, 0);
    kill(getpid(), SIGUSR1);
    pid_t child = fork();
    if (child == 0) {
        settle();
        kill(getppid(), SIGUSR1);
        _exit(0);
    }
    CALL(pause());
    RESULT(count);
    waitpid(child, NULL, 0);
    _exit(3);
    return unused;
}
static void first_thread_ends(void) {
    main_thread = pthread_self();
    pthread_t thread;
    pthread_create(&thread, NULL, outlives, NULL);
    pthread_exit(NULL);
}
CASE(a_process_without_its_first_thread_takes_signals) { in_child(first_thread_ends); }
