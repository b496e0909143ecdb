delete from amends_barrier_fences where run = ?
