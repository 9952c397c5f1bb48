/* Directory streams, and the times that a program sets on files. */
#include "conformance.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/time.h>
#include <utime.h>

static void make(const char *path) {
    int fd = open(path, O_CREAT | O_WRONLY, 0600);
    NEED(fd >= 0);
    close(fd);
}

static void make_some(const char *directory) {
    char path[64];
    NEED(mkdir(directory, 0700) == 0);
    for (int i = 0; i < 40; i++) {
        snprintf(path, sizeof path, "%s/file-%d-%.*s", directory, i * 7 % 40, i, "a long name of some letters and more");
        make(path);
    }
    snprintf(path, sizeof path, "%s/below", directory);
    NEED(mkdir(path, 0700) == 0);
}

static void remove_all(const char *directory) {
    char path[512];
    DIR *stream = opendir(directory);
    NEED(stream != NULL);
    for (struct dirent *one; (one = readdir(stream)) != NULL;) {
        snprintf(path, sizeof path, "%s/%s", directory, one->d_name);
        if (one->d_name[0] != '.')
            NEED(remove(path) == 0);
    }
    closedir(stream);
    NEED(rmdir(directory) == 0);
}

static int by_name(const struct dirent **a, const struct dirent **b) {
    return strcmp((*a)->d_name, (*b)->d_name);
}

static int only_files(const struct dirent *one) { return one->d_type == DT_REG; }

CASE(a_stream_lists_all_once) {
    make_some("listed");
    DIR *stream = opendir("listed");
    int count = 0, directories = 0, same = 0, lengths = 0;
    char path[512];
    errno = 0;
    for (struct dirent *one; (one = readdir(stream)) != NULL; count++) {
        struct stat st;
        snprintf(path, sizeof path, "listed/%s", one->d_name);
        NEED(lstat(path, &st) == 0);
        directories += one->d_type == DT_DIR;
        lengths += strlen(one->d_name);
        same += st.st_ino == one->d_ino;
    }
    result("errno", errno);
    result("count", count);
    result("directories", directories);
    result("lengths", lengths);
    result("inodes as stat has them", same);
    CODE(readdir(stream) == NULL);
    make("listed/another");
    rewinddir(stream);
    for (count = 0; readdir(stream) != NULL; count++)
        ;
    result("after rewinding", count);
    CALL(closedir(stream));
    remove_all("listed");
}

CASE(places_in_a_stream) {
    make_some("places");
    DIR *stream = opendir("places");
    char names[50][256];
    long places[50];
    int count = 0;
    for (;; count++) {
        places[count] = telldir(stream);
        struct dirent *one = readdir(stream);
        if (one == NULL)
            break;
        strcpy(names[count], one->d_name);
    }
    int found = 0;
    for (int i = count - 1; i >= 0; i -= 3) {
        seekdir(stream, places[i]);
        struct dirent *one = readdir(stream);
        found += one != NULL && strcmp(one->d_name, names[i]) == 0;
    }
    result("found again", found);
    seekdir(stream, places[count]);
    CODE(readdir(stream) == NULL);
    closedir(stream);
    remove_all("places");
}

CASE(streams_of_descriptors) {
    make_some("of-descriptor");
    int fd = open("of-descriptor", O_RDONLY | O_DIRECTORY);
    DIR *stream = fdopendir(fd);
    CODE(dirfd(stream) == fd);
    make("of-descriptor/late");
    int count = 0;
    while (readdir(stream) != NULL)
        count++;
    result("count", count);
    CALL(closedir(stream));
    CALL(close(fd));
    CODE(opendir("missing") == NULL ? errno : 0);
    make("a-file");
    CODE(opendir("a-file") == NULL ? errno : 0);
    fd = open("a-file", O_RDONLY);
    CODE(fdopendir(fd) == NULL ? errno : 0);
    CODE(fdopendir(-1) == NULL ? errno : 0);
    CODE(fdopendir(777) == NULL ? errno : 0);
    close(fd);
    unlink("a-file");
    stream = opendir("of-descriptor");
    result("closed by exec", fcntl(dirfd(stream), F_GETFD));
    closedir(stream);
    remove_all("of-descriptor");
}

#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wdeprecated-declarations"
CASE(readdir_r_copies) {
    make_some("copied");
    DIR *stream = opendir("copied");
    struct dirent entry, *given;
    int count = 0, code = 0;
    while ((code = readdir_r(stream, &entry, &given)) == 0 && given != NULL)
        count += given == &entry && entry.d_name[0] != 0;
    result("code", code);
    result("count", count);
    closedir(stream);
    remove_all("copied");
}
#pragma GCC diagnostic pop

