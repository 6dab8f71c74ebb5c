//! A line to a server that can be cut.

use crate::free_ports;
use std::{
    io::{self, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

/// What the line does with bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Line {
    Whole,
    /// Connections break, new ones too.
    Cut,
    /// Connections stay and nothing arrives, until the line is whole again.
    Silent,
    /// What passes takes so much longer, each way.
    Late(Duration),
}

#[derive(Debug)]
struct State {
    line: Line,
    /// Both ends of each connection.
    open: Vec<TcpStream>,
}

#[derive(Debug)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

/// Passes connections on to a server on the loopback interface.
#[derive(Debug)]
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

impl Proxy {
    /// A line to the server on `port`, whole until it is cut.
    ///
    /// # Errors
    /// If it cannot listen.
    pub fn start(port: u16) -> io::Result<Self> {
        let [own] = free_ports()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, own))?;
        let state = Mutex::new(State { line: Line::Whole, open: Vec::new() });
        let shared = Arc::new(Shared { state, changed: Condvar::new() });
        let accepting = shared.clone();
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                // A server that is away refuses, and so does this.
                let _ = accepting.connect(client, port);
            }
        });
        Ok(Self { port: own, shared })
    }

    /// Where it listens, on the loopback interface.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Breaks the connections that there are; new ones get through.
    pub fn sever(&self) {
        self.shared.lock().sever();
    }

    /// Breaks the connections, and each new one, until [`Self::heal`].
    pub fn cut(&self) {
        let mut state = self.shared.set(Line::Cut);
        state.sever();
    }

    /// Lets nothing arrive until [`Self::heal`], as a network that drops its packets.
    pub fn silence(&self) {
        drop(self.shared.set(Line::Silent));
    }

    /// Lets everything take `longer`, each way, until [`Self::heal`].
    pub fn delay(&self, longer: Duration) {
        drop(self.shared.set(Line::Late(longer)));
    }

    /// Makes the line whole again; what was under way arrives.
    pub fn heal(&self) {
        drop(self.shared.set(Line::Whole));
    }
}

impl State {
    fn sever(&mut self) {
        for end in self.open.drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn set(&self, line: Line) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        state.line = line;
        self.changed.notify_all();
        state
    }

    fn connect(self: &Arc<Self>, client: TcpStream, port: u16) -> io::Result<()> {
        if self.lock().line == Line::Cut {
            return client.shutdown(Shutdown::Both);
        }
        let server = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
        client.set_nodelay(true)?;
        server.set_nodelay(true)?;
        let mut state = self.lock();
        state.open.retain(|end| end.peer_addr().is_ok());
        state.open.extend([client.try_clone()?, server.try_clone()?]);
        drop(state);
        for (from, to) in [(client.try_clone()?, server.try_clone()?), (server, client)] {
            let shared = self.clone();
            thread::spawn(move || shared.pass(from, to));
        }
        Ok(())
    }

    fn pass(&self, mut from: TcpStream, mut to: TcpStream) {
        let mut bytes = [0; 16 * 1024];
        while let Ok(len @ 1..) = from.read(&mut bytes) {
            let silent = |state: &mut State| state.line == Line::Silent;
            let waited = self.changed.wait_while(self.lock(), silent);
            let line = waited.unwrap_or_else(PoisonError::into_inner).line;
            if let Line::Late(longer) = line {
                thread::sleep(longer);
            }
            if to.write_all(&bytes[..len]).is_err() {
                break;
            }
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_whole_silent_and_cut() -> io::Result<()> {
        let server = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let proxy = Proxy::start(server.local_addr()?.port())?;
        let open = || {
            let client = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port()))?;
            let served = server.accept()?.0;
            served.set_read_timeout(Some(Duration::from_millis(200)))?;
            io::Result::Ok((client, served))
        };
        let (mut client, mut served) = open()?;
        let mut byte = [0];
        client.write_all(b"a")?;
        served.read_exact(&mut byte)?;
        proxy.silence();
        client.write_all(b"b")?;
        assert!(served.read_exact(&mut byte).is_err());
        proxy.heal();
        served.set_read_timeout(None)?;
        served.read_exact(&mut byte)?;
        assert_eq!(&byte, b"b");
        proxy.delay(Duration::from_millis(400));
        served.set_read_timeout(Some(Duration::from_millis(200)))?;
        client.write_all(b"c")?;
        assert!(served.read_exact(&mut byte).is_err());
        served.set_read_timeout(None)?;
        served.read_exact(&mut byte)?;
        proxy.sever();
        assert_eq!(client.read(&mut byte)?, 0);
        drop(open()?);
        proxy.cut();
        let mut refused = TcpStream::connect((Ipv4Addr::LOCALHOST, proxy.port()))?;
        assert!(matches!(refused.read(&mut byte), Ok(0) | Err(_)));
        Ok(())
    }
}
