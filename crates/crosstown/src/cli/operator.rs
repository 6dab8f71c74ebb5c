//! What commands that ask a running node have in common.

use crate::cli::ConfigArgs;
use clap::Args;
use client::Client;

#[derive(Args)]
pub(super) struct NodeArgs {
    #[command(flatten)]
    config: ConfigArgs,
}

impl NodeArgs {
    /// A client of the configured node's admin listener.
    pub(super) fn client(&self) -> Result<Client, String> {
        let config = self.config.load()?;
        let file = config.admin.key_file(&config.stores);
        let key = std::fs::read_to_string(&file).map_err(|error| {
            format!(
                "cannot read the admin key {}: {error}; has the node been started?",
                file.display()
            )
        })?;
        Client::new(&format!("http://{}", config.admin.listen), key.trim())
            .map_err(|error| error.to_string())
    }
}

pub(super) fn said(error: client::Error) -> String {
    error.to_string()
}
