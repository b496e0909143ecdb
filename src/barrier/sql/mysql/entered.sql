select state, request, result, undo_request, undo_result from amends_barrier
where run = ? and effect_key = ? for update