CASE(scandir_filters_and_sorts) {
    make_some("scanned");
    struct dirent **list = NULL;
    int count = scandir("scanned", &list, only_files, by_name);
    result("count", count);
    for (int i = 0; i < count; i++) {
        if (i % 10 == 0)
            say("%s", list[i]->d_name);
        free(list[i]);
    }
    free(list);
    int fd = open(".", O_RDONLY | O_DIRECTORY);
    count = scandirat(fd, "scanned", &list, NULL, alphasort);
    result("count", count);
    say("%s %s", list[0]->d_name, list[2]->d_name);
    for (int i = 0; i < count; i++)
        free(list[i]);
    free(list);
    close(fd);
    CALL(scandir("missing", &list, NULL, NULL));
    remove_all("scanned");
}

CASE(a_fork_has_a_stream_of_its_own) {
    make_some("forked");
    DIR *stream = opendir("forked");
    readdir(stream);
    readdir(stream);
    pid_t child = fork();
    int count = 0, status = 0;
    if (child == 0) {
        rewinddir(stream);
        while (readdir(stream) != NULL)
            count++;
        _exit(count);
    }
    waitpid(child, &status, 0);
    result("the child's", WEXITSTATUS(status));
    rewinddir(stream);
    while (readdir(stream) != NULL)
        count++;
    result("the parent's", count);
    closedir(stream);
    remove_all("forked");
}

static void changed(const char *path) {
    struct stat st;
    NEED(lstat(path, &st) == 0);
    say("%s changed at %ld.%09ld", path, (long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
}

CASE(times_that_are_set_are_shown) {
    make("timed");
    NEED(symlink("timed", "timed-link") == 0);
    struct timespec both[2] = {{1000, 5}, {2000, 7}};
    CALL(utimensat(AT_FDCWD, "timed", both, 0));
    changed("timed");
    both[1].tv_sec = 3000;
    CALL(utimensat(AT_FDCWD, "timed-link", both, AT_SYMLINK_NOFOLLOW));
    changed("timed-link");
    changed("timed");
    int fd = open("timed", O_WRONLY);
    both[1].tv_sec = 4000;
    CALL(futimens(fd, both));
    changed("timed");
    both[1].tv_nsec = UTIME_OMIT;
    CALL(futimens(fd, both));
    changed("timed");
    struct timeval coarse[2] = {{10, 0}, {5000, 250}};
    CALL(utimes("timed", coarse));
    changed("timed");
    coarse[1].tv_sec = 6000;
    CALL(futimes(fd, coarse));
    changed("timed");
    coarse[1].tv_sec = 7000;
    CALL(lutimes("timed-link", coarse));
    changed("timed-link");
    CALL(futimesat(AT_FDCWD, "timed", coarse));
    changed("timed");
    struct utimbuf seconds = {1, 8000};
    CALL(utime("timed", &seconds));
    changed("timed");
    struct stat before, after;
    CALL(futimens(fd, NULL));
    NEED(fstat(fd, &before) == 0);
    result("now is later", before.st_mtime > 8000);
    NEED(write(fd, "x", 1) == 1);
    NEED(fstat(fd, &after) == 0);
    result("a write is later still", after.st_mtime >= before.st_mtime);
    coarse[1].tv_usec = 1000000;
    CALL(utimes("timed", coarse));
    both[1].tv_nsec = 1000000000;
    CALL(futimens(fd, both));
    CALL(utimes("missing", NULL));
    CALL(utime("missing", NULL));
    CALL(futimens(-1, NULL));
    close(fd);
    unlink("timed");
    unlink("timed-link");
}

CASE(syncs_in_other_words) {
    int fd = open("synced", O_CREAT | O_RDWR, 0600);
    NEED(write(fd, "abc", 3) == 3);
    CALL(sync_file_range(fd, 0, 3, SYNC_FILE_RANGE_WRITE));
    CALL(sync_file_range(fd, -1, 3, 0));
    CALL(sync_file_range(-1, 0, 3, 0));
    NEED(ftruncate(fd, 4096) == 0);
    char *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    NEED(page != MAP_FAILED);
    page[0] = 'z';
    CALL(msync(page, 4096, MS_SYNC));
    CALL(msync(page, 4096, MS_ASYNC));
    CALL(msync(page + 1, 4095, MS_SYNC));
    CALL(msync(page, 4096, MS_SYNC | MS_ASYNC));
    munmap(page, 4096);
    CALL(msync(page, 4096, MS_SYNC));
    sync();
    close(fd);
    unlink("synced");
}

