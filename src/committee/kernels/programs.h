/* Programs: calls of kernels one after the other, recorded once and run many times without Python between them. */
#pragma once
#include "table.h"

/* Runs programs, so many of them at once. A program is a list of calls, each the address of its `from_list`, the number
 * of its arguments, and these; starts (program + 1) says where in steps each begins, and where the last one ends.
 * Programs that run together share nothing that one of them writes. */
void run_programs(const Index *steps, const Index *starts, Index programs, int threads);
