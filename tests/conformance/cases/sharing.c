/* What processes share: memory, locks on files, System V objects. */
#include "conformance.h"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/ipc.h>
#include <sys/msg.h>
#include <sys/sem.h>
#include <sys/shm.h>
#include <sys/stat.h>

static struct flock part(short type, off_t start, off_t length) {
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = start, .l_len = length};
}

/* Says what a call gave when whoever let it go on has said its part. */
#define LATE(...)                                                              \
    do {                                                                       \
        long value_ = (__VA_ARGS__);                                           \
        int error_ = errno;                                                    \
        settle();                                                              \
        errno = error_;                                                        \
        call_result(#__VA_ARGS__, value_);                                     \
    } while (0)

static void join(pid_t child) {
    int status;
    NEED(waitpid(child, &status, 0) == child);
    result("child", status);
}

CASE(locks_of_processes) {
    int fd = open("locked", O_CREAT | O_RDWR, 0600);
    struct flock lock = part(F_WRLCK, 0, 10);
    CALL(fcntl(fd, F_SETLK, &lock));
    pid_t child = fork();
    if (child == 0) {
        lock = part(F_WRLCK, 5, 1);
        CALL(fcntl(fd, F_SETLK, &lock));
        CALL(fcntl(fd, F_GETLK, &lock));
        RESULT(lock.l_type == F_WRLCK && lock.l_pid == getppid());
        RESULT(lock.l_start);
        lock = part(F_RDLCK, 10, 1);
        CALL(fcntl(fd, F_SETLK, &lock));
        lock = part(F_WRLCK, 0, 1);
        LATE(fcntl(fd, F_SETLKW, &lock));
        say("the child has it");
        _exit(0);
    }
    settle();
    say("the parent gives it up");
    lock = part(F_UNLCK, 0, 0);
    CALL(fcntl(fd, F_SETLK, &lock));
    join(child);
    lock = part(7, 0, 0);
    CALL(fcntl(fd, F_SETLK, &lock));
    CALL(fcntl(99, F_SETLK, &lock));
    close(fd);
}

CASE(closing_gives_locks_up) {
    int fd = open("locked", O_RDWR), second = open("locked", O_RDWR);
    struct flock lock = part(F_WRLCK, 0, 0);
    CALL(fcntl(fd, F_SETLK, &lock));
    pid_t child = fork();
    if (child == 0) {
        lock = part(F_WRLCK, 0, 0);
        CALL(fcntl(fd, F_SETLKW, &lock));
        _exit(0);
    }
    settle();
    close(second);
    join(child);
    close(fd);
}

static void on_alarm(int signal) { (void)signal; }

CASE(waiting_for_a_lock_is_interrupted) {
    struct sigaction action = {.sa_handler = on_alarm};
    sigaction(SIGUSR1, &action, NULL);
    int fd = open("locked", O_RDWR), ends[2];
    NEED(pipe(ends) == 0);
    struct flock lock = part(F_WRLCK, 0, 0);
    pid_t child = fork();
    if (child == 0) {
        char byte;
        CALL(fcntl(fd, F_SETLK, &lock));
        settle();
        settle();
        kill(getppid(), SIGUSR1);
        NEED(read(ends[0], &byte, 1) == 1);
        _exit(0);
    }
    settle();
    usleep(1000);
    CALL(fcntl(fd, F_SETLKW, &lock));
    NEED(write(ends[1], "x", 1) == 1);
    join(child);
    close(fd);
    close(ends[0]);
    close(ends[1]);
}

CASE(locks_of_open_files) {
    int fd = open("locked", O_RDWR), second = open("locked", O_RDWR);
    struct flock lock = part(F_WRLCK, 0, 0);
    CALL(fcntl(fd, F_OFD_SETLK, &lock));
    lock = part(F_WRLCK, 0, 0);
    CALL(fcntl(second, F_OFD_SETLK, &lock));
    close(fd);
    CALL(fcntl(second, F_OFD_SETLKW, &lock));
    close(second);
}

CASE(flock_between_processes) {
    int fd = open("flocked", O_CREAT | O_RDWR, 0600);
    CALL(flock(fd, LOCK_EX));
    pid_t child = fork();
    if (child == 0) {
        int own = open("flocked", O_RDWR);
        CALL(flock(own, LOCK_EX | LOCK_NB));
        CALL(flock(own, LOCK_SH | LOCK_NB));
        LATE(flock(own, LOCK_EX));
        say("the child has it");
        _exit(0);
    }
    settle();
    CALL(flock(fd, LOCK_SH));
    settle();
    say("shared");
    CALL(flock(fd, LOCK_UN));
    join(child);
    CALL(flock(fd, 77));
    CALL(flock(99, LOCK_EX));
    close(fd);
}

CASE(lockf_in_all_forms) {
    int fd = open("locked", O_RDWR);
    CALL(lockf(fd, F_LOCK, 10));
    CALL(lockf(fd, F_TEST, 10));
    pid_t child = fork();
    if (child == 0) {
        CALL(lockf(fd, F_TEST, 10));
        CALL(lockf(fd, F_TLOCK, 10));
        LATE(lockf(fd, F_LOCK, 10));
        _exit(0);
    }
    settle();
    CALL(lockf(fd, F_ULOCK, 10));
    join(child);
    CALL(lockf(fd, 77, 0));
    close(fd);
}

CASE(shared_memory_by_name) {
    int fd = shm_open("/conformance", O_CREAT | O_RDWR | O_EXCL, 0600);
    CALL(ftruncate(fd, 4096));
    int *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    NEED(page != MAP_FAILED);
    pid_t child = fork();
    if (child == 0) {
        int again = shm_open("/conformance", O_RDWR, 0);
        int *other = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, again, 0);
        *other = 42;
        _exit(0);
    }
    join(child);
    RESULT(*page);
    CALL(shm_open("/conformance", O_CREAT | O_RDWR | O_EXCL, 0600));
    CALL(shm_unlink("/conformance"));
    CALL(shm_unlink("/conformance"));
    munmap(page, 4096);
    close(fd);
}

