update amends_barrier set state = 'undone', undo_result = ?, unrecorded = null, touched_at = unix_timestamp()
where run = ? and effect_key = ? and state = 'undoing'
