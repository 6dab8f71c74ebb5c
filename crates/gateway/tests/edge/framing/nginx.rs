//! nginx as a service that writes down what it was asked.

use serde::Deserialize;
use std::{collections::HashMap, fmt::Write, path::PathBuf, process::Command};
use tempfile::TempDir;
use test_servers::{Process, free_ports};

pub(super) struct Nginx {
    process: Process,
    folder: TempDir,
}

/// A line of its log.
#[derive(Deserialize)]
struct Line {
    address: String,
    status: String,
    request: String,
    body: String,
}

impl Nginx {
    /// With an address for each of `cases`.
    pub(super) fn start(cases: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let [port] = free_ports().unwrap();
        let listen = (0..cases).fold(String::new(), |mut all, number| {
            writeln!(all, "listen {}:{port};", address(number)).unwrap();
            all
        });
        // The body is read for the sake of whoever answers, and so it can be written down.
        let config = format!(
            r#"
            daemon off; master_process off; pid {0}/pid; error_log {0}/errors;
            events {{ worker_connections 4096; }}
            http {{
                log_format line escape=json '{{"address":"$server_addr","status":"$status",'
                    '"request":"$request_method $request_uri","body":"$request_body"}}';
                access_log {0}/log line;
                client_body_temp_path {0}/b; proxy_temp_path {0}/p; fastcgi_temp_path {0}/f;
                uwsgi_temp_path {0}/u; scgi_temp_path {0}/s;
                client_max_body_size 4m; client_body_buffer_size 4m;
                client_body_in_single_buffer on;
                large_client_header_buffers 4 64k;
                merge_slashes off; underscores_in_headers on;
                server {{
                    listen 127.0.0.1:{port}; {listen}
                    location / {{ proxy_pass http://unix:{0}/answers; }}
                }}
                server {{ listen unix:{0}/answers; access_log off; return 200 "yes"; }}
            }}"#,
            folder.path().display()
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, config).unwrap();
        let log = folder.path().join("output");
        let mut command = Command::new("nginx");
        command.arg("-c").arg(file).arg("-e").arg(folder.path().join("errors"));
        let process = Process::start(&mut command, port, &log).unwrap();
        Self { process, folder }
    }

    pub(super) fn instance(&self, case: usize) -> String {
        format!("{}:{}", address(case), self.process.address().port())
    }

    /// The requests that it has answered, by the number of the case.
    pub(super) fn stop(self) -> HashMap<usize, Vec<String>> {
        drop(self.process);
        let log: PathBuf = self.folder.path().join("log");
        let mut read: HashMap<usize, Vec<String>> = HashMap::new();
        for line in std::fs::read_to_string(log).unwrap().lines() {
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
