/* posix_spawn, system, popen, and streams on pipes between processes. */
#include "conformance.h"

#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>

extern char **environ;

static void report(const char *what, int error, pid_t *made) {
    if (error != 0) {
        code(what, error);
        return;
    }
    int status;
    pid_t child = *made;
    NEED(waitpid(child, &status, 0) == child);
    if (WIFSIGNALED(status))
        say("%s: signal %d", what, WTERMSIG(status));
    else
        say("%s: exit %d", what, WEXITSTATUS(status));
}

static void shell(const char *what, const char *command, posix_spawn_file_actions_t *actions,
                  posix_spawnattr_t *attributes) {
    char *argv[] = {"sh", "-c", (char *)command, NULL};
    pid_t child = -1;
    report(what, posix_spawn(&child, "/bin/sh", actions, attributes, argv, environ), &child);
}

CASE(spawn_runs_a_program) {
    shell("plain", "echo spawned; exit 3", NULL, NULL);
    char *argv[] = {"echo", "by", "name", NULL};
    pid_t child;
    report("spawnp", posix_spawnp(&child, "echo", NULL, NULL, argv, environ), &child);
    char *empty[] = {NULL};
    char *show[] = {"sh", "-c", "echo \"HOME=$HOME\"", NULL};
    report("environment", posix_spawn(&child, "/bin/sh", NULL, NULL, show, empty), &child);
    CODE(posix_spawn(NULL, "/bin/true", NULL, NULL, argv, environ));
    NEED(wait(NULL) > 0);
}

CASE(spawn_errors) {
    char *argv[] = {"x", NULL};
    pid_t child = -7;
    CODE(posix_spawn(&child, "/does/not/exist", NULL, NULL, argv, environ));
    RESULT(child);
    CODE(posix_spawn(&child, "/etc/passwd", NULL, NULL, argv, environ));
    CODE(posix_spawnp(&child, "does-not-exist", NULL, NULL, argv, environ));
    CALL(wait(NULL));
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_addopen(&actions, 0, "/does/not/exist", O_RDONLY, 0);
    CODE(posix_spawn(&child, "/bin/true", &actions, NULL, argv, environ));
    posix_spawn_file_actions_destroy(&actions);
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, 99, 1);
    CODE(posix_spawn(&child, "/bin/true", &actions, NULL, argv, environ));
    posix_spawn_file_actions_destroy(&actions);
}

CASE(spawn_file_actions) {
    posix_spawn_file_actions_t actions;
    posix_spawn_file_actions_init(&actions);
    mkdir("spawned", 0755);
    int ends[2];
    NEED(pipe2(ends, O_CLOEXEC) == 0);
    posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
    posix_spawn_file_actions_addopen(&actions, 5, "spawned/file", O_WRONLY | O_CREAT, 0600);
    posix_spawn_file_actions_addclose(&actions, 0);
    posix_spawn_file_actions_addclose(&actions, 77);
    posix_spawn_file_actions_addchdir_np(&actions, "spawned");
    posix_spawn_file_actions_adddup2(&actions, 5, 5);
    shell("actions", "echo in-pipe; echo in-file >&5; ls; if (: <&0) 2>/dev/null; then echo open; fi",
          &actions, NULL);
    close(ends[1]);
    char text[256] = "";
    ssize_t got, used = 0;
    while ((got = read(ends[0], text + used, sizeof text - 1 - used)) > 0)
        used += got;
    say("pipe: %s", text);
    close(ends[0]);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawn_file_actions_init(&actions);
    int fd = open("spawned", O_RDONLY | O_DIRECTORY);
    posix_spawn_file_actions_addfchdir_np(&actions, fd);
    posix_spawn_file_actions_addclosefrom_np(&actions, 3);
    shell("more actions", "cat file; ls /proc/self/fd | wc -l", &actions, NULL);
    posix_spawn_file_actions_destroy(&actions);
    close(fd);
}

CASE(spawn_attributes) {
    posix_spawnattr_t attributes;
    posix_spawnattr_init(&attributes);
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGUSR1);
    signal(SIGUSR1, SIG_IGN);
    signal(SIGUSR2, SIG_IGN);
    posix_spawnattr_setsigdefault(&attributes, &set);
    posix_spawnattr_setpgroup(&attributes, 0);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    shell("defaults", "kill -USR2 $$; echo still; kill -USR1 $$; echo not here", NULL, &attributes);
    sigfillset(&set);
    posix_spawnattr_setsigmask(&attributes, &set);
    posix_spawnattr_setflags(&attributes, POSIX_SPAWN_SETSIGMASK | 0x80);
    shell("mask", "kill -TERM $$; echo blocked", NULL, &attributes);
    posix_spawnattr_destroy(&attributes);
    signal(SIGUSR1, SIG_DFL);
    signal(SIGUSR2, SIG_DFL);
}

