//! What a node locks its ports with, and the files that say so, which are looked at again while it runs.

use super::Fatal;
use crate::config::{AuthSettings, Config};
use crate::edges::gate::Gate;
use crate::metrics::Metrics;
use crate::peers::certificates::Household;
use raftqueue_access::{Access, Audit, LoadError, News};
use raftqueue_tls::{Door, IsNode, Keys, Mode, Refreshed, Whom};
use std::io::Write as _;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, SystemTime};
use tokio::task::JoinSet;

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(2);
/// Looks in a row that find the files wrong before it is said: while several of them are being written, they do not fit together.
const WRONG_LOOKS: u32 = 3;

/// Lines of the audit that wait to be written, at most: some seconds of what it writes.
const AUDIT_LINES: usize = 1_024;

/// How each port lets in who comes.
#[derive(Clone, Debug)]
pub(super) struct Doors {
    pub(super) clients: Door,
    pub(super) peers: Door,
    pub(super) operations: Door,
}

/// The certificates of a node, and the rights of its callers.
#[derive(Debug)]
pub(super) struct Locks {
    pub(super) keys: Option<Arc<Keys>>,
    pub(super) doors: Doors,
    rights: Option<Arc<Access>>,
    /// What is refused and administered is noted there; `None` where nobody is ever refused.
    audit: Option<Arc<Audit>>,
}

impl Locks {
    /// Reads certificates and rights, if there are any.
    ///
    /// # Errors
    /// They are not right: with them the node would let in nobody, or everybody.
    pub(super) fn open(config: &Config, household: &Arc<Household>) -> Result<Self, Fatal> {
        let rights = config.auth.as_ref().map(read_rights).transpose()?;
        let audit = (rights.is_some() || config.tls.is_some()).then(|| Arc::new(Audit::new(written_aside())));
        let peers = config.tls.as_ref().map_or(Mode::Off, |tls| tls.peers);
        if rights.is_some() && peers != Mode::Required {
            tracing::error!(
                "--auth-file asks clients who they are, and the port of the peers asks nobody, since --tls-peers is {}: whoever reaches \
                 that port may do everything. Keep it from strangers, or encrypt it (--tls-peers required)",
                peers.name()
            );
        }
        let Some(settings) = &config.tls else {
            let doors = Doors { clients: Door::open(), peers: Door::open(), operations: Door::open() };
            return Ok(Self { keys: None, doors, rights, audit });
        };
        let wrong = |error| Fatal { code: 2, text: format!("certificates: {error}") };
        let keys = Arc::new(Keys::load(settings.files.clone()).map_err(wrong)?);
        let household = Arc::clone(household);
        let is_node: IsNode = Arc::new(move |identity| household.is_of_cluster(identity));
        let door = |mode, whom| Door::new(Arc::clone(&keys), mode, whom).knowing(Arc::clone(&is_node));
        // Who asks the operations port without TLS where it is wanted gets the probes and nothing else.
        let of_operations = if settings.clients == Mode::Off { Mode::Off } else { Mode::Optional };
        let doors = Doors {
            clients: door(settings.clients, Whom::Clients),
            peers: door(settings.peers, Whom::Peers),
            operations: door(of_operations, Whom::Clients),
        };
        Ok(Self { keys: Some(keys), doors, rights, audit })
    }

    /// What every call passes; `None` where everybody may do everything.
    pub(super) fn gate(&self) -> Option<Gate> {
        Some(Gate::new(self.rights.clone()?, self.audit.clone()?))
    }

    /// Where it is noted who is not let in.
    pub(super) fn audit(&self) -> Option<Arc<Audit>> {
        self.audit.clone()
    }

    /// Looks at all files again and again, as long as these tasks live.
    pub(super) fn keep(&self, metrics: &Arc<Metrics>, tasks: &mut JoinSet<()>) {
        if let Some(keys) = &self.keys {
            tasks.spawn(keep_keys(Arc::clone(keys), Arc::clone(metrics)));
        }
        if let Some(access) = &self.rights {
            tasks.spawn(keep_rights(Arc::clone(access), Arc::clone(metrics)));
        }
        if let Some(audit) = &self.audit {
            tasks.spawn(settle(Arc::clone(audit)));
        }
    }
}

