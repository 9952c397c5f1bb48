/* What the machine's file systems and kernel would show otherwise. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/auxv.h>
#include <sys/stat.h>
#include <unistd.h>

static unsigned long inode_of(const char *path) {
    struct stat st;
    return stat(path, &st) == 0 ? st.st_ino : 0;
}

static void make(const char *path) {
    close(open(path, O_CREAT | O_WRONLY, 0600));
}

int main(void) {
    char path[64];
    mkdir("many", 0700);
    /* File systems list by hash or by age, not by name. */

    for (int i = 0; i < 100; i++) {
        snprintf(path, sizeof path, "many/%d", i * 3 % 100);
        make(path);
    }
    DIR *stream = opendir("many");
    for (struct dirent *one; (one = readdir(stream)) != NULL;)
        printf("%s ", one->d_name);
    closedir(stream);
    printf("\n");
    make("again");
    unsigned long first = inode_of("again");
    unlink("again");
    make("again");
    printf("the number comes again: %d\n", first == inode_of("again"));
    const unsigned char *random = (const unsigned char *)getauxval(AT_RANDOM);
    for (int i = 0; i < 16; i++)
        printf("%02x", random[i]);
    printf("\n");
    return 0;
}
