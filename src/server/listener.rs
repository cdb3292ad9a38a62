//! Listeners: binds them, and accepts connections from all of those that a worker has.
//!
//! Each worker has a TCP socket of its own for each address (`SO_REUSEPORT`), and shares the socket of a file.

use std::future::poll_fn;
use std::io;
use std::net::IpAddr;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;

use socket2::Domain;
use socket2::Protocol;
use socket2::Socket;
use socket2::Type;
use tokio::net::TcpListener;
use tokio::net::UnixListener;

use super::Failure;
use super::socket_file::SocketFile;
use super::stream::Stream;
use crate::config::ListenAddress;
use crate::config::Listener;
use crate::http::origin::Peer;
use crate::http::origin::TrustedProxies;
use crate::http::tls::Tls;
use crate::http::unserved::Unserved;

/// Connections that the kernel holds for each socket until they are accepted.
const BACKLOG: i32 = 4096;

/// The listeners of a worker, bound.
pub(super) type Bound = Vec<BoundListener>;

/// One listener of a worker, bound.
#[derive(Debug)]
pub(super) struct BoundListener {
    socket: BoundSocket,
    terms: Arc<Terms>,
}

/// What is spoken on a listener before HTTP.
#[derive(Debug)]
pub(super) struct Terms {
    /// The load balancers that have to say whose connections they pass on; without any, nobody does.
    pub(super) proxy_protocol: Option<TrustedProxies>,
    pub(super) tls: Option<Arc<Tls>>,
}

impl Terms {
    /// Whether connections begin with HTTP.
    pub(super) fn is_plain(&self) -> bool {
        self.proxy_protocol.is_none() && self.tls.is_none()
    }
}

#[derive(Debug)]
enum BoundSocket {
    Tcp(std::net::TcpListener),
    Unix(Arc<std::os::unix::net::UnixListener>),
}

/// All listeners, bound.
#[derive(Debug)]
pub(super) struct AllBound {
    /// Those of each worker.
    pub(super) by_worker: Vec<Bound>,
    /// With the ports that the system chose.
    pub(super) addresses: Vec<Listener>,
    /// Removed when they are dropped.
    pub(super) files: Vec<SocketFile>,
    /// The TLS of those that have it.
    pub(super) tls: Vec<Arc<Tls>>,
}

/// Binds all listeners.
///
/// # Errors
/// [`Failure::Listen`] with the one that cannot be bound.
pub(super) fn bind_all(listeners: &[Listener], workers: usize) -> Result<AllBound, Failure> {
    let by_worker = (0..workers.max(1)).map(|_| Bound::new()).collect();
    let mut all = AllBound { by_worker, addresses: Vec::new(), files: Vec::new(), tls: Vec::new() };
    for listener in listeners {
        let (sockets, address) = bind(listener, workers, &mut all.files)
            .map_err(|error| Failure::Listen(listener.address.to_string(), error))?;
        let tls = listener.tls.as_ref().map(|terms| Arc::new(Tls::new(listener.name.clone(), Arc::clone(terms))));
        all.tls.extend(tls.clone());
        let terms = Arc::new(Terms { proxy_protocol: listener.proxy_protocol.clone(), tls });
        for (worker, socket) in all.by_worker.iter_mut().zip(sockets) {
            worker.push(BoundListener { socket, terms: Arc::clone(&terms) });
        }
        all.addresses.push(Listener { address, ..listener.clone() });
    }
    Ok(all)
}

/// A socket for each worker, and the address with the port that the system chose.
fn bind(
    listener: &Listener,
    workers: usize,
    files: &mut Vec<SocketFile>,
) -> io::Result<(Vec<BoundSocket>, ListenAddress)> {
    match &listener.address {
        ListenAddress::Tcp(address) => {
            let sockets = bind_tcp(*address, workers)?;
            let address = sockets.first().map_or(Ok(*address), std::net::TcpListener::local_addr)?;
            Ok((sockets.into_iter().map(BoundSocket::Tcp).collect(), ListenAddress::Tcp(address)))
        }
        ListenAddress::Unix(path, mode) => {
            let (file, socket) = SocketFile::bind(path, *mode, BACKLOG)?;
            files.push(file);
            let socket = Arc::new(socket);
            let sockets = (0..workers.max(1)).map(|_| BoundSocket::Unix(Arc::clone(&socket)));
            Ok((sockets.collect(), listener.address.clone()))
        }
    }
}

