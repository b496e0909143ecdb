//! A proxy on the loopback device that plays tricks on the connections through it.
//!
//! It knows what a request is, and when its answer is complete, so that a trick hits exactly one: the answer of
//! a commit is lost although the commit is durable, a request never arrives, or it arrives after its sender
//! has given up. It runs in a thread of its own, and so outlives the runtime of a test that crashes it.

// No user of this file uses all of it, and its faults are those of the machine.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    dead_code,
    unreachable_pub
)]

use std::future::poll_fn;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::Poll;
use std::thread::JoinHandle;
use std::{io, thread};

use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream, UnixStream};
use tokio::sync::watch;

/// Where the proxy leads to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Way {
    /// A port.
    Tcp(SocketAddr),
    /// A socket.
    Unix(PathBuf),
}

impl From<SocketAddr> for Way {
    fn from(address: SocketAddr) -> Self {
        Self::Tcp(address)
    }
}

/// What is spoken through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire {
    /// PostgreSQL's protocol: a request goes to its `Sync` or is a simple query, and its answer to the
    /// `ReadyForQuery`.
    Postgres,
    /// Anything: a request is what comes in one piece, and so is its answer.
    Pieces,
}

/// What happens to a request, and to the connection that it came by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trick {
    /// It is carried out; when the answer is complete the connection is cut in its place.
    LoseAnswer,
    /// It never arrives: the connection is cut instead.
    Drop,
    /// The sender's connection is cut; the request arrives when [`Proxy::deliver`] is called.
    Later,
}

/// A proxy. Its thread, and all connections through it, end when it is dropped.
#[derive(Debug)]
pub struct Proxy {
    shared: Arc<Shared>,
    address: SocketAddr,
    thread: Option<JoinHandle<()>>,
}

/// A trick that is to be played, or has been.
#[derive(Clone, Debug)]
pub struct Planned(watch::Receiver<bool>);

impl Planned {
    /// Waits until it has been played: the connection is cut now, and where the answer was to be lost, what was
    /// asked for is done.
    pub async fn played(&mut self) {
        let played = self.0.wait_for(|played| *played).await;
        played.expect("the proxy is gone");
    }

    /// Whether it has been played.
    pub fn is_played(&self) -> bool {
        *self.0.borrow()
    }
}

#[derive(Debug)]
struct Shared {
    wire: Wire,
    way: Mutex<Way>,
    plans: Mutex<Vec<Plan>>,
    /// How often all connections were cut.
    cuts: watch::Sender<u64>,
    /// Whether answers are held back.
    held: watch::Sender<bool>,
    /// Whether new connections are hung up on.
    closed: watch::Sender<bool>,
    /// How often what is kept for later was asked for.
    deliveries: watch::Sender<u64>,
    /// How many requests are kept for later, or are being delivered.
    kept: watch::Sender<usize>,
    over: watch::Sender<bool>,
    open: AtomicUsize,
}

#[derive(Debug)]
struct Plan {
    text: Vec<u8>,
    before: usize,
    trick: Trick,
    played: watch::Sender<bool>,
}

