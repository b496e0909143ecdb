//! A service in Python, with nothing but its standard library and the barrier as plain SQL, takes part in
//! sagas, and is killed with SIGKILL in the middle.
#![cfg(all(feature = "http", unix))]
// Helpers of tests may panic: that is how a test fails.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use amends::participant::HttpParticipant;
use amends::policy::Jitter;
use amends::store::MemoryStore;
use amends::{Coordinator, Retry, Saga, StepError, step, step_fn};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Order {
    id: u64,
    cents: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Payment {
    id: String,
}

fn at(path: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), path].iter().collect()
}

/// The service as a process.
struct Python {
    process: Child,
    port: u16,
    ledger: PathBuf,
}

impl Python {
    fn start(ledger: &Path) -> Python {
        let mut process = Command::new("python3")
            .arg(at("tests/participants/service.py"))
            .arg(ledger)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 has to be installed");
        let mut line = String::new();
        let output = process.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        Python {
            process,
            port: line.trim().parse().unwrap(),
            ledger: ledger.to_owned(),
        }
    }

    /// By SIGKILL.
    fn kill(&mut self) {
        self.process.kill().unwrap();
        self.process.wait().unwrap();
    }

    fn kill_and_restart(&mut self) {
        self.kill();
        *self = Python::start(&self.ledger.clone());
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        self.kill();
    }
}

/// When the service is killed, in the middle of a call.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Killed {
    /// With half of the request there: nothing was done.
    HalfWay,
    /// With all of it there: anything may have been done.
    Asked,
    /// With its answer on the way: all was done, and nobody hears of it.
    Answered,
}

/// Between the saga and the service: kills it at every third call as long as fates are left, and starts it
/// again at once, on another port.
async fn proxy(python: Python, fates: Vec<Killed>) -> (String, Arc<Mutex<Proxied>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let proxied = Arc::new(Mutex::new(Proxied {
        python,
        fates,
        calls: 0,
        killed: Vec::new(),
    }));
    let shared = Arc::clone(&proxied);
    tokio::spawn(async move {
        loop {
            let (client, _) = listener.accept().await.unwrap();
            let shared = Arc::clone(&shared);
            // A call that is cut off is what this is about.
            tokio::spawn(async move { drop(carry(client, &shared).await) });
        }
    });
    (format!("http://{address}"), proxied)
}

struct Proxied {
    python: Python,
    /// Those that are left, the next one last.
    fates: Vec<Killed>,
    calls: usize,
    killed: Vec<Killed>,
}

async fn carry(mut client: TcpStream, shared: &Mutex<Proxied>) -> std::io::Result<()> {
    let request = request(&mut client).await?;
    let (fate, port) = {
        let mut proxied = shared.lock().unwrap();
        proxied.calls += 1;
        let third = proxied.calls.is_multiple_of(3);
        let fate = third.then(|| proxied.fates.pop()).flatten();
        (fate, proxied.python.port)
    };
    let carried = carry_to(port, &request, fate).await;
    if let Some(fate) = fate {
        let mut proxied = shared.lock().unwrap();
        match &carried {
            Ok(_) => {
                proxied.killed.push(fate);
                proxied.python.kill_and_restart();
            }
            // Another call has killed it meanwhile.
            Err(_) => proxied.fates.push(fate),
        }
        return Ok(());
    }
    client.write_all(&carried?.0).await
}

/// Carries a request as far as its fate lets it come; gives the answer, and the connection, which is open
/// when the service is killed.
async fn carry_to(
    port: u16,
    request: &[u8],
    fate: Option<Killed>,
) -> std::io::Result<(Vec<u8>, TcpStream)> {
    let mut service = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut answer = Vec::new();
    if fate == Some(Killed::HalfWay) {
        service.write_all(&request[..request.len() - 4]).await?;
        return Ok((answer, service));
    }
    service.write_all(request).await?;
    if fate != Some(Killed::Asked) {
        // It speaks HTTP/1.0: the end of the connection is the end of the answer.
        service.read_to_end(&mut answer).await?;
    }
    Ok((answer, service))
}

/// One request with its body.
async fn request(client: &mut TcpStream) -> std::io::Result<Vec<u8>> {
    let mut request = Vec::new();
    while !request.ends_with(b"\r\n\r\n") {
        request.push(client.read_u8().await?);
    }
    let head = String::from_utf8(request.clone()).unwrap().to_lowercase();
    let length = head.split("content-length: ").nth(1).unwrap();
    let length: usize = length.split("\r\n").next().unwrap().parse().unwrap();
    let mut body = vec![0; length];
    client.read_exact(&mut body).await?;
    request.extend(body);
    Ok(request)
}

