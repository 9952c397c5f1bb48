/* Children: waiting for them, SIGCHLD, orphans, groups and sessions. */
#include "conformance.h"

#include <fcntl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

static pid_t child_with(int code) {
    pid_t child = fork();
    NEED(child >= 0);
    if (child == 0)
        _exit(code);
    return child;
}

static pid_t child_until(int end) {
    pid_t child = fork();
    NEED(child >= 0);
    if (child == 0) {
        char byte;
        while (read(end, &byte, 1) < 0)
            ;
        _exit(1);
    }
    return child;
}

CASE(wait_and_its_relatives) {
    int status = -1;
    struct rusage usage;
    pid_t child = child_with(1);
    RESULT(wait(&status) == child);
    RESULT(WEXITSTATUS(status));
    child = child_with(2);
    RESULT(waitpid(child, &status, 0) == child);
    RESULT(WEXITSTATUS(status));
    child = child_with(3);
    RESULT(wait3(&status, 0, &usage) == child);
    RESULT(WEXITSTATUS(status));
    child = child_with(4);
    RESULT(wait4(child, &status, 0, &usage) == child);
    RESULT(WEXITSTATUS(status));
    child = child_with(5);
    RESULT(wait(NULL) == child);
    CALL(wait(&status));
    CALL(waitpid(child, &status, 0));
    CALL(waitpid(-1, &status, WNOHANG));
    CALL(waitpid(-1, &status, 0x40000));
}

CASE(wait_without_waiting) {
    int ends[2];
    NEED(pipe(ends) == 0);
    pid_t child = child_until(ends[0]);
    CALL(waitpid(child, NULL, WNOHANG));
    siginfo_t info;
    memset(&info, 7, sizeof info);
    CALL(waitid(P_PID, child, &info, WEXITED | WNOHANG));
    RESULT(info.si_pid);
    NEED(write(ends[1], "x", 1) == 1);
    int status;
    RESULT(waitpid(child, &status, 0) == child);
    RESULT(WEXITSTATUS(status));
    close(ends[0]);
    close(ends[1]);
}

CASE(waitid_tells_and_may_leave) {
    pid_t child = child_with(7);
    siginfo_t info;
    CALL(waitid(P_PID, child, &info, WEXITED | WNOWAIT));
    RESULT(info.si_signo);
    RESULT(info.si_code);
    RESULT(info.si_status);
    RESULT(info.si_pid == child);
    CALL(waitid(P_ALL, 0, &info, WEXITED));
    RESULT(info.si_status);
    CALL(waitid(P_ALL, 0, &info, WEXITED));
    CALL(waitid(P_ALL, 0, &info, 0));
    CALL(waitid(P_PID, 0, &info, WEXITED));
    child = fork();
    if (child == 0)
        raise(SIGKILL);
    CALL(waitid(P_PID, child, &info, WEXITED));
    RESULT(info.si_code);
    RESULT(info.si_status);
}

static volatile int seen, seen_status, seen_code;
static void on_child(int signal, siginfo_t *info, void *context) {
    (void)signal;
    (void)context;
    seen++;
    seen_status = info->si_status;
    seen_code = info->si_code;
}

CASE(SIGCHLD_comes_with_the_end) {
    struct sigaction action = {.sa_sigaction = on_child, .sa_flags = SA_SIGINFO};
    sigaction(SIGCHLD, &action, NULL);
    pid_t child = fork();
    if (child == 0) {
        settle();
        _exit(9);
    }
    CALL(pause());
    RESULT(seen);
    RESULT(seen_code);
    RESULT(seen_status);
    RESULT(waitpid(child, NULL, WNOHANG) == child);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGCHLD);
    sigprocmask(SIG_BLOCK, &set, NULL);
    child_with(1);
    child_with(2);
    settle();
    RESULT(seen);
    sigprocmask(SIG_UNBLOCK, &set, NULL);
    RESULT(seen);
    RESULT(wait(NULL) > 0);
    RESULT(wait(NULL) > 0);
    signal(SIGCHLD, SIG_DFL);
}

CASE(children_that_nobody_wants) {
    signal(SIGCHLD, SIG_IGN);
    pid_t child = child_with(1);
    CALL(waitpid(child, NULL, 0));
    struct sigaction action = {.sa_sigaction = on_child, .sa_flags = SA_SIGINFO | SA_NOCLDWAIT};
    sigaction(SIGCHLD, &action, NULL);
    seen = 0;
    child = child_with(2);
    int code = waitpid(child, NULL, 0);
    while (code < 0 && errno == EINTR)
        code = waitpid(child, NULL, 0);
    call_result("waitpid", code);
    RESULT(seen);
    signal(SIGCHLD, SIG_DFL);
}

CASE(an_orphan_gets_another_parent) {
    int ends[2], go[2];
    NEED(pipe(ends) == 0 && pipe(go) == 0);
    pid_t child = fork();
    if (child == 0) {
        if (fork() == 0) {
            char byte;
            NEED(read(go[0], &byte, 1) == 1);
            long parent = getppid();
            NEED(write(ends[1], &parent, sizeof parent) == sizeof parent);
            _exit(0);
        }
        _exit(0);
    }
    NEED(waitpid(child, NULL, 0) == child);
    NEED(write(go[1], "x", 1) == 1);
    long parent = -1;
    NEED(read(ends[0], &parent, sizeof parent) == sizeof parent);
    RESULT(parent != child && parent != getpid());
    CALL(wait(NULL));
}

