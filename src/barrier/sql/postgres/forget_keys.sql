delete from amends_barrier where run = any ($1)
