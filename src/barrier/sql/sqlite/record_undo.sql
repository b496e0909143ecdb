update amends_barrier set state = 'undone', undo_result = ?3, unrecorded = null, touched_at = unixepoch()
where run = ?1 and effect_key = ?2 and state = 'undoing'
