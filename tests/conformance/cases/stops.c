/* Stopped processes: who is told, what waits, what goes on. */
#include "conformance.h"
#include <fcntl.h>

static void tell(const char *what, pid_t child, pid_t got, int status) {
    if (got != child)
        call_result(what, got);
    else if (WIFSTOPPED(status))
        say("%s: stopped by SIG%s", what, sigabbrev_np(WSTOPSIG(status)));
    else if (WIFCONTINUED(status))
        say("%s: goes on", what);
    else if (WIFSIGNALED(status))
        say("%s: ended by SIG%s", what, sigabbrev_np(WTERMSIG(status)));
    else
        say("%s: ended with %d", what, WEXITSTATUS(status));
}

static void await(const char *what, pid_t child, int options) {
    int status = 0;
    pid_t got = waitpid(child, &status, options);
    tell(what, child, got, status);
}

/* A child in a group of its own, as a shell makes them. */
static pid_t job(void (*run)(void)) {
    pid_t child = fork();
    NEED(child >= 0);
    setpgid(child, child);
    if (child == 0) {
        setpgid(0, 0);
        run();
        _exit(7);
    }
    return child;
}

static int gate[2];

/* Ends when the gate is opened, after it was stopped. */
static void stops_itself(void) {
    char byte;
    close(gate[1]);
    raise(SIGSTOP);
    NEED(read(gate[0], &byte, 1) == 0);
}

static pid_t stopping_job(void) {
    NEED(pipe(gate) == 0);
    pid_t child = job(stops_itself);
    close(gate[0]);
    return child;
}

CASE(a_child_stops_and_goes_on) {
    pid_t child = stopping_job();
    await("first", child, WUNTRACED);
    await("told once", child, WUNTRACED | WNOHANG);
    kill(child, SIGCONT);
    await("second", child, WUNTRACED | WCONTINUED);
    close(gate[1]);
    await("third", child, WUNTRACED | WCONTINUED);
    await("gone", child, WUNTRACED);
}

static volatile int notes, codes[8], values[8];

static void note(int number, siginfo_t *info, void *context) {
    (void)number;
    (void)context;
    if (notes < 8) {
        codes[notes] = info->si_code;
        values[notes] = info->si_status;
    }
    notes++;
}

static void with_notes(int flags) {
    struct sigaction action = {.sa_sigaction = note, .sa_flags = SA_SIGINFO | SA_RESTART | flags};
    notes = 0;
    NEED(sigaction(SIGCHLD, &action, NULL) == 0);
    pid_t child = stopping_job();
    await("first", child, WUNTRACED);
    kill(child, SIGCONT);
    await("second", child, WCONTINUED);
    while (flags == 0 && notes < 2)
        usleep(1000);
    close(gate[1]);
    await("third", child, 0);
    settle();
    signal(SIGCHLD, SIG_DFL);
}

CASE(the_parent_gets_SIGCHLD) {
    with_notes(0);
    RESULT(notes);
    RESULT(codes[0] == CLD_STOPPED && values[0] == SIGSTOP);
    RESULT(codes[1] == CLD_CONTINUED && values[1] == SIGCONT);
    RESULT(codes[2] == CLD_EXITED && values[2] == 7);
    with_notes(SA_NOCLDSTOP);
    RESULT(notes);
    RESULT(codes[0] == CLD_EXITED);
}

CASE(waitid_tells_of_stops) {
    siginfo_t info = {0};
    pid_t child = stopping_job();
    RESULT(waitid(P_PID, (id_t)child, &info, WSTOPPED | WNOWAIT));
    RESULT(info.si_code == CLD_STOPPED && info.si_status == SIGSTOP && info.si_pid == child);
    RESULT(waitid(P_ALL, 0, &info, WSTOPPED));
    info.si_pid = 1;
    RESULT(waitid(P_ALL, 0, &info, WSTOPPED | WNOHANG));
    RESULT(info.si_pid);
    kill(child, SIGCONT);
    RESULT(waitid(P_PGID, (id_t)child, &info, WCONTINUED));
    RESULT(info.si_code == CLD_CONTINUED && info.si_status == SIGCONT);
    close(gate[1]);
    RESULT(waitid(P_PID, (id_t)child, &info, WEXITED | WNOWAIT));
    CALL(waitid(P_PID, (id_t)child, &info, WSTOPPED));
    await("end", child, 0);
}

