//! nginx as a service that writes down what it was asked.

use serde::Deserialize;
use std::{collections::HashMap, fmt::Write, fs};
use test_servers::{Nginx, free_ports};

pub(super) struct Reader(Nginx);

/// A line of its log.
#[derive(Deserialize)]
struct Line {
    address: String,
    status: String,
    request: String,
    body: String,
}

impl Reader {
    /// With an address for each of `cases`.
    pub(super) fn start(cases: usize) -> Self {
        let [port] = free_ports().unwrap();
        let listen = (0..cases).fold(String::new(), |mut all, number| {
            writeln!(all, "listen {}:{port};", address(number)).unwrap();
            all
        });
        // The body is read for the sake of whoever answers, and so it can be written down.
        let http = |folder: &std::path::Path| {
            let folder = folder.display();
            format!(
                r#"log_format line escape=json '{{"address":"$server_addr","status":"$status",'
                    '"request":"$request_method $request_uri","body":"$request_body"}}';
                client_max_body_size 4m; client_body_buffer_size 4m;
                client_body_in_single_buffer on;
                large_client_header_buffers 4 64k;
                merge_slashes off; underscores_in_headers on;
                server {{
                    access_log {folder}/log line;
                    listen 127.0.0.1:{port}; {listen}
                    location / {{ proxy_pass http://unix:{folder}/answers; }}
                }}
                server {{ listen unix:{folder}/answers; return 200 "yes"; }}"#
            )
        };
        Self(Nginx::start(port, http).unwrap())
    }

    pub(super) fn instance(&self, case: usize) -> String {
        format!("{}:{}", address(case), self.0.process().address().port())
    }

    /// The requests that it has answered, by the number of the case.
    pub(super) fn stop(self) -> HashMap<usize, Vec<String>> {
        let folder = self.0.stop();
        let mut read: HashMap<usize, Vec<String>> = HashMap::new();
        for line in fs::read_to_string(folder.path().join("log")).unwrap().lines() {
            let line: Line = serde_json::from_str(line).unwrap();
            if line.status == "200" {
                let said = format!("{} {}", line.request, line.body).trim_end().to_owned();
                read.entry(number(&line.address)).or_default().push(said);
            }
        }
        read
    }
}

/// An address of the loopback interface.
fn address(case: usize) -> String {
    format!("127.1.{}.{}", case / 250, case % 250 + 1)
}

fn number(address: &str) -> usize {
    let parts: Vec<usize> = address.split('.').map(|part| part.parse().unwrap()).collect();
    parts[2] * 250 + parts[3] - 1
}