CASE(a_subreaper_gets_the_orphans) {
    int on = 0;
    CALL(prctl(PR_SET_CHILD_SUBREAPER, 1));
    CALL(prctl(PR_GET_CHILD_SUBREAPER, &on));
    RESULT(on);
    pid_t child = fork();
    if (child == 0) {
        if (fork() == 0) {
            settle();
            _exit(getppid() == 1 ? 1 : 8);
        }
        _exit(0);
    }
    int status = 0;
    RESULT(waitpid(child, NULL, 0) == child);
    RESULT(wait(&status) > 0);
    RESULT(WEXITSTATUS(status));
    prctl(PR_SET_CHILD_SUBREAPER, 0);
}

CASE(a_child_dies_with_its_parent) {
    int ends[2];
    NEED(pipe(ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        if (fork() == 0) {
            prctl(PR_SET_PDEATHSIG, SIGTERM);
            close(ends[0]);
            pause();
        }
        settle();
        _exit(0);
    }
    close(ends[1]);
    char byte;
    CALL(read(ends[0], &byte, 1));
    NEED(waitpid(child, NULL, 0) == child);
    close(ends[0]);
}

CASE(groups_and_sessions) {
    int ends[2];
    NEED(pipe(ends) == 0);
    RESULT(getpgrp() == getpgid(0));
    RESULT(getsid(0) == getsid(getpid()));
    CALL(getpgid(999999));
    CALL(getsid(999999));
    CALL(setpgid(0, -1));
    CALL(setpgid(999999, 0));
    CALL(setpgid(0, 999999));
    pid_t child = child_until(ends[0]);
    RESULT(getpgid(child) == getpgrp());
    CALL(setpgid(child, child));
    RESULT(getpgid(child) == child);
    pid_t second = child_until(ends[0]);
    CALL(setpgid(second, child));
    RESULT(getpgid(second) == child);
    CALL(kill(-child, 0));
    CALL(killpg(child, SIGTERM));
    int status = 0;
    RESULT(waitpid(-child, &status, 0) > 0);
    RESULT(WTERMSIG(status));
    siginfo_t info;
    CALL(waitid(P_PGID, child, &info, WEXITED));
    RESULT(info.si_status);
    CALL(waitpid(-child, &status, 0));
    CALL(killpg(child, SIGTERM));
    pid_t leader = fork();
    if (leader == 0) {
        pid_t session = setsid();
        RESULT(session == getpid() && getpgrp() == session && getsid(0) == session);
        CALL(setsid());
        CALL(setpgid(0, 0));
        _exit(0);
    }
    RESULT(waitpid(leader, NULL, 0) == leader);
    close(ends[0]);
    close(ends[1]);
}

CASE(signals_to_children) {
    int ends[2], status = 0;
    NEED(pipe(ends) == 0);
    int signals[] = {SIGTERM, SIGKILL, SIGUSR1, SIGHUP, SIGSEGV, SIGABRT};
    for (unsigned i = 0; i < sizeof signals / sizeof *signals; i++) {
        pid_t child = child_until(ends[0]);
        settle();
        CALL(kill(child, signals[i]));
        NEED(waitpid(child, &status, 0) == child);
        say("signalled %d by %d", WIFSIGNALED(status), WTERMSIG(status));
    }
    pid_t child = child_with(0);
    settle();
    CALL(kill(child, 0));
    CALL(kill(child, SIGTERM));
    NEED(waitpid(child, &status, 0) == child);
    RESULT(WIFEXITED(status));
    CALL(kill(child, 0));
    close(ends[0]);
    close(ends[1]);
}

static int *page;
static void by_vfork(void) {
    page = shared_page();
    pid_t child = vfork();
    if (child == 0) {
        usleep(20000);
        *page = 1;
        _exit(4);
    }
    RESULT(*page);
    int status;
    RESULT(waitpid(child, &status, 0) == child);
    RESULT(WEXITSTATUS(status));
}
CASE(the_parent_of_a_vfork_waits) { by_vfork(); }

static void exits(void) { exit(6); }
static void quick(void) { say("at quick exit"); }
static void exits_quickly(void) {
    at_quick_exit(quick);
    quick_exit(7);
}
static void normal(void) { say("at exit"); }
static void exits_with_handler(void) {
    atexit(normal);
    exit(8);
}
CASE(ways_to_end) {
    in_child(exits);
    in_child(exits_quickly);
    in_child(exits_with_handler);
}

static void into_background(void) {
    page = shared_page();
    page[0] = getpid();
    pid_t child = fork();
    if (child == 0) {
        NEED(daemon(0, 0) == 0);
        char where[64];
        page[1] = getpid() != page[0];
        page[2] = getsid(0) == getpid();
        page[3] = strcmp(getcwd(where, sizeof where), "/") == 0;
        page[4] = write(1, "nowhere\n", 8) == 8;
        page[5] = getppid() == 1 || getppid() != page[0];
        page[9] = 1;
        _exit(0);
    }
    int status;
    NEED(waitpid(child, &status, 0) == child);
    RESULT(WEXITSTATUS(status));
    while (page[9] == 0)
        usleep(1000);
    for (int i = 1; i < 6; i++)
        result("daemon", page[i]);
}
CASE(daemon_goes_into_the_background) { into_background(); }

CASE(locks_of_the_dead_are_free) {
    int fd = open("locked", O_CREAT | O_RDWR, 0600);
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    pid_t child = fork();
    if (child == 0) {
        NEED(fcntl(fd, F_SETLK, &lock) == 0);
        settle();
        settle();
        raise(SIGKILL);
    }
    settle();
    CALL(fcntl(fd, F_SETLK, &lock));
    CALL(fcntl(fd, F_SETLKW, &lock));
    NEED(waitpid(child, NULL, 0) == child);
    close(fd);
}