impl Proxy {
    /// A proxy that passes everything on.
    pub fn start(way: impl Into<Way>, wire: Wire) -> Self {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            wire,
            way: Mutex::new(way.into()),
            plans: Mutex::default(),
            cuts: watch::Sender::new(0),
            held: watch::Sender::new(false),
            closed: watch::Sender::new(false),
            deliveries: watch::Sender::new(0),
            kept: watch::Sender::new(0),
            over: watch::Sender::new(false),
            open: AtomicUsize::new(0),
        });
        let thread = thread::spawn({
            let shared = Arc::clone(&shared);
            move || {
                let runtime = tokio::runtime::Builder::new_current_thread()
                    .enable_io()
                    .build()
                    .unwrap();
                let mut over = shared.over.subscribe();
                runtime.block_on(async {
                    tokio::select! {
                        () = accept(listener, &shared) => {}
                        _ = over.wait_for(|over| *over) => {}
                    }
                });
            }
        });
        Proxy {
            shared,
            address,
            thread: Some(thread),
        }
    }

    /// Its port of the loopback device.
    pub fn port(&self) -> u16 {
        self.address.port()
    }

    /// New connections lead there from now on.
    pub fn lead_to(&self, way: impl Into<Way>) {
        *lock(&self.shared.way) = way.into();
    }

    /// Cuts all connections now, as by a reset: what was on its way is lost.
    pub fn cut(&self) {
        self.shared.cuts.send_modify(|cuts| *cuts += 1);
    }

    /// Hangs up on new connections, or lets them through again.
    pub fn close(&self, closed: bool) {
        self.shared.closed.send_replace(closed);
    }

    /// Holds answers back, or lets them go on. Requests go through.
    pub fn hold(&self, held: bool) {
        self.shared.held.send_replace(held);
    }

    /// Plays a trick on the `nth` request from now on that contains this text, counted from 1.
    pub fn play(&self, trick: Trick, text: &str, nth: usize) -> Planned {
        let (played, planned) = watch::channel(false);
        lock(&self.shared.plans).push(Plan {
            text: text.as_bytes().to_vec(),
            before: nth.checked_sub(1).expect("counted from 1"),
            trick,
            played,
        });
        Planned(planned)
    }

    /// Takes back all tricks that have not been played.
    pub fn behave(&self) {
        lock(&self.shared.plans).clear();
    }

    /// Delivers the requests that were kept for later, and waits until they are carried out.
    pub async fn deliver(&self) {
        self.shared.deliveries.send_modify(|count| *count += 1);
        let mut kept = self.shared.kept.subscribe();
        kept.wait_for(|kept| *kept == 0).await.unwrap();
    }

    /// How many connections there are now.
    pub fn connections(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.over.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection through the proxy.
struct Line {
    shared: Arc<Shared>,
    /// How often all connections had been cut before this one was made.
    cuts: u64,
    counts: Mutex<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    /// Requests that were passed on. Logging in counts as one.
    asked: u64,
    /// Answers that are complete.
    answered: u64,
    /// The request whose answer is not passed on, and who wants to know of it.
    lost: Option<(u64, watch::Sender<bool>)>,
    /// Whether the next byte of the server is one that stands alone.
    single: bool,
}

/// How a connection ended.
enum End {
    /// One side hung up, or failed.
    Closed,
    Cut,
    Later(Vec<u8>, watch::Sender<bool>),
}

async fn accept(listener: std::net::TcpListener, shared: &Arc<Shared>) {
    let listener = TcpListener::from_std(listener).unwrap();
    loop {
        // Too many open files, say: the next one may fare better.
        let Ok((client, _)) = listener.accept().await else {
            tokio::task::yield_now().await;
            continue;
        };
        if *shared.closed.borrow() {
            let _ = client.set_zero_linger();
            continue;
        }
        let shared = Arc::clone(shared);
        let cuts = shared.cuts.subscribe();
        tokio::spawn(async move {
            shared.open.fetch_add(1, Ordering::SeqCst);
            // A server that is down is seen as a connection that ends.
            let _ = serve(client, cuts, &shared).await;
            shared.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn serve(
    mut client: TcpStream,
    mut cuts: watch::Receiver<u64>,
    shared: &Arc<Shared>,
) -> io::Result<()> {
    client.set_nodelay(true)?;
    let way = lock(&shared.way).clone();
    let server: Box<dyn Stream> = match way {
        Way::Tcp(address) => {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            Box::new(stream)
        }
        Way::Unix(path) => Box::new(UnixStream::connect(path).await?),
    };
    let line = Line {
        shared: Arc::clone(shared),
        cuts: *cuts.borrow(),
        counts: Mutex::default(),
    };
    let (mut from_server, mut to_server) = tokio::io::split(server);
    let end = {
        let (from_client, to_client) = client.split();
        tokio::select! {
            end = line.requests(from_client, &mut to_server) => end,
            end = line.answers(&mut from_server, to_client) => end,
            _ = cuts.changed() => Ok(End::Cut),
        }
    };
    match end? {
        End::Closed => {}
        // With a linger time of zero the close that follows sends RST instead of FIN.
        End::Cut => client.set_zero_linger()?,
        End::Later(request, played) => {
            let mut deliveries = shared.deliveries.subscribe();
            deliveries.mark_unchanged();
            shared.kept.send_modify(|kept| *kept += 1);
            client.set_zero_linger()?;
            drop(client);
            played.send_replace(true);
            let mut unheard = [0];
            tokio::select! {
                _ = deliveries.changed() => {
                    if to_server.write_all(&request).await.is_ok() {
                        lock(&line.counts).asked += 1;
                        line.to_the_end(&mut from_server).await;
                    }
                }
                // The server hung up, or said what reaches nobody any more.
                _ = from_server.read(&mut unheard) => {}
            }
            shared.kept.send_modify(|kept| *kept -= 1);
        }
    }
    Ok(())
}

impl Line {
    /// Passes requests on, and plays tricks on them.
    async fn requests(
        &self,
        mut client: impl AsyncRead + Unpin,
        server: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<End> {
        let mut seen = Vec::new();
        let mut begun = self.shared.wire == Wire::Pieces;
        loop {
            let mut from = 0;
            while let Some(part) = self.part(&seen[from..], begun) {
                let until = from + part.length;
                // What does not end a request waits until the rest is there: a trick hits all of it.
                if part.kind == Kind::Middle {
                    match self.end_of_request(&seen[from..]) {
                        Some(length) => {
                            let request = &seen[from..from + length];
                            if let Some(end) = self.request(request, server).await? {
                                return Ok(end);
                            }
                            from += length;
                            continue;
                        }
                        None => break,
                    }
                }
                match part.kind {
                    Kind::Request => {
                        if let Some(end) = self.request(&seen[from..until], server).await? {
                            return Ok(end);
                        }
                    }
                    Kind::Start => {
                        begun = true;
                        lock(&self.counts).asked += 1;
                        server.write_all(&seen[from..until]).await?;
                    }
                    Kind::Question => {
                        lock(&self.counts).single = true;
                        server.write_all(&seen[from..until]).await?;
                    }
                    Kind::Alone | Kind::Middle => server.write_all(&seen[from..until]).await?,
                }
                from = until;
            }
            seen.drain(..from);
            server.flush().await?;
            if client.read_buf(&mut seen).await? == 0 {
                return Ok(End::Closed);
            }
        }
    }

    async fn request(
        &self,
        request: &[u8],
        server: &mut (impl AsyncWrite + Unpin),
    ) -> io::Result<Option<End>> {
        // What is sent after a cut does not slip through before the cut is heard of.
        if *self.shared.cuts.borrow() != self.cuts {
            return Ok(Some(End::Cut));
        }
        match self.trick(request) {
            Some((Trick::Drop, played)) => {
                played.send_replace(true);
                return Ok(Some(End::Cut));
            }
            Some((Trick::Later, played)) => return Ok(Some(End::Later(request.to_vec(), played))),
            Some((Trick::LoseAnswer, played)) => {
                let mut counts = lock(&self.counts);
                counts.lost = Some((counts.asked, played));
            }
            None => {}
        }
        lock(&self.counts).asked += 1;
        server.write_all(request).await?;
        Ok(None)
    }

    fn trick(&self, request: &[u8]) -> Option<(Trick, watch::Sender<bool>)> {
        let mut plans = lock(&self.shared.plans);
        let contains = |text: &[u8]| {
            text.is_empty() || request.windows(text.len()).any(|window| window == text)
        };
        for index in 0..plans.len() {
            if contains(&plans[index].text) {
                if plans[index].before == 0 {
                    let plan = plans.remove(index);
                    return Some((plan.trick, plan.played));
                }
                plans[index].before -= 1;
            }
        }
        None
    }

    /// Passes answers on, but for one that is to be lost.
    async fn answers(
        &self,
        server: &mut (impl AsyncRead + Unpin),
        mut client: impl AsyncWrite + Unpin,
    ) -> io::Result<End> {
        let mut held = self.shared.held.subscribe();
        let mut seen = Vec::new();
        loop {
            let mut from = 0;
            while let Some(length) = self.answer_part(&seen[from..]) {
                let part = &seen[from..from + length];
                let complete = self.shared.wire == Wire::Pieces || part[0] == b'Z';
                let (lost, single) = {
                    let mut counts = lock(&self.counts);
                    let single = std::mem::take(&mut counts.single);
                    let lost = counts.lost.as_ref();
                    let lost = lost.is_some_and(|(request, _)| *request == counts.answered);
                    if complete && !single {
                        counts.answered += 1;
                    }
                    if lost && complete {
                        let (_, played) = counts.lost.take().expect("it is there");
                        played.send_replace(true);
                        return Ok(End::Cut);
                    }
                    (lost, single)
                };
                if !lost || single {
                    // Whoever lets go of the proxy lets go of its connections.
                    let _ = held.wait_for(|held| !*held).await;
                    client.write_all(part).await?;
                }
                from += length;
            }
            seen.drain(..from);
            client.flush().await?;
            if server.read_buf(&mut seen).await? == 0 {
                return Ok(End::Closed);
            }
        }
    }

    /// Hears the server out, until all answers are complete.
    async fn to_the_end(&self, server: &mut (impl AsyncRead + Unpin)) {
        let answers = self.answers(server, tokio::io::sink());
        tokio::pin!(answers);
        poll_fn(|cx| {
            let ended = answers.as_mut().poll(cx).is_ready();
            let counts = lock(&self.counts);
            if ended || counts.answered == counts.asked {
                Poll::Ready(())
            } else {
                Poll::Pending
            }
        })
        .await;
    }

    /// The first message that is complete, as far as it goes.
    fn part(&self, seen: &[u8], begun: bool) -> Option<Part> {
        if self.shared.wire == Wire::Pieces {
            let length = seen.len();
            let kind = Kind::Request;
            return (length > 0).then_some(Part { kind, length });
        }
        if !begun {
            // Before the session begins messages have no type.
            let length = number(seen.get(..4)?);
            let code = number(seen.get(4..8)?);
            let kind = match code {
                // Requests for TLS or GSS encryption, answered by a byte.
                80_877_103 | 80_877_104 => Kind::Question,
                80_877_102 => Kind::Alone,
                _ => Kind::Start,
            };
            return (seen.len() >= length).then_some(Part { kind, length });
        }
        let length = message(seen)?;
        let kind = match seen[0] {
            b'Q' | b'F' | b'S' => Kind::Request,
            // Passwords, the end, and what asks to be answered at once.
            b'p' | b'X' | b'H' => Kind::Alone,
            _ => Kind::Middle,
        };
        Some(Part { kind, length })
    }

    /// How long the request is that begins here, once it is complete.
    fn end_of_request(&self, seen: &[u8]) -> Option<usize> {
        let mut from = 0;
        loop {
            let part = self.part(&seen[from..], true)?;
            from += part.length;
            if part.kind != Kind::Middle {
                return Some(from);
            }
        }
    }

    /// How long the first message of the server is, once it is complete.
    fn answer_part(&self, seen: &[u8]) -> Option<usize> {
        if self.shared.wire == Wire::Pieces || lock(&self.counts).single {
            let length = if self.shared.wire == Wire::Pieces {
                seen.len()
            } else {
                1
            };
            return (!seen.is_empty()).then_some(length);
        }
        message(seen)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Start,
    Question,
    Alone,
    Middle,
    Request,
}

struct Part {
    kind: Kind,
    length: usize,
}

/// How long the message is that begins here, with its type, once it is complete.
fn message(seen: &[u8]) -> Option<usize> {
    let length = 1 + number(seen.get(1..5)?);
    (seen.len() >= length).then_some(length)
}

fn number(bytes: &[u8]) -> usize {
    let bytes = bytes.iter();
    bytes.fold(0, |number, byte| number << 8 | usize::from(*byte))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