static volatile long *count;

static void *counts(void *unused) {
    for (;;) {
        count[0]++;
        usleep(1000);
    }
    return unused;
}

static void counts_in_threads(void) {
    pthread_t thread;
    for (int i = 0; i < 3; i++)
        pthread_create(&thread, NULL, counts, NULL);
    counts(NULL);
}

CASE(all_threads_stand_still) {
    count = shared_page();
    count[0] = 0;
    pid_t child = job(counts_in_threads);
    while (count[0] < 20)
        usleep(1000);
    kill(child, SIGSTOP);
    await("stopped", child, WUNTRACED);
    long before = count[0];
    usleep(50000);
    RESULT(count[0] == before);
    kill(child, SIGCONT);
    await("continued", child, WCONTINUED);
    while (count[0] < before + 20)
        usleep(1000);
    kill(child, SIGSTOP);
    await("stopped again", child, WUNTRACED);
    kill(child, SIGKILL);
    await("killed", child, WUNTRACED);
}

static void waits_for_ever(void) {
    count[1] = 1;
    for (;;)
        pause();
}

static pid_t waiting_job(void) {
    count = shared_page();
    count[1] = 0;
    pid_t child = job(waits_for_ever);
    while (count[1] == 0)
        usleep(1000);
    return child;
}

CASE(other_signals_wait_until_it_goes_on) {
    pid_t child = waiting_job();
    kill(child, SIGTSTP);
    await("stopped", child, WUNTRACED);
    kill(child, SIGTERM);
    settle();
    await("still stopped", child, WUNTRACED | WNOHANG);
    kill(child, SIGCONT);
    await("ended", child, 0);
}

CASE(every_signal_that_stops) {
    pid_t child = waiting_job();
    int signals[] = {SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU};
    for (int i = 0; i < 4; i++) {
        kill(child, signals[i]);
        await("stopped", child, WUNTRACED);
        kill(child, SIGCONT);
        await("goes on", child, WCONTINUED);
    }
    kill(child, SIGCONT);
    settle();
    await("went on already", child, WCONTINUED | WNOHANG);
    kill(child, SIGKILL);
    await("killed", child, 0);
}

static volatile int taken;

static void take(int number) {
    taken = taken * 100 + number;
}

CASE(handlers_and_masks) {
    sigset_t set, waiting;
    signal(SIGTSTP, take);
    RESULT(raise(SIGTSTP));
    RESULT(taken);
    signal(SIGTSTP, SIG_IGN);
    RESULT(raise(SIGTSTP));
    signal(SIGTSTP, SIG_DFL);
    taken = 0;
    signal(SIGCONT, take);
    sigemptyset(&set);
    sigaddset(&set, SIGTSTP);
    sigaddset(&set, SIGCONT);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGTSTP);
    sigpending(&waiting);
    RESULT(sigismember(&waiting, SIGTSTP));
    raise(SIGCONT);
    sigpending(&waiting);
    RESULT(sigismember(&waiting, SIGTSTP) * 10 + sigismember(&waiting, SIGCONT));
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    RESULT(taken);
    sigprocmask(SIG_BLOCK, &set, NULL);
    raise(SIGCONT);
    raise(SIGTSTP);
    sigpending(&waiting);
    RESULT(sigismember(&waiting, SIGTSTP) * 10 + sigismember(&waiting, SIGCONT));
    RESULT(sigwaitinfo(&set, NULL) == SIGTSTP);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    signal(SIGCONT, SIG_DFL);
}

