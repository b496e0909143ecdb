insert ignore into amends_barrier_fences (run, fence) values (?, ?)
