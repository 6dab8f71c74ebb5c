//! Ports that stay free until a server listens on them.

use std::{
    fs::{self, File},
    io,
    net::{Ipv4Addr, TcpListener},
    ops::Range,
    sync::Mutex,
};

/// Below the ports that Linux gives to clients and to listeners on port 0 (32,768 to 60,999), so
/// that none of them takes a port between its choice and its use.
const PORTS: Range<u16> = 10_000..32_768;

/// The locks of the ports that this process has chosen, and where to look for the next one.
static CHOSEN: Mutex<Option<Chosen>> = Mutex::new(None);

struct Chosen {
    locks: Vec<File>,
    next: u16,
}

/// `N` free loopback ports, that no other call answers while this process lives: not even one
/// of another process.
///
/// # Errors
/// If there are none, or a lock file cannot be made.
pub fn free_ports<const N: usize>() -> io::Result<[u16; N]> {
    let mut chosen = CHOSEN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let chosen = chosen.get_or_insert_with(Chosen::new);
    let mut ports = [0; N];
    for port in &mut ports {
        *port = chosen.one()?;
    }
    Ok(ports)
}

impl Chosen {
    /// Processes begin at different places, so that few meet.
    fn new() -> Self {
        let places = u32::from(PORTS.end - PORTS.start);
        let offset = std::process::id().wrapping_mul(97) % places;
        Self { locks: Vec::new(), next: PORTS.start + u16::try_from(offset).unwrap_or(0) }
    }

    fn one(&mut self) -> io::Result<u16> {
        let folder = std::env::temp_dir().join("test-ports");
        fs::create_dir_all(&folder)?;
        for _ in PORTS {
            let port = self.next;
            self.next = if port + 1 < PORTS.end { port + 1 } else { PORTS.start };
            let lock = File::create(folder.join(port.to_string()))?;
            if lock.try_lock().is_ok() && TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok() {
                self.locks.push(lock);
                return Ok(port);
            }
        }
        Err(io::Error::new(io::ErrorKind::AddrInUse, "no port is free"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_else_is_answered_a_chosen_port() {
        let (mut ours, mut theirs) = (Chosen::new(), Chosen::new());
        let chosen = [ours.one().unwrap(), theirs.one().unwrap(), ours.one().unwrap()];
        assert!(chosen.iter().all(|port| PORTS.contains(port)));
        assert!(chosen[0] != chosen[1] && chosen[1] != chosen[2] && chosen[0] != chosen[2]);
    }
}
