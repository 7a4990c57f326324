//! The flags of the console.

use crate::edges::console::Settings;
use clap::Args;

/// What the console may do.
#[derive(Args, Clone, Debug, Default)]
pub struct ConsoleArgs {
    /// Do not serve the console, a page on the operations port that shows nodes, topics and messages, whatever
    /// else is said of it.
    #[arg(long, env = "RAFTQUEUE_NO_CONSOLE")]
    pub no_console: bool,

    /// Let the console redrive and drop messages. Without --auth-file it asks nobody who he is: whoever reaches the
    /// operations port may do it.
    #[arg(long, env = "RAFTQUEUE_CONSOLE_CHANGES")]
    pub console_changes: bool,

    /// Further names of this host under which browsers reach the console, as behind an ingress. Addresses, `localhost` and
    /// the node's own names are good as they are.
    #[arg(long, value_name = "HOST", value_delimiter = ',', env = "RAFTQUEUE_CONSOLE_HOST")]
    pub console_host: Vec<String>,
}

impl ConsoleArgs {
    /// What the flags amount to, on a node that has these addresses; `None` if there is no console.
    pub(super) fn settings(self, addresses: [&str; 3]) -> Option<Settings> {
        let host_of = |address: &str| address.rsplit_once(':').map_or(address, |(host, _)| host).to_owned();
        (!self.no_console).then(|| Settings {
            changes: self.console_changes,
            hosts: addresses.map(host_of).into_iter().chain(self.console_host).collect(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_goes_by_its_own_names_and_those_that_it_is_given() {
        let args = ConsoleArgs { console_host: vec!["queue.example.org".into()], ..ConsoleArgs::default() };
        let settings = args.settings(["demo-0", "demo-0.demo-headless:7420", "[::1]:7421"]);
        let hosts = ["demo-0", "demo-0.demo-headless", "[::1]", "queue.example.org"].map(str::to_owned);
        assert_eq!(settings, Some(Settings { changes: false, hosts: hosts.to_vec() }));
        assert_eq!(
            ConsoleArgs { no_console: true, ..ConsoleArgs::default() }.settings(["a", "b", "c"]),
            None
        );
    }
}