static void handles_continue(void) {
    signal(SIGCONT, take);
    raise(SIGSTOP);
    _exit(taken);
}

CASE(a_handler_for_going_on) {
    pid_t child = job(handles_continue);
    await("stopped", child, WUNTRACED);
    kill(child, SIGCONT);
    await("end", child, 0);
}

static void in_its_own_session(void) {
    setsid();
    raise(SIGTSTP);
    _exit(3);
}

CASE(an_orphaned_group_is_not_stopped_by_terminals) {
    pid_t child = fork();
    if (child == 0)
        in_its_own_session();
    await("end", child, WUNTRACED);
}

static int ends[2];

static void hung_up(int number) {
    char byte = (char)number;
    NEED(write(ends[1], &byte, 1) == 1);
    _exit(0);
}

static void leaves_a_stopped_child(void) {
    pid_t child = fork();
    if (child == 0) {
        setpgid(0, 0);
        signal(SIGHUP, hung_up);
        raise(SIGSTOP);
        for (;;)
            pause();
    }
    int status;
    NEED(waitpid(child, &status, WUNTRACED) == child && WIFSTOPPED(status));
}

CASE(a_stopped_group_that_is_orphaned_is_hung_up) {
    char byte = 0;
    NEED(pipe(ends) == 0);
    pid_t child = job(leaves_a_stopped_child);
    await("parent", child, 0);
    NEED(read(ends[0], &byte, 1) == 1);
    RESULT(byte == SIGHUP);
    close(ends[0]);
    close(ends[1]);
}

CASE(a_whole_group_stops) {
    count = shared_page();
    count[1] = 0;
    pid_t first = job(waits_for_ever);
    while (count[1] == 0)
        usleep(1000);
    count[1] = 0;
    pid_t second = fork();
    if (second == 0)
        waits_for_ever();
    setpgid(second, first);
    while (count[1] == 0)
        usleep(1000);
    RESULT(killpg(first, SIGSTOP));
    await("first", first, WUNTRACED);
    await("second", second, WUNTRACED);
    int status = 0;
    RESULT(killpg(first, SIGCONT));
    RESULT(waitpid(-first, &status, WCONTINUED) > 0 && WIFCONTINUED(status));
    RESULT(waitpid(-first, &status, WCONTINUED) > 0 && WIFCONTINUED(status));
    RESULT(killpg(first, SIGKILL));
    await("first", first, 0);
    await("second", second, 0);
}

static void sleeps(void) {
    struct timespec length = {0, 30000000};
    count[1] = 1;
    count[0] = nanosleep(&length, NULL);
    count[1] = 2;
    _exit(0);
}

CASE(sleeps_and_waits_go_on) {
    count = shared_page();
    count[0] = 5;
    count[1] = 0;
    pid_t child = job(sleeps);
    while (count[1] == 0)
        usleep(100);
    kill(child, SIGSTOP);
    await("stopped", child, WUNTRACED);
    usleep(60000);
    RESULT(count[1]);
    kill(child, SIGCONT);
    await("end", child, 0);
    RESULT(count[0]);
}

static void *reads(void *unused) {
    char byte;
    RESULT(read(ends[0], &byte, 1));
    return unused;
}

static void reads_in_a_thread(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, reads, NULL);
    settle();
    raise(SIGSTOP);
    pthread_join(thread, NULL);
    _exit(0);
}

CASE(what_comes_meanwhile_is_not_lost) {
    NEED(pipe(ends) == 0);
    pid_t child = job(reads_in_a_thread);
    await("stopped", child, WUNTRACED);
    RESULT(write(ends[1], "x", 1));
    settle();
    say("nothing is read while it is stopped");
    kill(child, SIGCONT);
    await("end", child, 0);
    close(ends[0]);
    close(ends[1]);
}
