//! A DNS server whose answers change as a test says.

use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::SRV},
};
use std::{
    collections::HashMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

/// The time to live of all records, in seconds.
const TTL: u32 = 1;

/// What is told of a name. Of one that nothing was said of, that it does not exist.
#[derive(Debug, Clone)]
pub enum Told {
    /// Its addresses; none: it exists without any.
    Addresses(Vec<IpAddr>),
    /// Its services: priority, weight, port, host.
    Services(Vec<(u16, u16, u16, String)>),
    /// Its IPv4 addresses; for those of IPv6, that the server failed.
    Half(Vec<IpAddr>),
    /// That the server failed.
    Failure,
    /// Nothing at all.
    Silence,
}

/// A DNS server (RFC 1035) by UDP on a loopback port, until dropped.
#[derive(Debug)]
pub struct Dns {
    address: SocketAddr,
    told: Arc<Mutex<HashMap<Name, Told>>>,
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    /// A server that knows no name.
    ///
    /// # Errors
    /// Those of the socket.
    pub fn start() -> io::Result<Self> {
        let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
        socket.set_read_timeout(Some(Duration::from_millis(50)))?;
        let address = socket.local_addr()?;
        let (told, end) = (Arc::<Mutex<HashMap<Name, Told>>>::default(), Arc::default());
        let (known, ends) = (Arc::clone(&told), Arc::clone(&end));
        let thread = std::thread::spawn(move || serve(&socket, &known, &ends));
        Ok(Self { address, told, end, thread: Some(thread) })
    }

    /// Where it listens.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// From now on it tells this of `name`.
    ///
    /// # Panics
    /// If that is no name.
    pub fn tell(&self, name: &str, told: Told) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).insert(full(name), told);
    }

    /// From now on `name` does not exist.
    ///
    /// # Panics
    /// If that is no name.
    pub fn forget(&self, name: &str) {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).remove(&full(name));
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn full(name: &str) -> Name {
    let mut name = Name::from_utf8(name).expect("a name").to_lowercase();
    name.set_fqdn(true);
    name
}

fn serve(socket: &UdpSocket, known: &Mutex<HashMap<Name, Told>>, end: &AtomicBool) {
    let mut bytes = [0; 4096];
    while !end.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut bytes) else { continue };
        let Ok(question) = Message::from_vec(&bytes[..length]) else { continue };
        let known = known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(Ok(answer)) = answer(&question, &known).map(|answer| answer.to_vec()) {
            let _ = socket.send_to(&answer, from);
        }
    }
}

fn answer(question: &Message, known: &HashMap<Name, Told>) -> Option<Message> {
    let query = question.queries.first()?.clone();
    let (name, kind) = (query.name().clone(), query.query_type());
    let mut answer =
        Message::new(question.metadata.id, MessageType::Response, question.metadata.op_code);
    answer.add_query(query);
    let data: Vec<RData> = match known.get(&name.to_lowercase()) {
        None => {
            answer.metadata.response_code = ResponseCode::NXDomain;
            Vec::new()
        }
        Some(Told::Half(addresses)) if kind == RecordType::A => {
            addresses.iter().map(|ip| RData::from(*ip)).collect()
        }
        Some(Told::Failure | Told::Half(_)) => {
            answer.metadata.response_code = ResponseCode::ServFail;
            Vec::new()
        }
        Some(Told::Silence) => return None,
        Some(Told::Addresses(addresses)) => {
            let family = if kind == RecordType::A { IpAddr::is_ipv4 } else { IpAddr::is_ipv6 };
            let is_asked = |ip: &&IpAddr| family(ip);
            addresses.iter().filter(is_asked).map(|ip| RData::from(*ip)).collect()
        }
        Some(Told::Services(services)) if kind == RecordType::SRV => {
            let service = |(priority, weight, port, host): &(u16, u16, u16, String)| {
                RData::SRV(SRV::new(*priority, *weight, *port, full(host)))
            };
            services.iter().map(service).collect()
        }
        Some(Told::Services(_)) => Vec::new(),
    };
    answer.add_answers(data.into_iter().map(|data| Record::from_rdata(name.clone(), TTL, data)));
    Some(answer)
}