CASE(system_runs_a_shell) {
    RESULT(system(NULL) != 0);
    RESULT(system("echo from system; exit 5"));
    RESULT(system("kill -TERM $$"));
    RESULT(system("exit 0"));
    RESULT(system("does-not-exist-at-all 2>/dev/null"));
    signal(SIGCHLD, SIG_DFL);
    RESULT(system("sh -c 'exit 2'; exit $?"));
}

CASE(popen_reads_and_writes) {
    char line[128] = "";
    FILE *reads = popen("echo one; echo two; exit 4", "r");
    NEED(reads != NULL);
    while (fgets(line, sizeof line, reads))
        say("read %s", line);
    RESULT(WEXITSTATUS(pclose(reads)));
    FILE *writes = popen("cat; exit 6", "w");
    NEED(writes != NULL);
    fprintf(writes, "written by %s\n", "fprintf");
    fputs("and fputs\n", writes);
    RESULT(WEXITSTATUS(pclose(writes)));
    FILE *both = popen("cat", "rw");
    RESULT(both == NULL ? errno : 0);
    reads = popen("kill -KILL $$", "re");
    NEED(reads != NULL);
    RESULT(fgetc(reads));
    int status = pclose(reads);
    RESULT(WTERMSIG(status));
    FILE *many[20];
    for (int i = 0; i < 20; i++) {
        char command[32];
        snprintf(command, sizeof command, "echo %d", i);
        NEED((many[i] = popen(command, "r")) != NULL);
    }
    int sum = 0;
    for (int i = 0; i < 20; i++) {
        NEED(fgets(line, sizeof line, many[i]) != NULL);
        sum += atoi(line);
        NEED(pclose(many[i]) == 0);
    }
    RESULT(sum);
}

/* printf of a child into a pipe. */
static void prints(int end) {
    dup2(end, 1);
    printf("printf %d\n", 42);
    puts("puts");
    fputs("fputs", stdout);
    putchar('\n');
    fprintf(stderr, "%s", "");
    fwrite("fwrite\n", 1, 7, stdout);
    fflush(stdout);
    printf("at exit\n");
    exit(0);
}

static void show(int end) {
    char text[1024] = "";
    ssize_t got, used = 0;
    while ((got = read(end, text + used, sizeof text - 1 - used)) > 0)
        used += got;
    for (char *line = strtok(text, "\n"); line != NULL; line = strtok(NULL, "\n"))
        say("line %s", line);
}

CASE(printf_into_a_pipe) {
    int ends[2];
    NEED(pipe(ends) == 0);
    fflush(NULL);
    if (fork() == 0)
        prints(ends[1]);
    close(ends[1]);
    show(ends[0]);
    close(ends[0]);
    wait(NULL);
}

CASE(what_was_buffered_before_goes_along) {
    int ends[2];
    NEED(pipe(ends) == 0);
    if (fork() == 0) {
        printf("before, ");
        dup2(ends[1], 1);
        printf("after\n");
        exit(0);
    }
    close(ends[1]);
    show(ends[0]);
    close(ends[0]);
    wait(NULL);
}

CASE(standard_output_goes_away_and_comes_back) {
    int ends[2], saved = dup(1);
    NEED(pipe(ends) == 0);
    dup2(ends[1], 1);
    printf("into the pipe\n");
    fflush(stdout);
    dup2(saved, 1);
    close(ends[1]);
    show(ends[0]);
    printf("standard_output: is back\n");
    fflush(stdout);
    RESULT(fileno(stdout));
    close(ends[0]);
    close(saved);
}

static void *prints_much(void *stream) {
    for (int i = 0; i < 500; i++)
        fprintf(stream, "a line of a thread, %s\n", "which is not short at all");
    return NULL;
}

