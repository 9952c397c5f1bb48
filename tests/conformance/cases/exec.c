/* The exec family: look-up, arguments, environment, errors, what survives. */
#include "conformance.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/syscall.h>

/* Shows its arguments and two variables; exec gives it the case's output. */
static const char show[] = "#!/bin/sh\necho \"script: $0 $# $1 $2 A=$A B=$B\"\nexit 7\n";
static const char text[] = "echo \"text: $# $1\"\nexit 8\n";

static void write_file(const char *path, const char *content, mode_t mode) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, mode);
    NEED(fd >= 0);
    NEED(write(fd, content, strlen(content)) == (ssize_t)strlen(content));
    close(fd);
    NEED(chmod(path, mode) == 0);
}

static void files(void) {
    mkdir("execdir", 0755);
    write_file("execdir/show", show, 0755);
    write_file("execdir/text", text, 0755);
    write_file("execdir/plain", "no\n", 0644);
    write_file("execdir/nointerpreter", "#!/does/not/exist\n", 0755);
}

static char *const environment[] = {"A=1", "B=two", NULL};

static void by_execve(void) {
    char *argv[] = {"execdir/show", "x", "y", NULL};
    CALL(execve("execdir/show", argv, environment));
}
CASE(execve_runs_a_script) { files(); in_child(by_execve); }

static void by_execl(void) { CALL(execl("execdir/show", "zero", "x", "y", NULL)); }
CASE(execl_has_few_arguments) { setenv("A", "own", 1); in_child(by_execl); unsetenv("A"); }

static void by_execl_many(void) {
    CALL(execl("/bin/echo", "echo", "1", "2", "3", "4", "5", "6", "7", "8", "9", NULL));
}
CASE(execl_has_many_arguments) { in_child(by_execl_many); }

static void by_execle(void) {
    CALL(execle("execdir/show", "zero", "x", "y", NULL, environment));
}
CASE(execle_gives_the_environment) { in_child(by_execle); }

static void by_execle_many(void) {
    CALL(execle("execdir/show", "0", "1", "2", "3", "4", "5", "6", NULL, environment));
}
CASE(execle_gives_the_environment_after_many) { in_child(by_execle_many); }

static void by_execlp(void) { CALL(execlp("show", "zero", "x", NULL)); }
CASE(execlp_searches_the_path) {
    char *old = strdup(getenv("PATH"));
    setenv("PATH", "/nowhere:execdir:/bin", 1);
    in_child(by_execlp);
    setenv("PATH", old, 1);
    free(old);
}

static void by_execvp_text(void) {
    char *argv[] = {"text", "x", NULL};
    CALL(execvp("execdir/text", argv));
}
CASE(execvp_gives_a_text_to_the_shell) { in_child(by_execvp_text); }

static void by_execvpe(void) {
    char *argv[] = {"sh", "-c", "echo \"sh: A=$A B=$B\"", NULL};
    CALL(execvpe("sh", argv, environment));
}
CASE(execvpe_gives_the_environment) { in_child(by_execvpe); }

static void by_fexecve(void) {
    int fd = open("/bin/echo", O_RDONLY | O_CLOEXEC);
    char *argv[] = {"echo", "by", "descriptor", NULL};
    CALL(fexecve(fd, argv, environment));
}
CASE(fexecve_runs_a_program) { in_child(by_fexecve); }

static void by_execveat(void) {
    int fd = open("execdir", O_RDONLY | O_DIRECTORY);
    char *argv[] = {"zero", "x", NULL};
    CALL(execveat(fd, "show", argv, environment, 0));
}
CASE(execveat_is_relative) { in_child(by_execveat); }

static void by_number(void) {
    char *argv[] = {"echo", "by", "number", NULL};
    CALL(syscall(SYS_execve, "/bin/echo", argv, environment));
}
CASE(execve_by_number) { in_child(by_number); }

static void without_environment(void) {
    char *argv[] = {"env", NULL};
    char *none[] = {"PATH=/bin", NULL};
    execve("/usr/bin/printenv", (char *[]){"printenv", "PATH", NULL}, none);
    execve("/bin/env", argv, none);
}
CASE(a_scrubbed_environment) { in_child(without_environment); }

CASE(errors) {
    files();
    char *argv[] = {"x", NULL};
    CALL(execve("execdir/missing", argv, environment));
    CALL(execve("execdir/show/below", argv, environment));
    CALL(execve("execdir", argv, environment));
    CALL(execve("execdir/plain", argv, environment));
    CALL(execve("execdir/text", argv, environment));
    CALL(execve("execdir/nointerpreter", argv, environment));
    CALL(execvp("surely-not-there", argv));
    CALL(execvp("", argv));
    CALL(execlp("execdir/plain", "x", NULL));
    CALL(fexecve(-1, argv, environment));
    CALL(execveat(AT_FDCWD, "", argv, environment, 0));
    NEED(symlink("show", "execdir/link") == 0 || errno == EEXIST);
    CALL(execveat(AT_FDCWD, "execdir/link", argv, environment, AT_SYMLINK_NOFOLLOW));
}

static void *sleeper(void *page) {
    while (usleep(1000) == 0)
        ++*(volatile int *)page;
    return NULL;
}

/* The other threads are gone, also from memory that is shared. */
static void with_threads(void) {
    pthread_t thread;
    pthread_create(&thread, NULL, sleeper, shared_page());
    settle();
    execl("/bin/sh", "sh", "-c", "echo alone; exit 3", NULL);
}
CASE(exec_ends_the_other_threads) { in_child(with_threads); }

static void failing_with_threads(void) {
    int *page = shared_page();
    pthread_t thread;
    pthread_create(&thread, NULL, sleeper, page);
    CALL(execl("execdir/missing", "x", NULL));
    int before = *page;
    settle();
    RESULT(*page > before);
}
CASE(exec_that_fails_ends_nothing) { in_child(failing_with_threads); }

static void with_descriptors(void) {
    int kept[2], closed[2];
    NEED(pipe(kept) == 0 && pipe2(closed, O_CLOEXEC) == 0);
    NEED(write(kept[1], "through a pipe\n", 15) == 15);
    char command[128];
    snprintf(command, sizeof command,
             "head -n1 <&%d; if (: <&%d) 2>/dev/null; then echo open; else echo closed; fi",
             kept[0], closed[0]);
    execl("/bin/bash", "bash", "-c", command, NULL);
}
CASE(descriptors_survive_unless_close_on_exec) { in_child(with_descriptors); }
