update amends_barrier set state = 'done', result = ?, unrecorded = null, touched_at = unix_timestamp()
where run = ? and effect_key = ? and state = 'open'
