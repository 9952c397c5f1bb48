/* Loading while other threads use the dynamic linker. */
#include "../cases/conformance.h"
#include <dlfcn.h>
#include <link.h>

static void *looks_up(void *unused) {
    for (int i = 0; i < 20; i++) {
        NEED(dlsym(RTLD_DEFAULT, "strlen") != NULL);
        Dl_info info;
        NEED(dladdr((void *)looks_up, &info) != 0);
        usleep(2000);
    }
    return unused;
}

static int waits(struct dl_phdr_info *info, size_t size, void *count) {
    (void)info;
    (void)size;
    usleep(1000);
    ++*(int *)count;
    return 0;
}

static void *iterates(void *unused) {
    int count = 0;
    dl_iterate_phdr(waits, &count);
    NEED(count > 2);
    return unused;
}

/* The library is found by the search path of the program, which calls. */
static void *loads(void *unused) {
    void *library = dlopen("liblibrary.so", RTLD_NOW);
    if (library == NULL)
        say("%s", dlerror());
    NEED(library != NULL);
    int *loaded = dlsym(library, "loaded");
    NEED(loaded != NULL && *loaded == 1);
    int (*answer)(void) = (int (*)(void))dlsym(library, "answer");
    NEED(answer != NULL && answer() == 42);
    NEED(dlclose(library) == 0);
    return unused;
}

/* The other functions that take the linker's lock. */
static void *asks(void *unused) {
    Lmid_t space = -7;
    struct link_map *map = NULL;
    Dl_info info;
    void *library = dlmopen(LM_ID_BASE, "liblibrary.so", RTLD_NOW);
    NEED(library != NULL);
    NEED(dlinfo(library, RTLD_DI_LMID, &space) == 0 && space == LM_ID_BASE);
    NEED(dladdr1(dlsym(library, "answer"), &info, (void **)&map, RTLD_DL_LINKMAP) != 0);
    NEED(map != NULL && strstr(map->l_name, "liblibrary.so") != NULL);
    NEED(dlclose(library) == 0);
    return unused;
}

static void *exits(void *unused) {
    usleep(2000);
    pthread_exit(unused);
}

CASE(exit_while_another_loads) {
    pthread_t t, loading;
    NEED(pthread_create(&loading, NULL, loads, NULL) == 0);
    NEED(pthread_create(&t, NULL, exits, NULL) == 0);
    NEED(pthread_join(t, NULL) == 0);
    NEED(pthread_join(loading, NULL) == 0);
}

CASE(alone) {
    loads(NULL);
    iterates(NULL);
    looks_up(NULL);
    asks(NULL);
}

CASE(many_threads) {
    void *(*const work[])(void *) = {loads, looks_up, iterates, asks, looks_up, loads};
    pthread_t t[6];
    for (int i = 0; i < 6; i++)
        NEED(pthread_create(&t[i], NULL, work[i], NULL) == 0);
    for (int i = 0; i < 6; i++)
        NEED(pthread_join(t[i], NULL) == 0);
    say("done");
}

static void *loads_and_exits(void *unused) {
    (void)unused;
    NEED(dlopen("liblibrary.so", RTLD_NOW) != NULL);
    pthread_exit(NULL);
}

CASE(exit_after_loading) {
    pthread_t t;
    for (int i = 0; i < 2; i++) {
        NEED(pthread_create(&t, NULL, loads_and_exits, NULL) == 0);
        NEED(pthread_join(t, NULL) == 0);
    }
    loads(NULL);
}
