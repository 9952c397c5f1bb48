/* What a process held while it waited is free when it has ended. */
#include "conformance.h"
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/socket.h>

static int ends[2], pair[2], listener;
static struct sockaddr_in name;

static void *reads(void *unused) {
    char byte;
    RESULT(read(ends[0], &byte, 1));
    return unused;
}

static void waits_in_read(void) {
    close(ends[1]);
    close(pair[0]);
    close(pair[1]);
    reads(NULL);
}

static void *reads_the_socket(void *unused) {
    char byte;
    RESULT(read(pair[1], &byte, 1));
    return unused;
}

static void ends_beside_a_reader(void) {
    pthread_t thread;
    close(ends[1]);
    close(pair[0]);
    pthread_create(&thread, NULL, reads, NULL);
    pthread_create(&thread, NULL, reads_the_socket, NULL);
    settle();
    _exit(0);
}

static void executes_beside_a_reader(void) {
    pthread_t thread;
    close(ends[1]);
    close(pair[0]);
    fcntl(ends[0], F_SETFD, FD_CLOEXEC);
    fcntl(pair[1], F_SETFD, FD_CLOEXEC);
    pthread_create(&thread, NULL, reads, NULL);
    pthread_create(&thread, NULL, reads_the_socket, NULL);
    settle();
    execl("/bin/sleep", "sleep", "0.01", NULL);
    _exit(9);
}

static void polls(void) {
    struct pollfd watched[] = {{ends[0], POLLIN, 0}, {pair[1], POLLIN, 0}};
    close(ends[1]);
    close(pair[0]);
    poll(watched, 2, -1);
}

static void child_with(void (*run)(void), bool killed) {
    NEED(pipe(ends) == 0 && socketpair(AF_UNIX, SOCK_STREAM, 0, pair) == 0);
    pid_t child = fork();
    if (child == 0) {
        run();
        _exit(0);
    }
    close(ends[0]);
    close(pair[1]);
    settle();
    if (killed)
        kill(child, SIGKILL);
    NEED(waitpid(child, NULL, 0) == child);
    signal(SIGPIPE, SIG_IGN);
    CALL(write(ends[1], "x", 1));
    char byte;
    CALL(read(pair[0], &byte, 1));
    signal(SIGPIPE, SIG_DFL);
    close(ends[1]);
    close(pair[0]);
}

CASE(killed_in_a_read) { child_with(waits_in_read, true); }

CASE(killed_in_a_poll) { child_with(polls, true); }

CASE(ends_while_a_thread_reads) { child_with(ends_beside_a_reader, false); }

static void *reads_a_line(void *unused) {
    char line[10];
    fgets(line, sizeof line, fdopen(ends[0], "r"));
    return unused;
}

/* The stream in which a thread waits is locked, and exit(3) does not wait for it. */
CASE(exits_while_a_thread_reads_a_line) {
    int status = 0;
    char text[20] = "";
    NEED(pipe(ends) == 0 && pipe(pair) == 0);
    pid_t child = fork();
    if (child == 0) {
        pthread_t thread;
        FILE *output = fdopen(pair[1], "w");
        fputs("not flushed", output);
        close(ends[1]);
        close(pair[0]);
        pthread_create(&thread, NULL, reads_a_line, NULL);
        settle();
        exit(3);
    }
    close(ends[0]);
    close(pair[1]);
    NEED(waitpid(child, &status, 0) == child);
    result("status", WEXITSTATUS(status));
    RESULT(read(pair[0], text, sizeof text - 1));
    say("%s", text);
    close(ends[1]);
    close(pair[0]);
}

CASE(executes_while_a_thread_reads) { child_with(executes_beside_a_reader, false); }

static void accepts(void) {
    accept(listener, NULL, NULL);
}

CASE(killed_in_an_accept) {
    socklen_t length = sizeof name;
    name = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    listener = socket(AF_INET, SOCK_STREAM, 0);
    NEED(bind(listener, (struct sockaddr *)&name, sizeof name) == 0 && listen(listener, 1) == 0);
    NEED(getsockname(listener, (struct sockaddr *)&name, &length) == 0);
    pid_t child = fork();
    if (child == 0) {
        accepts();
        _exit(0);
    }
    close(listener);
    settle();
    kill(child, SIGKILL);
    NEED(waitpid(child, NULL, 0) == child);
    int client = socket(AF_INET, SOCK_STREAM, 0);
    CALL(connect(client, (struct sockaddr *)&name, sizeof name));
    close(client);
}

static void leaves(int number) {
    (void)number;
    _exit(3);
}

static void ends_in_a_handler(void) {
    signal(SIGALRM, leaves);
    alarm(1);
    waits_in_read();
}

CASE(ends_in_a_handler_in_a_read) { child_with(ends_in_a_handler, false); }

static void goes_on(int number) {
    (void)number;
    pid_t child = fork();
    if (child == 0)
        return;
    waitpid(child, NULL, 0);
}

/* A child that is made in a handler goes on with the read that was interrupted. */
CASE(a_fork_in_a_handler_in_a_read) {
    struct sigaction action = {.sa_handler = goes_on};
    pid_t first = getpid();
    char byte;
    NEED(pipe(ends) == 0 && sigaction(SIGALRM, &action, NULL) == 0);
    ualarm(20000, 0);
    int code = (int)read(ends[0], &byte, 1);
    if (getpid() != first)
        _exit(code == -1 && errno == EINTR ? 0 : 1);
    call_result("read", code);
    RESULT(write(ends[1], "y", 1));
    RESULT(read(ends[0], &byte, 1));
    close(ends[0]);
    signal(SIGPIPE, SIG_IGN);
    CALL(write(ends[1], "x", 1));
    signal(SIGPIPE, SIG_DFL);
    signal(SIGALRM, SIG_DFL);
    close(ends[1]);
}

static void waits_itself(int number) {
    (void)number;
    usleep(1000);
}

/* A handler that waits does not hide that the call was interrupted. */
CASE(a_handler_that_waits) {
    struct sigaction action = {.sa_handler = waits_itself};
    char byte;
    NEED(pipe(ends) == 0 && sigaction(SIGALRM, &action, NULL) == 0);
    ualarm(20000, 0);
    CALL(read(ends[0], &byte, 1));
    action.sa_flags = SA_RESTART;
    NEED(sigaction(SIGALRM, &action, NULL) == 0);
    ualarm(20000, 0);
    pid_t child = fork();
    if (child == 0) {
        usleep(60000);
        NEED(write(ends[1], "x", 1) == 1);
        _exit(0);
    }
    CALL(read(ends[0], &byte, 1));
    waitpid(child, NULL, 0);
    signal(SIGALRM, SIG_DFL);
    close(ends[0]);
    close(ends[1]);
}