fn read_rights(settings: &AuthSettings) -> Result<Arc<Access>, Fatal> {
    let wrong = |error: LoadError| Fatal { code: 2, text: format!("rights: {error}") };
    let access = Access::load(&settings.files, settings.api_server.clone()).map_err(wrong)?;
    Ok(Arc::new(access))
}

/// Writes lines beside the log: whoever collects that finds lines of JSON with `audit` in them. A thread of its own does, since whoever
/// reads them may be slow, or gone; what finds no room then is counted, and told once there is some.
fn written_aside() -> impl Fn(&str) + Send + Sync + 'static {
    let (lines, to_write) = mpsc::sync_channel::<String>(AUDIT_LINES);
    let left_out = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&left_out);
    // Ends with the last sender.
    let spawned = std::thread::Builder::new().name("audit".into()).spawn(move || {
        for line in to_write {
            let left_out = counted.swap(0, Ordering::Relaxed);
            let mut to = std::io::stderr().lock();
            // Nobody is left to be told if this fails.
            if left_out > 0 {
                let _ = writeln!(to, "{{\"audit\":\"left-out\",\"unwritten\":{left_out}}}");
            }
            let _ = writeln!(to, "{line}");
        }
    });
    if let Err(error) = spawned {
        tracing::error!("refusals and administration are not written down: {error}");
    }
    move |line| {
        if lines.try_send(line.to_owned()).is_err() {
            left_out.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Tells again and again what the audit has left out.
async fn settle(audit: Arc<Audit>) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        audit.settle(SystemTime::now());
    }
}

/// Looks at the rights again and again.
async fn keep_rights(access: Arc<Access>, metrics: Arc<Metrics>) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        looks.tick().await;
        let read = Arc::clone(&access);
        let Ok(outcome) = tokio::task::spawn_blocking(move || read.refresh()).await else { return };
        (0..outcome.broken).for_each(|_| metrics.tls().reload_failed());
        for News { path, is_broken, text } in outcome.news {
            let file = path.display();
            match is_broken {
                true => tracing::error!("{file}: {text}"),
                false => tracing::info!("{file}: {text}"),
            }
        }
    }
}

/// Looks at the certificates again and again.
async fn keep_keys(keys: Arc<Keys>, metrics: Arc<Metrics>) {
    tell(&keys, &metrics);
    let mut looks = tokio::time::interval(LOOK_EVERY);
    looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut wrong, mut told, mut was_right) = (0, String::new(), keys.trouble(SystemTime::now()).is_none());
    loop {
        looks.tick().await;
        let is_right = keys.trouble(SystemTime::now()).is_none();
        if std::mem::replace(&mut was_right, is_right) && !is_right {
            tell(&keys, &metrics);
        }
        let read = Arc::clone(&keys);
        // Files may be on a file system that hangs.
        let Ok(looked) = tokio::task::spawn_blocking(move || read.refresh()).await else { return };
        match looked {
            Ok(refreshed) => {
                (wrong, told) = (0, String::new());
                if refreshed == Refreshed::Changed {
                    tell(&keys, &metrics);
                }
            }
            Err(error) => {
                wrong += 1;
                metrics.tls().reload_failed();
                let text = error.to_string();
                if wrong >= WRONG_LOOKS && text != told {
                    tracing::error!(
                        "certificates have changed and are not right, so those before stay in force: {text}"
                    );
                    told = text;
                }
            }
        }
    }
}

/// Says which certificate is in force.
fn tell(keys: &Keys, metrics: &Metrics) {
    let Some(identity) = keys.identity() else { return };
    metrics.tls().expires(identity.expires());
    let now = SystemTime::now();
    match keys.trouble(now) {
        Some(trouble) => tracing::error!("{trouble}: nobody who checks it connects to this node"),
        None => {
            let days = identity.expires().duration_since(now).unwrap_or_default().as_secs() / 86_400;
            tracing::info!(names = identity.told(), expires_in_days = days, "the certificate in force");
        }
    }
}
