/* Giving things up: privileges, the root directory, descriptors, limits. */
#include "conformance.h"

#include <fcntl.h>
#include <grp.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>

static void show_ids(void) {
    uid_t real, effective, saved;
    gid_t group, effective_group, saved_group;
    getresuid(&real, &effective, &saved);
    getresgid(&group, &effective_group, &saved_group);
    say("users %d %d %d groups %d %d %d", real, effective, saved, group, effective_group,
        saved_group);
}

static void echo_through_a_child(void) {
    int ends[2];
    NEED(pipe(ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        dup2(ends[1], 1);
        execl("/bin/echo", "echo", "still", "works", NULL);
        _exit(1);
    }
    close(ends[1]);
    char text[64] = "";
    RESULT(read(ends[0], text, sizeof text - 1));
    say("%s", text);
    waitpid(child, NULL, 0);
    close(ends[0]);
}

static void drop(void) {
    gid_t groups[] = {65534};
    CALL(setgroups(1, groups));
    CALL(setgid(65534));
    CALL(setuid(65534));
    show_ids();
    CALL(setuid(0));
    CALL(kill(1, 0));
    echo_through_a_child();
    CALL(access("/root", R_OK));
}
CASE(privileges_are_dropped) { in_child(drop); }

static void drop_and_raise(void) {
    CALL(seteuid(65534));
    show_ids();
    CALL(seteuid(0));
    show_ids();
    CALL(setresgid(65534, 65534, 65534));
    CALL(setresuid(65534, 65534, 65534));
    show_ids();
    CALL(seteuid(0));
}
CASE(privileges_come_back_only_from_the_saved) { in_child(drop_and_raise); }

static void *waits(void *unused) {
    /* The C library's way to tell the threads interrupts natively. */
    for (int i = 0; i < 30; i++)
        usleep(10000);
    show_ids();
    return unused;
}
static void drop_with_threads(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, waits, NULL);
    settle();
    CALL(setuid(65534));
    show_ids();
    pthread_join(thread, NULL);
}
CASE(all_threads_drop_their_privileges) { in_child(drop_with_threads); }

static void in_a_cell(void) {
    mkdir("cell", 0755);
    CALL(chroot("cell"));
    CALL(chdir("/"));
    CALL(access("/bin/sh", X_OK));
    int ends[2];
    NEED(pipe(ends) == 0);
    pid_t child = fork();
    if (child == 0) {
        printf("from a child in the cell\n");
        dup2(ends[1], 1);
        printf("through a pipe\n");
        exit(0);
    }
    close(ends[1]);
    char text[64] = "";
    fflush(stdout);
    size_t used = 0;
    ssize_t got;
    while ((got = read(ends[0], text + used, sizeof text - 1 - used)) > 0)
        used += got;
    say("%s", text);
    NEED(waitpid(child, NULL, 0) == child);
    usleep(1000);
    int fd = open("/file", O_CREAT | O_RDWR, 0600);
    CALL(write(fd, "x", 1));
    CALL(close(fd));
}
CASE(another_root_directory) { in_child(in_a_cell); }

static void storm(void) {
    for (int fd = 3; fd < 4096; fd++)
        close(fd);
    RESULT(close_range(3, ~0U, 0));
    closefrom(3);
    int ends[2];
    RESULT(pipe(ends));
    RESULT(ends[0]);
    usleep(1000);
    echo_through_a_child();
}
CASE(closing_everything) { in_child(storm); }

static void limits(void) {
    struct rlimit limit = {20, 20};
    CALL(setrlimit(RLIMIT_NOFILE, &limit));
    int last = -1;
    for (int fd; (fd = dup(1)) >= 0;)
        last = fd;
    RESULT(last);
    CALL(dup(1));
    close(last);
    int ends[2];
    CALL(pipe(ends));
    closefrom(3);
    limit = (struct rlimit){0, 0};
    CALL(setrlimit(RLIMIT_NPROC, &limit));
    CALL(setuid(65533));
    CALL(fork());
    RESULT(now_ms() > 0);
}
CASE(limits_of_descriptors_and_processes) { in_child(limits); }

CASE(process_settings) {
    CALL(prctl(PR_SET_DUMPABLE, 0));
    CALL(prctl(PR_GET_DUMPABLE));
    CALL(prctl(PR_SET_DUMPABLE, 1));
    CALL(prctl(PR_SET_NAME, "renamed"));
    char name[16] = "";
    CALL(prctl(PR_GET_NAME, name));
    say("%s", name);
    int signal = 7;
    CALL(prctl(PR_GET_PDEATHSIG, &signal));
    RESULT(signal);
    CALL(prctl(PR_SET_PDEATHSIG, 99));
    CALL(prctl(9999, 0));
}