CASE(system_v_shared_memory) {
    int id = shmget(IPC_PRIVATE, 8192, IPC_CREAT | 0600);
    NEED(id >= 0);
    int *page = shmat(id, NULL, 0);
    NEED(page != (void *)-1);
    pid_t child = fork();
    if (child == 0) {
        page[0] = 7;
        _exit(0);
    }
    join(child);
    RESULT(page[0]);
    struct shmid_ds about;
    CALL(shmctl(id, IPC_STAT, &about));
    RESULT(about.shm_segsz);
    RESULT(about.shm_nattch);
    CALL(shmdt(page));
    CALL(shmctl(id, IPC_RMID, NULL));
    CALL(shmat(id, NULL, 0) == (void *)-1 ? -1 : 0);
}

union argument {
    int value;
    struct semid_ds *about;
    unsigned short *all;
};

CASE(system_v_semaphores) {
    int id = semget(IPC_PRIVATE, 2, IPC_CREAT | 0600);
    NEED(id >= 0);
    unsigned short values[] = {0, 1};
    CALL(semctl(id, 0, SETALL, (union argument){.all = values}));
    struct sembuf take = {0, -1, 0}, give = {0, 1, 0}, try = {0, -1, IPC_NOWAIT};
    CALL(semop(id, &try, 1));
    pid_t child = fork();
    if (child == 0) {
        LATE(semop(id, &take, 1));
        say("the child has it");
        _exit(0);
    }
    settle();
    RESULT(semctl(id, 0, GETNCNT) >= 0);
    CALL(semop(id, &give, 1));
    join(child);
    CALL(semtimedop(id, &take, 1, &(struct timespec){0, 20000000}));
    child = fork();
    if (child == 0) {
        struct sembuf undone = {1, -1, SEM_UNDO};
        CALL(semop(id, &undone, 1));
        RESULT(semctl(id, 1, GETVAL));
        _exit(0);
    }
    join(child);
    RESULT(semctl(id, 1, GETVAL));
    child = fork();
    if (child == 0) {
        struct sembuf zero = {1, 0, 0};
        NEED(semop(id, &zero, 1) == 0);
        LATE(semop(id, &take, 1));
        _exit(0);
    }
    settle();
    CALL(semctl(id, 1, SETVAL, (union argument){.value = 0}));
    settle();
    struct semid_ds about;
    CALL(semctl(id, 0, IPC_STAT, (union argument){.about = &about}));
    RESULT(about.sem_nsems);
    CALL(semctl(id, 0, IPC_RMID));
    join(child);
    CALL(semop(id, &give, 1));
}

struct message {
    long kind;
    char text[16];
};

CASE(system_v_messages) {
    int id = msgget(IPC_PRIVATE, IPC_CREAT | 0600);
    NEED(id >= 0);
    struct message message = {2, "two"};
    CALL(msgrcv(id, &message, sizeof message.text, 0, IPC_NOWAIT));
    pid_t child = fork();
    if (child == 0) {
        struct message got;
        LATE(msgrcv(id, &got, sizeof got.text, 1, 0));
        say("got %ld %s", got.kind, got.text);
        _exit(0);
    }
    settle();
    CALL(msgsnd(id, &message, 4, 0));
    message = (struct message){1, "one"};
    settle();
    CALL(msgsnd(id, &message, 4, 0));
    join(child);
    struct msqid_ds about;
    CALL(msgctl(id, IPC_STAT, &about));
    RESULT(about.msg_qnum);
    about.msg_qbytes = 32;
    CALL(msgctl(id, IPC_SET, &about));
    child = fork();
    if (child == 0) {
        for (int i = 0; i < 3; i++) {
            message = (struct message){3, "abcdefghijklmno"};
            NEED(msgsnd(id, &message, 16, 0) == 0);
        }
        _exit(0);
    }
    settle();
    for (int i = 0; i < 4; i++)
        CALL(msgrcv(id, &message, sizeof message.text, 0, 0));
    join(child);
    CALL(msgctl(id, IPC_RMID, NULL));
    CALL(msgrcv(id, &message, 1, 0, 0));
}
