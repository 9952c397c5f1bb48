// What C++20's own synchronisation makes of futexes and POSIX objects.
#include "conformance.h"
#include <atomic>
#include <barrier>
#include <condition_variable>
#include <future>
#include <latch>
#include <mutex>
#include <semaphore>
#include <shared_mutex>
#include <stop_token>
#include <thread>
#include <vector>

using namespace std::chrono_literals;

CASE(atomic_wait) {
    std::atomic<int> value{0};
    std::thread other([&] {
        for (int i = 0; i < 100; i++) {
            value.wait(2 * i);
            value = 2 * i + 2;
            value.notify_one();
        }
    });
    for (int i = 0; i < 100; i++) {
        value = 2 * i + 1;
        value.notify_one();
        value.wait(2 * i + 1);
    }
    other.join();
    RESULT(value.load());
}

CASE(latches_and_barriers) {
    std::latch latch(4);
    int rounds = 0;
    std::barrier barrier(4, [&]() noexcept { rounds++; });
    std::vector<std::jthread> threads;
    for (int i = 0; i < 4; i++)
        threads.emplace_back([&] {
            latch.arrive_and_wait();
            for (int k = 0; k < 20; k++)
                barrier.arrive_and_wait();
        });
    threads.clear();
    RESULT(rounds);
    RESULT(latch.try_wait());
}

CASE(semaphores) {
    std::counting_semaphore<10> semaphore(0);
    std::jthread other([&] {
        for (int i = 0; i < 50; i++)
            semaphore.release();
    });
    for (int i = 0; i < 50; i++)
        semaphore.acquire();
    RESULT(semaphore.try_acquire());
    RESULT(semaphore.try_acquire_for(5ms));
    RESULT(semaphore.try_acquire_until(std::chrono::steady_clock::now() + 5ms));
}

CASE(stop_tokens) {
    std::mutex lock;
    std::condition_variable_any changed;
    std::jthread other([&](std::stop_token token) {
        std::unique_lock held(lock);
        bool came = changed.wait(held, token, [] { return false; });
        result("stopped without the condition", !came);
    });
    settle();
    RESULT(other.request_stop());
}

CASE(timed_mutexes) {
    std::timed_mutex timed;
    std::recursive_timed_mutex recursive;
    std::shared_timed_mutex shared;
    timed.lock();
    recursive.lock();
    shared.lock_shared();
    std::jthread([&] {
        RESULT(timed.try_lock_for(5ms));
        RESULT(timed.try_lock_until(std::chrono::system_clock::now() + 5ms));
        RESULT(recursive.try_lock_for(5ms));
        RESULT(shared.try_lock_for(5ms));
        RESULT(shared.try_lock_shared_for(5ms));
        shared.unlock_shared();
    }).join();
    RESULT(recursive.try_lock_for(5ms));
}

CASE(futures) {
    auto one = std::async(std::launch::async, [] {
        usleep(300000);
        return 5;
    });
    RESULT(one.wait_for(1ms) == std::future_status::timeout);
    RESULT(one.get());
    std::promise<int> promise;
    auto other = promise.get_future();
    std::jthread breaks([&] { promise.set_exception(std::make_exception_ptr(7)); });
    try {
        other.get();
    } catch (int value) {
        result("caught", value);
    }
}

CASE(errors) {
    std::mutex lock;
    std::unique_lock held(lock);
    try {
        held.lock();
    } catch (std::system_error &error) {
        code("lock twice", error.code().value());
    }
    std::thread self;
    try {
        self.join();
    } catch (std::system_error &error) {
        code("join of nothing", error.code().value());
    }
}
