//! The listening sockets: inherited from whoever started octo, as systemd does it (sd_listen_fds(3)), or bound here.
//!
//! An inherited socket outlives the process: while one octo goes and the next one comes, the kernel goes on
//! completing handshakes and keeps the connections in the socket's queue.

use std::{
    io,
    net::{SocketAddr, TcpListener as StdListener},
};

use listenfd::ListenFd;
use socket2::SockRef;
use tokio::net::{TcpListener, TcpSocket};

use crate::{app::CannotStart, config};

/// Sockets this process was started with. The first one that is not called `admin` is the public one.
#[derive(Debug, Default)]
pub struct Inherited {
    public: Option<StdListener>,
    admin: Option<StdListener>,
}

#[derive(Debug)]
pub(crate) struct Listener {
    pub(crate) socket: TcpListener,
    /// Others hold it too: what waits in its queue when we stop is theirs.
    pub(crate) is_inherited: bool,
}

impl Inherited {
    /// Takes what `LISTEN_FDS` says, if `LISTEN_PID` says that it is meant for us. Changes the environment, so that
    /// nothing we start takes the sockets for its own: call it before there are threads.
    pub fn take() -> Result<Self, CannotStart> {
        let names = std::env::var("LISTEN_FDNAMES").unwrap_or_default();
        let mut names = names.split(':');
        let mut sockets = ListenFd::from_env();
        let mut inherited = Self::default();
        for index in 0..sockets.len() {
            let name = names.next().unwrap_or_default();
            let socket = sockets.take_tcp_listener(index).and_then(|socket| match socket {
                Some(socket) if SockRef::from(&socket).is_listener()? => Ok(socket),
                _ => Err(io::Error::other("it is not listening")),
            });
            let socket = socket.map_err(|error| {
                CannotStart(format!(
                    "the inherited socket {index} (LISTEN_FDS) is not a listening TCP socket ({error}); check ListenStream= of the socket unit"
                ))
            })?;
            let place = if name == "admin" { &mut inherited.admin } else { &mut inherited.public };
            if place.is_some() {
                let which = if name == "admin" { "admin" } else { "public" };
                return Err(CannotStart(format!(
                    "two inherited sockets (LISTEN_FDS) are {which} ones; give one of them FileDescriptorName={}",
                    if name == "admin" { "public" } else { "admin" }
                )));
            }
            *place = Some(socket);
        }
        Ok(inherited)
    }

    /// Whether there is a predecessor to wait for, or a successor to leave connections to.
    pub(crate) fn is_any(&self) -> bool {
        self.public.is_some() || self.admin.is_some()
    }

    /// The public listener and the admin one, if there is to be one. What was inherited goes before what is
    /// configured, and the configuration says afterwards what is.
    pub(crate) fn listen(self, config: &mut config::Server) -> anyhow::Result<(Listener, Option<Listener>)> {
        let backlog = config.listen_backlog;
        let public = match self.public {
            Some(socket) => inherit(socket, backlog)?,
            None => bind(config.listen, backlog)?,
        };
        let admin = match (self.admin, config.admin_listen) {
            (Some(socket), _) => Some(inherit(socket, backlog)?),
            (None, Some(address)) => Some(bind(address, backlog)?),
            (None, None) => None,
        };
        if let Some(admin) = &admin {
            config.admin_listen = Some(admin.socket.local_addr()?);
        }
        Ok((public, admin))
    }
}

fn inherit(socket: StdListener, backlog: i32) -> anyhow::Result<Listener> {
    socket.set_nonblocking(true)?;
    SockRef::from(&socket).listen(backlog)?; // again: the queue must hold what comes between two processes
    Ok(Listener { socket: TcpListener::from_std(socket)?, is_inherited: true })
}

fn bind(address: SocketAddr, backlog: i32) -> anyhow::Result<Listener> {
    let listen = || {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        socket.listen(u32::try_from(backlog).unwrap_or(1))
    };
    let socket = listen().map_err(|error| {
        CannotStart(match error.kind() {
            io::ErrorKind::AddrInUse => {
                format!("{address} is in use by another program; choose a free one with --listen")
            }
            io::ErrorKind::PermissionDenied => {
                format!("{address} needs more permissions; choose a port from 1024 up with --listen")
            }
            _ => format!("cannot listen on {address} ({error}); choose another address with --listen"),
        })
    })?;
    Ok(Listener { socket, is_inherited: false })
}
