//! A proxy in front of a server that behaves as networks do when they are ill.
//!
//! Each connection is two pumps, one a direction. What ails them is looked up for every piece they pass on, so a change
//! is felt by connections that are open already. Ailments strike what the server says; what clients say passes.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering},
    },
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    runtime::Handle,
    sync::watch,
    task::AbortHandle,
};

/// What is passed on in one piece at most.
const PIECE: usize = 4096;

/// What ails the network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Toxic {
    /// Nothing.
    None,
    /// Everything arrives so much later.
    Latency(Duration),
    /// Nobody listens, and what was open is closed.
    Down,
    /// So many bytes a second.
    Bandwidth(u32),
    /// Once the server has closed, the client hears of it so much later.
    SlowClose(Duration),
    /// Nothing arrives any more, and everything stays open.
    BlackHole,
    /// Open connections are reset, and new ones after their first words.
    ResetPeer,
    /// Byte by byte.
    Slicer,
    /// A connection is closed after so many bytes.
    LimitData(u64),
    /// When a client says this word it is passed on, and the connection closed in the place of the answer.
    CutAfter(&'static str),
}

impl Toxic {
    /// Whether everything arrives in the end, if late.
    pub(crate) const fn lets_through(self) -> bool {
        match self {
            Self::None | Self::Latency(_) | Self::Bandwidth(_) | Self::SlowClose(_) | Self::Slicer => true,
            Self::Down | Self::BlackHole | Self::ResetPeer | Self::LimitData(_) | Self::CutAfter(_) => false,
        }
    }
}

/// A proxy. It ends, and its connections with it, when dropped.
pub(crate) struct Proxy {
    port: u16,
    state: Arc<State>,
    accepting: AbortHandle,
}

struct State {
    target: AtomicU16,
    toxic: watch::Sender<Toxic>,
    /// Raised to close what is open.
    closed: watch::Sender<u32>,
    accepted: AtomicU32,
}

impl State {
    fn ails(&self) -> Toxic {
        *self.toxic.borrow()
    }
}

impl Proxy {
    /// In front of the server at `target`, healthy.
    pub(crate) async fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("its address");
        let state = State {
            target: AtomicU16::new(target),
            toxic: watch::Sender::new(Toxic::None),
            closed: watch::Sender::new(0),
            accepted: AtomicU32::new(0),
        };
        let state = Arc::new(state);
        let accepting = Handle::current().spawn(accept(listener, address, Arc::clone(&state)));
        Self { port: address.port(), state, accepting: accepting.abort_handle() }
    }

    pub(crate) const fn port(&self) -> u16 {
        self.port
    }

    /// From now on this ails it.
    pub(crate) fn set(&self, toxic: Toxic) {
        self.state.toxic.send_replace(toxic);
        if matches!(toxic, Toxic::Down | Toxic::ResetPeer) {
            self.close_all();
        }
    }

    /// New connections lead to the server at `target`; open ones stay where they are.
    pub(crate) fn switch_to(&self, target: u16) {
        self.state.target.store(target, Ordering::Relaxed);
    }

    /// Closes what is open.
    pub(crate) fn close_all(&self) {
        self.state.closed.send_modify(|times| *times += 1);
    }

    /// Connections that were accepted.
    pub(crate) fn accepted(&self) -> u32 {
        self.state.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.close_all();
    }
}

async fn accept(listener: TcpListener, address: SocketAddr, state: Arc<State>) {
    let mut toxic = state.toxic.subscribe();
    let mut listener = Some(listener);
    loop {
        if *toxic.borrow_and_update() == Toxic::Down {
            listener = None;
            if toxic.changed().await.is_err() {
                return;
            }
            continue;
        }
        let open = match listener.take() {
            Some(open) => open,
            None => TcpListener::bind(address).await.expect("the port is still free"),
        };
        tokio::select! {
            accepted = open.accept() => {
                if let Ok((client, _)) = accepted {
                    state.accepted.fetch_add(1, Ordering::Relaxed);
                    Handle::current().spawn(serve(client, Arc::clone(&state)));
                }
            }
            _ = toxic.changed() => {}
        }
        listener = Some(open);
    }
}

/// Passes on what one client and the server say, until either closes or all are closed.
async fn serve(client: TcpStream, state: Arc<State>) {
    let mut closed = state.closed.subscribe();
    closed.mark_unchanged();
    let target = state.target.load(Ordering::Relaxed);
    // Without a server the client is hung up on.
    let Ok(server) = TcpStream::connect(("127.0.0.1", target)).await else { return };
    let reset = state.ails() == Toxic::ResetPeer;
    let (from_client, mut to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let cut = AtomicBool::new(false);
    tokio::select! {
        () = up(from_client, to_server, &state, &cut) => {}
        () = down(from_server, &mut to_client, &state, &cut) => {
            if let Toxic::SlowClose(pause) = state.ails() {
                tokio::time::sleep(pause).await;
            }
        }
        _ = closed.changed() => {}
    }
    if reset || state.ails() == Toxic::ResetPeer {
        // Without lingering a close is a reset.
        let _ = to_client.as_ref().set_zero_linger();
    }
}

/// What the client says.
async fn up(mut from: OwnedReadHalf, mut to: OwnedWriteHalf, state: &State, cut: &AtomicBool) {
    let mut piece = [0; PIECE];
    while let Ok(size @ 1..) = from.read(&mut piece).await {
        let toxic = state.ails();
        if let Toxic::CutAfter(word) = toxic
            && piece[..size].windows(word.len()).any(|said| said == word.as_bytes())
        {
            cut.store(true, Ordering::Relaxed);
        }
        if to.write_all(&piece[..size]).await.is_err() || toxic == Toxic::ResetPeer {
            return;
        }
    }
    // A client that is done with writing may still read.
    let _ = to.shutdown().await;
    std::future::pending().await
}

/// What the server says.
async fn down(mut from: OwnedReadHalf, to: &mut OwnedWriteHalf, state: &State, cut: &AtomicBool) {
    let (mut piece, mut passed) = ([0; PIECE], 0);
    while let Ok(size @ 1..) = from.read(&mut piece).await {
        let said = &piece[..size];
        let toxic = state.ails();
        let passed_on = match toxic {
            Toxic::BlackHole => std::future::pending().await,
            Toxic::Latency(late) => {
                tokio::time::sleep(late).await;
                to.write_all(said).await
            }
            Toxic::Bandwidth(bytes) => {
                tokio::time::sleep(Duration::from_secs(1) * u32::try_from(size).unwrap_or(0) / bytes).await;
                to.write_all(said).await
            }
            Toxic::Slicer => slice(said, to).await,
            Toxic::LimitData(limit) => {
                let left = usize::try_from(limit - passed).unwrap_or(0).min(size);
                let _ = to.write_all(&said[..left]).await;
                passed += left as u64;
                if passed == limit {
                    return;
                }
                Ok(())
            }
            // The server has answered, so it has done what the client asked for.
            Toxic::CutAfter(_) if cut.load(Ordering::Relaxed) => return,
            // The pump of the other direction, or the end of the connection, sees to the others.
            Toxic::None | Toxic::Down | Toxic::SlowClose(_) | Toxic::ResetPeer | Toxic::CutAfter(_) => {
                to.write_all(said).await
            }
        };
        if passed_on.is_err() {
            return;
        }
    }
}

async fn slice(said: &[u8], to: &mut OwnedWriteHalf) -> std::io::Result<()> {
    for byte in said {
        to.write_all(std::slice::from_ref(byte)).await?;
        tokio::task::yield_now().await;
    }
    Ok(())
}
