/* Tells callgrind, from inside a process, what to count: see counted_instructions.py. */
#include <valgrind/callgrind.h>

void begin(void) {
  CALLGRIND_START_INSTRUMENTATION;
}

void count_from_here(void) {
  CALLGRIND_ZERO_STATS;
}

void counted(const char *name) {
  CALLGRIND_DUMP_STATS_AT(name);
}