/// One socket for each worker; the kernel distributes connections among them (`SO_REUSEPORT`).
fn bind_tcp(address: SocketAddr, workers: usize) -> io::Result<Vec<std::net::TcpListener>> {
    if workers <= 1 {
        return Ok(vec![bind_one(address, false)?]);
    }
    // A port that another process shares would lose half of the events to it. A listener without `SO_REUSEPORT` fails
    // if another process has the port.
    let address = bind_one(address, false)?.local_addr()?;
    (0..workers).map(|_| bind_one(address, true)).collect()
}

/// A socket that listens on an address.
///
/// # Errors
/// Those of the system.
pub(super) fn bind_one(address: SocketAddr, reuse_port: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(reuse_port)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// The listeners of a worker on its runtime.
#[derive(Debug)]
pub(super) struct Listeners {
    all: Vec<(AsyncSocket, Arc<Terms>)>,
    /// The one that is asked first next time, so that a busy one does not keep out the others.
    next: usize,
}

#[derive(Debug)]
enum AsyncSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// An accepted connection.
pub(super) struct Accepted {
    pub(super) stream: Stream,
    pub(super) peer: Peer,
    pub(super) terms: Arc<Terms>,
}

impl Accepted {
    /// The address whose connections are counted; `None` where a load balancer has still to tell it.
    ///
    /// # Errors
    /// [`Unserved::ProxyNotTrusted`] when the peer may not speak the PROXY protocol.
    pub(super) fn limited_address(&self) -> Result<Option<IpAddr>, Unserved> {
        match &self.terms.proxy_protocol {
            Some(trusted) if !trusted.trusts(&self.peer) => Err(Unserved::ProxyNotTrusted),
            Some(_) => Ok(None),
            None => Ok(self.peer.address()),
        }
    }
}

impl Listeners {
    /// The same sockets on the current runtime. They stay bound when these are dropped.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) fn new(bound: &Bound) -> io::Result<Self> {
        let all = bound.iter().map(|listener| {
            let socket = match &listener.socket {
                BoundSocket::Tcp(socket) => AsyncSocket::Tcp(TcpListener::from_std(socket.try_clone()?)?),
                BoundSocket::Unix(socket) => AsyncSocket::Unix(UnixListener::from_std(socket.try_clone()?)?),
            };
            Ok((socket, Arc::clone(&listener.terms)))
        });
        Ok(Self { all: all.collect::<io::Result<_>>()?, next: 0 })
    }

    /// The next connection of any of them.
    ///
    /// # Errors
    /// Those of the system.
    pub(super) async fn accept(&mut self) -> io::Result<Accepted> {
        poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<Accepted>> {
        let (before, after) = self.all.split_at(self.next.min(self.all.len()));
        for (offset, (socket, terms)) in after.iter().chain(before).enumerate() {
            if let Poll::Ready(accepted) = socket.poll_accept(cx) {
                let terms = Arc::clone(terms);
                self.next = (self.next + offset + 1) % self.all.len().max(1);
                return Poll::Ready(accepted.map(|(stream, peer)| Accepted { stream, peer, terms }));
            }
        }
        Poll::Pending
    }
}

impl AsyncSocket {
    fn poll_accept(&self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Peer)>> {
        match self {
            Self::Tcp(socket) => {
                socket.poll_accept(cx).map_ok(|(stream, address)| (Stream::Tcp(stream), Peer::new(address)))
            }
            Self::Unix(socket) => {
                socket.poll_accept(cx).map_ok(|(stream, _unnamed)| (Stream::Unix(stream), Peer::unix()))
            }
        }
    }
}
