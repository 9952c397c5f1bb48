/* Asynchronous calls by the instructions of a library and of the program; and those of 32 bits. */
long from_a_library(long number);

#ifdef LIBRARY
long from_a_library(long number) {
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(0L), "S"(0L), "d"(0L)
                     : "rcx", "r11", "memory");
    return result;
}
#else
#include "../cases/conformance.h"
#include <sys/syscall.h>

static long from_here(long number) {
    long result;
    __asm__ volatile("syscall"
                     : "=a"(result)
                     : "a"(number), "D"(0L), "S"(0L), "d"(0L)
                     : "rcx", "r11", "memory");
    return result;
}

CASE(asynchronous) {
    RESULT(from_a_library(SYS_io_uring_setup));
    RESULT(from_a_library(SYS_io_uring_enter));
    RESULT(from_a_library(SYS_io_setup));
    RESULT(from_here(SYS_io_uring_setup));
    RESULT(from_here(SYS_io_setup));
}

CASE(of_32_bits) {
    /* time(2) has number 13 there. */
    long of_time;
    __asm__ volatile("int $0x80" : "=a"(of_time) : "a"(13L), "b"(0L) : "memory");
    RESULT((int)of_time);
}
#endif
