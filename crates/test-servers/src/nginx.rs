//! nginx.

use crate::Process;
use std::{io, path::Path, process::Command};
use tempfile::TempDir;

/// An nginx with one process.
#[derive(Debug)]
pub struct Nginx {
    process: Process,
    folder: TempDir,
}

impl Nginx {
    /// Starts one that listens on `port`, among other places that `http` may name: the
    /// directives of its `http` block, told the folder that is its own.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(port: u16, http: impl FnOnce(&Path) -> String) -> io::Result<Self> {
        let folder = tempfile::tempdir()?;
        let (path, http) = (folder.path().display(), http(folder.path()));
        let config = format!(
            "daemon off; master_process off; pid {path}/pid;\n\
             events {{ worker_connections 4096; }}\n\
             http {{\n\
             access_log off; client_body_temp_path {path}/b; proxy_temp_path {path}/p;\n\
             fastcgi_temp_path {path}/f; uwsgi_temp_path {path}/u; scgi_temp_path {path}/s;\n\
             {http}\n}}\n"
        );
        let file = folder.path().join("nginx.conf");
        std::fs::write(&file, config)?;
        let mut command = Command::new("nginx");
        command.arg("-c").arg(file).arg("-e").arg(folder.path().join("errors"));
        let process = Process::start(&mut command, port, &folder.path().join("output"))?;
        Ok(Self { process, folder })
    }

    /// Its process.
    #[must_use]
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Ends it, so that all of its log is written; gives its folder.
    #[must_use]
    pub fn stop(self) -> TempDir {
        self.folder
    }
}
