"""A service that takes part in sagas, in Python's standard library: it charges orders.

    python3 service.py ledger.db [port]

Each call is one transaction: the barrier first, then the work, then what came of it. So a call that is
made again does nothing again, and a process that is killed has done all of a call or nothing.
"""

import hashlib
import json
import sqlite3
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

SCHEMA = """
create table if not exists charges (id text not null, order_id integer not null, cents integer not null);

create table if not exists amends_barrier_runs (
    run        text primary key,
    fence      integer not null,
    touched_at integer not null
);
create table if not exists amends_barrier (
    run          text not null,
    effect_key   text not null,
    state        text not null check (state in ('open', 'done', 'undoing', 'undone', 'void', 'never')),
    request      text,
    result       text,
    undo_request text,
    undo_result  text,
    attempt      integer,
    touched_at   integer not null,
    primary key (run, effect_key)
);
"""

# The highest fence of the run, this one included.
SEE = """
insert into amends_barrier_runs (run, fence, touched_at) values (:run, :fence, unixepoch())
on conflict (run) do update set fence = max(fence, excluded.fence), touched_at = excluded.touched_at
returning fence
"""

# What the key's row says once this call has been here. `:asks` is what it wants: an execute 'open', an
# undo 'void', a probe 'never'. Only an attempt that is later than those a probe has closed gets in.
ENTER = """
insert into amends_barrier as b (run, effect_key, state, request, undo_request, attempt, touched_at)
values (:run, :effect_key, :asks, :request, :undo_request, :attempt, unixepoch())
on conflict (run, effect_key) do update set
    request = case when b.state = 'never' and excluded.state = 'open' and excluded.attempt > b.attempt
        then excluded.request else b.request end,
    undo_request = case when b.state in ('done', 'never') and excluded.state = 'void'
        then excluded.undo_request else b.undo_request end,
    state = case
        when b.state = 'done' and excluded.state = 'void' then 'undoing'
        when b.state = 'never' and excluded.state = 'void' then 'void'
        when b.state = 'never' and excluded.state = 'open' and excluded.attempt > b.attempt then 'open'
        else b.state end,
    attempt = case
        when b.state = 'never' and excluded.state = 'never' and excluded.attempt is null then null
        when b.state = 'never' and excluded.state = 'never' and excluded.attempt > b.attempt
            then excluded.attempt
        else b.attempt end,
    touched_at = excluded.touched_at
returning state, request, result, undo_request, undo_result
"""

DONE = "update amends_barrier set state = 'done', result = :result where effect_key = :effect_key and run = :run"
UNDONE = "update amends_barrier set state = 'undone', undo_result = :result where effect_key = :effect_key and run = :run"


class Refused(Exception):
    """An answer that undoes the transaction."""

    def __init__(self, status, word, fence=None):
        self.status, self.word, self.fence = status, word, fence


class Call:
    """One call in one transaction."""

    def __init__(self, db, headers, body):
        self.db, self.body = db, body
        self.kind = headers["Amends-Call"]
        self.effect_key = headers["Amends-Effect-Key"]
        self.run = self.effect_key.split("/")[0]
        self.fence = int(headers["Amends-Fence"])
        attempt = headers["Amends-Attempt"]
        self.attempt = int(attempt) if attempt and self.kind != "compensate" else None

    def enter(self, asks, request=None, undo_request=None):
        names = {"run": self.run, "effect_key": self.effect_key, "fence": self.fence}
        (seen,) = self.db.execute(SEE, names).fetchone()
        if seen > self.fence:
            raise Refused(409, "stale", seen)
        names |= {"asks": asks, "request": request, "undo_request": undo_request, "attempt": self.attempt}
        return self.db.execute(ENTER, names).fetchone()

    def record(self, statement, result):
        names = {"run": self.run, "effect_key": self.effect_key, "result": json.dumps(result)}
        self.db.execute(statement, names)
        return result

    def execute(self, work):
        digest = hashlib.sha256(self.body).hexdigest()
        state, request, result, _, _ = self.enter("open", request=digest)
        if state == "open":
            return self.record(DONE, work(self.db, self.effect_key, json.loads(self.body)))
        if state != "done":
            raise Refused(409, "closed")
        if request != digest:
            raise Refused(422, "other-request")
        return json.loads(result)

    def compensate(self, undo):
        # The same undo may know the output the one time and not the other: only the input is compared.
        asked = json.loads(self.body)["input"]
        digest = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        state, _, result, request, undone = self.enter("void", undo_request=digest)
        if state == "undoing":
            # What was recorded is what happened, whether or not the coordinator has ever heard of it.
            return self.record(UNDONE, undo(self.db, json.loads(result)))
        if request != digest:
            raise Refused(422, "other-request")
        return json.loads(undone) if state == "undone" else None

    def probe(self):
        state, _, result, _, _ = self.enter("never")
        if state != "done":
            # From here on it is so: the transaction is committed before this is answered.
            return 410, "never", None
        return 200, None, json.loads(result)


def charge(db, key, order):
    if order["cents"] > 1_000_000:
        raise Refused(422, None)
    db.execute("insert into charges values (?, ?, ?)", (key, order["id"], order["cents"]))
    return {"id": key}


def refund(db, payment):
    db.execute("insert into charges select id || '/back', order_id, -cents from charges where id = ?", (payment["id"],))
    return None


class Service(BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        db = sqlite3.connect(sys.argv[1], timeout=30, isolation_level=None)
        status, word, fence, result = 200, None, None, None
        try:
            db.execute("begin immediate")
            call = Call(db, self.headers, body)
            match self.path, call.kind:
                case "/charges", "execute":
                    result = call.execute(charge)
                case "/refunds", "compensate":
                    result = call.compensate(refund)
                case "/charges/status", "probe":
                    status, word, result = call.probe()
                case _:
                    raise Refused(404, None)
            db.execute("commit")
        except Refused as refused:
            db.execute("rollback")
            status, word, fence = refused.status, refused.word, refused.fence
        except (AttributeError, KeyError, TypeError, ValueError):
            # Not a call of the protocol. Nothing was done, since nothing is committed.
            status = 400
        finally:
            db.close()
        self.answer(status, result, {"Amends-Barrier": word, "Amends-Fence": fence})

    def do_GET(self):
        db = sqlite3.connect(sys.argv[1])
        rows = db.execute("select order_id, cents from charges order by order_id, cents").fetchall()
        db.close()
        self.answer(200, rows, {})

    def answer(self, status, result, headers):
        text = json.dumps(result).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(text)))
        for name, value in headers.items():
            if value is not None:
                self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(text)

    def log_message(self, *_):
        pass


if __name__ == "__main__":
    setup = sqlite3.connect(sys.argv[1])
    setup.execute("pragma journal_mode = wal")
    setup.executescript(SCHEMA)
    setup.close()
    server = ThreadingHTTPServer(("127.0.0.1", int(sys.argv[2]) if len(sys.argv) > 2 else 0), Service)
    print(server.server_address[1], flush=True)
    server.serve_forever()