CASE(threads_that_print_into_one_pipe) {
    int ends[2];
    NEED(pipe(ends) == 0);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        close(ends[0]);
        dup2(ends[1], 1);
        setvbuf(stdout, NULL, _IOLBF, 0);
        pthread_t threads[4];
        for (int i = 0; i < 4; i++)
            NEED(pthread_create(&threads[i], NULL, prints_much, stdout) == 0);
        for (int i = 0; i < 4; i++)
            pthread_join(threads[i], NULL);
        exit(0);
    }
    close(ends[1]);
    settle();
    char text[4096];
    ssize_t got;
    long lines = 0, bytes = 0;
    while ((got = read(ends[0], text, sizeof text)) > 0) {
        bytes += got;
        for (ssize_t i = 0; i < got; i++)
            lines += text[i] == '\n';
    }
    RESULT(lines);
    RESULT(bytes);
    close(ends[0]);
    waitpid(child, NULL, 0);
}

CASE(stdin_from_a_pipe) {
    int ends[2];
    NEED(pipe(ends) == 0);
    if (fork() == 0) {
        dup2(ends[0], 0);
        close(ends[1]);
        char line[64];
        int number = 0;
        NEED(fgets(line, sizeof line, stdin) != NULL);
        say("got %s", line);
        RESULT(scanf("%d", &number));
        RESULT(number);
        RESULT(getchar());
        RESULT(getchar());
        RESULT(feof(stdin) != 0);
        exit(0);
    }
    NEED(write(ends[1], "first\n17\n", 9) == 9);
    close(ends[0]);
    close(ends[1]);
    wait(NULL);
}

CASE(fdopen_on_a_pipe) {
    int ends[2];
    NEED(pipe(ends) == 0);
    FILE *out = fdopen(ends[1], "w"), *in = fdopen(ends[0], "r");
    NEED(out != NULL && in != NULL);
    RESULT(fileno(out) == ends[1]);
    fprintf(out, "through %d\n", 5);
    RESULT(fflush(out));
    char line[64];
    RESULT(fgets(line, sizeof line, in) != NULL);
    say("%s", line);
    RESULT(fclose(out));
    RESULT(fgetc(in));
    RESULT(feof(in) != 0);
    RESULT(fseek(in, 0, SEEK_SET));
    RESULT(fclose(in));
    CALL(write(ends[1], "x", 1));
    CALL(fdopen(ends[0], "r") == NULL ? -1 : 0);
}

CASE(dprintf_into_a_pipe) {
    int ends[2];
    NEED(pipe(ends) == 0);
    RESULT(dprintf(ends[1], "%s %d %s %d %d %d %g\n", "many", 1, "arguments", 2, 3, 4, 0.5));
    close(ends[1]);
    show(ends[0]);
    close(ends[0]);
}

CASE(freopen_leaves_the_pipe) {
    int ends[2];
    NEED(pipe(ends) == 0);
    if (fork() == 0) {
        dup2(ends[1], 1);
        printf("first\n");
        NEED(freopen("reopened", "w", stdout) != NULL);
        printf("second\n");
        RESULT(fileno(stdout));
        exit(0);
    }
    close(ends[1]);
    show(ends[0]);
    wait(NULL);
    int fd = open("reopened", O_RDONLY);
    show(fd);
    close(fd);
    close(ends[0]);
}

CASE(dev_stdout_is_the_pipe) {
    int ends[2];
    NEED(pipe(ends) == 0);
    if (fork() == 0) {
        dup2(ends[1], 1);
        close(ends[1]);
        FILE *again = fopen("/dev/stdout", "w");
        NEED(again != NULL);
        fprintf(again, "by name\n");
        fclose(again);
        int fd = open("/dev/fd/1", O_WRONLY);
        NEED(fd >= 0 && write(fd, "by number\n", 10) == 10);
        fd = open("/proc/self/fd/1", O_WRONLY);
        NEED(fd >= 0 && write(fd, "by proc\n", 8) == 8);
        exit(0);
    }
    close(ends[1]);
    show(ends[0]);
    close(ends[0]);
    wait(NULL);
}

CASE(a_pipeline_of_programs) {
    RESULT(system("printf 'b\\na\\nc\\n' | sort | tr a-z A-Z | paste -s -d+"));
    RESULT(system("seq 1 2000 | awk '{ s += $1 } END { print s }'"));
    RESULT(system("x=$(echo nested $(echo deeper)); echo \"$x\""));
    RESULT(system("perl -e 'print \"perl says $_\\n\" for 1..2' | cat"));
    RESULT(system("yes | head -n 2"));
}
