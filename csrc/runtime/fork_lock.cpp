#include "runtime/fork_lock.h"

#include <mutex>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#define SEPCONV_POSIX 1
#endif

namespace sepconv {
namespace {

// Never destroyed: threads may still come here while the process exits.
std::mutex& mutex() {
  static std::mutex& instance = *new std::mutex;
  return instance;
}

#if defined(SEPCONV_POSIX)
void lock() { mutex().lock(); }
void unlock() { mutex().unlock(); }
// The child's only thread is the one that locked before the fork, so it may unlock. Touching mutex() here makes it
// before there are threads.
[[maybe_unused]] const int registered = (mutex(), pthread_atfork(lock, unlock, unlock));
#endif

}  // namespace

ForkSafeLock::ForkSafeLock() { mutex().lock(); }
ForkSafeLock::~ForkSafeLock() { mutex().unlock(); }

}  // namespace sepconv
