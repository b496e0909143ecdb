delete from amends_barrier where run = ?1
