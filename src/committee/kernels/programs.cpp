/* Runs recorded programs; see programs.h. Compiled for every CPU: it belongs to no path. */
#include "programs.h"
#include <atomic>
#include <system_error>
#include <thread>
#include <vector>

namespace {

void run(const Index *step, const Index *end) {
  while (step < end) {
    const auto call = reinterpret_cast<void (*)(const Index *)>(step[0]);
    call(step + 2);
    step += 2 + step[1];
  }
}

} // namespace

/* Threads are made for each call, which costs some twenty microseconds, so that none lies idle, or is missing in a
 * process forked from this one. A new thread treats denormal numbers as its maker does. */
void run_programs(const Index *steps, const Index *starts, Index programs, int threads) {
  std::atomic<Index> next{0};
  const auto work = [&] {
    for (Index i; (i = next++) < programs;) run(steps + starts[i], steps + starts[i + 1]);
  };
  std::vector<std::thread> others;
  try {
    for (int i = 1; i < threads && i < programs; i++) others.emplace_back(work);
  } catch (const std::system_error &) { /* the system has no more of them: those that there are do the work */
  }
  work();
  for (std::thread &each : others) each.join();
}
