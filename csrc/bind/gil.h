// Running without Python's global interpreter lock, and coming back to it safely.
#pragma once

#include <chrono>
#include <exception>
#include <thread>
#include <utility>

#include "base/fp_env.h"
#include "bind/bind.h"
#include "runtime/interruptible.h"
#include "runtime/thread_pool.h"

namespace sepconv::bind {

inline bool finalizing() {
#if PY_VERSION_HEX >= 0x030D0000
  return Py_IsFinalizing();
#else
  return _Py_IsFinalizing();
#endif
}

// take() takes the GIL; its result. While the interpreter ends, Python up to 3.13 ends any other thread right there by
// pthread_exit, whose unwinding would run destructors that need the GIL: the thread waits for the process's end instead.
template <class Take>
auto take_gil(Take take) {
  try {
    return take();
  } catch (...) {
    for (;;) std::this_thread::sleep_for(std::chrono::hours(1));
  }
}

// The floating-point mode that the caller of without_gil() had, on its thread while it runs; else nullptr.
inline constinit thread_local const FloatMode* callers_mode = nullptr;

// Runs Python's signal handlers, in the caller's floating-point mode: true when one of them raised, as Ctrl-C's does. Where
// one forked, the child raises unless the call can go on with the thread that the child has.
inline bool interrupted() {
  if (finalizing()) return false;
  const PyGILState_STATE state = take_gil(PyGILState_Ensure);
  const bool lost_before = lost_threads();
  bool raised;
  {
    const WithFloatMode mode(callers_mode ? *callers_mode : FloatMode::current());
    raised = PyErr_CheckSignals() != 0;
  }
  if (!raised && !lost_before && lost_threads()) {
    PyErr_SetString(PyExc_RuntimeError,
                    "a signal handler forked during this call, and the child does not have the other threads that took part "
                    "in it: end the child in the handler, or call again");
    raised = true;
  }
  PyGILState_Release(state);
  return raised;
}

// work() without the GIL.
template <class Work>
auto without_gil(Work work) {
  std::exception_ptr error;
  decltype(work()) result{};
  const FloatMode mode = FloatMode::current();
  const FloatMode* const outer = std::exchange(callers_mode, &mode);
  const bool last = finalizing();  // then this thread is the one that ends the interpreter, and may go on
  PyThreadState* const state = PyEval_SaveThread();
  try {
    result = work();
  } catch (...) {
    error = std::current_exception();
  }
  callers_mode = outer;
  while (finalizing() && !last) std::this_thread::sleep_for(std::chrono::hours(1));
  take_gil([&] { PyEval_RestoreThread(state); });
  if (error) std::rethrow_exception(error);
  return result;
}

// The same; Ctrl-C stops it.
template <class Work>
void interruptibly(Work work) {
  const bool stopped = without_gil([&] {
    const Interruptible interruptible(interrupted);
    work();
    return interruptible.stopped();
  });
  if (stopped) throw py::error_already_set();
}

}  // namespace sepconv::bind