/// Every third order is refused after it was charged.
fn saga(service: &HttpParticipant) -> Saga<Order, Payment> {
    let patient = || {
        Retry::constant()
            .initial(Duration::from_millis(20))
            .jitter(Jitter::None)
            .max_attempts(500)
    };
    let mut b = Saga::builder::<Order>("place-order");
    let order = b.input();
    let charge = service
        .call::<Order, Payment>("/charges")
        .compensate("/refunds");
    let payment = b.add(
        step("charge", charge)
            .probe(service.probe("/charges/status"))
            .retry(patient())
            .compensation_retry(patient()),
        order,
    );
    let check = step_fn(
        "check",
        async |_cx, (order, _): &(Order, Payment)| match order.id % 3 {
            0 => Err(StepError::rejected("no")),
            _ => Ok(()),
        },
        async |_cx, _input, _effect| Ok(()),
    );
    b.add(check, (order, payment));
    b.returns(payment).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_in_python_that_is_killed_nine_times_charges_each_order_once() {
    let folder = tempfile::tempdir().unwrap();
    let python = Python::start(&folder.path().join("ledger.db"));
    let fates = [Killed::Answered, Killed::HalfWay, Killed::Asked].repeat(3);
    let (url, proxied) = proxy(python, fates).await;
    let service = HttpParticipant::new(&url).unwrap();
    let saga = saga(&service);
    let coordinator = Coordinator::builder(MemoryStore::new()).register(&saga);
    let coordinator = coordinator.build().await.unwrap();
    let mut runs = Vec::new();
    for id in 1..=24 {
        let order = Order {
            id,
            cents: 100 + id,
        };
        runs.push((
            id,
            coordinator
                .start(&saga, format!("order-{id}").as_str(), order)
                .await
                .unwrap(),
        ));
    }
    for (id, run) in runs {
        let expected = if id % 3 == 0 {
            "compensated"
        } else {
            "completed"
        };
        assert_eq!(run.outcome().await.unwrap().word(), expected, "order {id}");
    }
    let direct = {
        let proxied = proxied.lock().unwrap();
        assert_eq!(proxied.killed.len(), 9);
        for how in [Killed::Answered, Killed::HalfWay, Killed::Asked] {
            let times = proxied.killed.iter().filter(|killed| **killed == how);
            assert_eq!(times.count(), 3, "{how:?}");
        }
        proxied.python.url()
    };
    let ledger: Vec<(u64, i64)> = reqwest::get(direct).await.unwrap().json().await.unwrap();
    let mut expected = Vec::new();
    for id in 1..=24_u64 {
        let cents = 100 + i64::try_from(id).unwrap();
        if id % 3 == 0 {
            expected.push((id, -cents));
        }
        expected.push((id, cents));
    }
    assert_eq!(ledger, expected);
}

/// Calls as a coordinator makes them.
struct Caller {
    client: reqwest::Client,
    url: String,
}

impl Caller {
    fn new(python: &Python) -> Caller {
        Caller {
            client: reqwest::Client::builder().no_proxy().build().unwrap(),
            url: python.url(),
        }
    }

    /// Status, word of the barrier, and body of one call.
    async fn call(
        &self,
        kind: &str,
        fence: u64,
        attempt: u32,
        body: &Value,
    ) -> (u16, String, Value) {
        let path = match kind {
            "execute" => "/charges",
            "compensate" => "/refunds",
            _ => "/charges/status",
        };
        let key = if kind == "compensate" {
            "run/charge/1/undo"
        } else {
            "run/charge/1"
        };
        let mut request = self
            .client
            .post(format!("{}{path}", self.url))
            .header("Idempotency-Key", key)
            .header("Amends-Effect-Key", "run/charge/1")
            .header("Amends-Fence", fence)
            .header("Amends-Call", kind);
        if kind != "compensate" {
            request = request.header("Amends-Attempt", attempt);
        }
        let answer = request.json(body).send().await.unwrap();
        let word = answer.headers().get("amends-barrier");
        let word = word.map_or("", |word| word.to_str().unwrap()).to_owned();
        (answer.status().as_u16(), word, answer.json().await.unwrap())
    }

    async fn ledger(&self) -> Vec<(u64, i64)> {
        reqwest::get(&self.url).await.unwrap().json().await.unwrap()
    }
}

#[tokio::test]
async fn the_service_answers_as_the_protocol_wants_it_whatever_the_order_of_the_calls() {
    let folder = tempfile::tempdir().unwrap();
    let order = json!({ "id": 1, "cents": 5 });
    let undo = json!({ "input": order, "effect": "in_doubt" });
    let paid = json!({ "id": "run/charge/1" });
    let said = |status: u16, word: &str| (status, word.to_owned(), Value::Null);
    let fresh = |name: &str| Python::start(&folder.path().join(name));

    // Twice, changed, looked for, undone twice, late.
    let python = fresh("one.db");
    let caller = Caller::new(&python);
    for attempt in [1, 2] {
        let answer = caller.call("execute", 1, attempt, &order).await;
        assert_eq!(answer, (200, String::new(), paid.clone()));
    }
    let changed = json!({ "id": 1, "cents": 6 });
    assert_eq!(
        caller.call("execute", 1, 3, &changed).await,
        said(422, "other-request")
    );
    assert_eq!(
        caller.call("probe", 1, 3, &order).await,
        (200, String::new(), paid.clone())
    );
    assert_eq!(caller.ledger().await, [(1, 5)]);
    let known = json!({ "input": order, "effect": "done", "output": paid });
    for body in [&undo, &known] {
        assert_eq!(caller.call("compensate", 1, 0, body).await, said(200, ""));
    }
    assert_eq!(
        caller.call("execute", 1, 4, &order).await,
        said(409, "closed")
    );
    assert_eq!(caller.call("probe", 1, 4, &order).await, said(410, "never"));
    assert_eq!(caller.ledger().await, [(1, -5), (1, 5)]);

    // Undone before it was done.
    let python = fresh("two.db");
    let caller = Caller::new(&python);
    for _ in 0..2 {
        assert_eq!(caller.call("compensate", 1, 0, &undo).await, said(200, ""));
    }
    assert_eq!(
        caller.call("execute", 1, 1, &order).await,
        said(409, "closed")
    );
    assert!(caller.ledger().await.is_empty());

    // A probe closes the key to the attempts that it asks about, and a later one gets in.
    let python = fresh("three.db");
    let caller = Caller::new(&python);
    assert_eq!(caller.call("probe", 1, 2, &order).await, said(410, "never"));
    for attempt in [1, 2] {
        assert_eq!(
            caller.call("execute", 1, attempt, &order).await,
            said(409, "closed")
        );
    }
    assert_eq!(
        caller.call("execute", 1, 3, &order).await,
        (200, String::new(), paid.clone())
    );
    assert_eq!(caller.ledger().await, [(1, 5)]);

    // A stale fence, whatever is called, and a business refusal that leaves the key open.
    let python = fresh("four.db");
    let caller = Caller::new(&python);
    let dear = json!({ "id": 1, "cents": 2_000_000 });
    assert_eq!(caller.call("execute", 1, 1, &dear).await, said(422, ""));
    assert_eq!(
        caller.call("execute", 2, 2, &order).await,
        (200, String::new(), paid.clone())
    );
    for (kind, body) in [
        ("execute", &order),
        ("probe", &order),
        ("compensate", &undo),
    ] {
        assert_eq!(
            caller.call(kind, 1, 3, body).await,
            said(409, "stale"),
            "{kind}"
        );
    }
    assert_eq!(caller.ledger().await, [(1, 5)]);
}

#[test]
fn the_page_has_the_service_as_it_is_run() {
    let path = at("docs/participants.md");
    let page = std::fs::read_to_string(&path).unwrap();
    let service = std::fs::read_to_string(at("tests/participants/service.py")).unwrap();
    let (begin, end) = ("<!-- begin service.py -->\n", "<!-- end service.py -->");
    let from = page.find(begin).unwrap() + begin.len();
    let to = page.find(end).unwrap();
    let renewed = format!(
        "{}\n```python\n{service}```\n\n{}",
        &page[..from],
        &page[to..]
    );
    if std::env::var_os("AMENDS_UPDATE").is_some() {
        std::fs::write(path, renewed).unwrap();
        return;
    }
    assert!(
        page == renewed,
        "docs/participants.md has another service.py; run the tests with AMENDS_UPDATE=1 and look at the difference"
    );
}
