//! A client that asks one thing after another on one connection.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::TcpStream,
    time::Duration,
};

/// How long an answer may take.
const PATIENCE: Duration = Duration::from_secs(30);

pub(super) struct Client(BufReader<TcpStream>);

impl Client {
    /// Connects to `port` of this machine.
    pub(super) fn open(port: u16) -> Result<Self, String> {
        let open = || {
            let stream = TcpStream::connect(("127.0.0.1", port))?;
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            Ok(Self(BufReader::new(stream)))
        };
        open().map_err(|error: std::io::Error| format!("port {port}: {error}"))
    }

    /// Asks with the header field `field`; answers the status and the body, whose length the
    /// answer has to say.
    pub(super) fn ask(
        &mut self,
        method: &str,
        path: &str,
        field: &str,
    ) -> Result<(u16, String), String> {
        let asked = format!("{method} {path}");
        self.exchange(&format!("{asked} HTTP/1.1\r\nHost: a\r\n{field}\r\n\r\n"))
            .map_err(|error| format!("{asked}: {error}"))
    }

    fn exchange(&mut self, request: &str) -> std::io::Result<(u16, String)> {
        self.0.get_mut().write_all(request.as_bytes())?;
        let (mut status, mut length, mut line) = (0, 0, String::new());
        loop {
            line.clear();
            if self.0.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            match line.trim_end().split_once([' ', ':']) {
                None => break,
                Some((name, value)) if name.starts_with("HTTP/") => {
                    status = value.get(..3).and_then(|status| status.parse().ok()).unwrap_or(0);
                }
                Some((name, value)) if name.eq_ignore_ascii_case("content-length") => {
                    length = value.trim().parse().unwrap_or(0);
                }
                Some(_) => {}
            }
        }
        let mut body = vec![0; length];
        self.0.read_exact(&mut body)?;
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}
