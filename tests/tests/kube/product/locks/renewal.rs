//! Certificates that run out, and the change of their authority, on a cluster at work. What takes months is brought about by certificates
//! with other dates: the keys that sign are in a Secret, which an administrator may read. What the operator does about them is its own.

use super::load::{Calls, Known, TOPIC, TlsLoad};
use crate::case::{Outcome, Room};
use crate::product::tls::touch;
use crate::product::{BoxError, Queue, TOLD_WITHIN, soon, uids};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use rcgen::{KeyPair, SigningKey as _};
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, UNIX_EPOCH};

const DAY: i64 = 86_400;
/// How long a change of the authority waits until every node has it for sure, as the operator's README says, and a little.
const SPREAD: i64 = 3_600 + 60;
/// How long such a certificate still lasts that is about to run out, in seconds: longer than the case.
const ALMOST_OVER: i64 = 600;
/// When the certificate that a node shows runs out.
const EXPIRES: &str = "raftqueue_tls_certificate_expires_timestamp_seconds";
/// Handshakes that a port has refused.
const FAILED: &str = "raftqueue_tls_handshakes_failed_total";
/// What a node logs when it has read its files.
const READ: &str = "the certificate in force";
const NODES: usize = 3;

type Files = BTreeMap<String, String>;

fn now() -> i64 {
    i64::try_from(UNIX_EPOCH.elapsed().unwrap_or_default().as_secs()).unwrap_or_default()
}

/// An element of DER and what comes behind it: its kind, what it holds, and itself.
fn element(der: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (length, begin) = match *der.get(1)? {
        short @ ..0x80 => (usize::from(short), 2),
        long => {
            let bytes = der.get(2..2 + usize::from(long & 0x7f))?;
            (bytes.iter().fold(0, |length, byte| (length << 8) | usize::from(*byte)), 2 + bytes.len())
        }
    };
    let end = begin + length;
    Some((der.get(begin..end)?, der.get(..end)?, der.get(end..)?))
}

/// An element of this kind. Its length is as short as can be.
fn wrapped(kind: u8, content: &[u8]) -> Vec<u8> {
    let head = match u16::try_from(content.len()).expect("certificates are small").to_be_bytes() {
        [0, low @ ..0x80] => vec![kind, low],
        [0, low] => vec![kind, 0x81, low],
        [high, low] => vec![kind, 0x82, high, low],
    };
    [&head, content].concat()
}

/// A moment as certificates have it.
fn moment(seconds: i64) -> String {
    let at = rcgen::date_time_ymd(1970, 1, 1) + Duration::from_secs(u64::try_from(seconds).unwrap_or(0));
    let (year, month) = (at.year() % 100, u8::from(at.month()));
    format!("{year:02}{month:02}{:02}{:02}{:02}{:02}Z", at.day(), at.hour(), at.minute(), at.second())
}

/// The same certificate with other dates, signed anew with the key of its authority.
fn redated(pem: &str, key: &str, from: i64, until: i64) -> Result<String, BoxError> {
    let text: String = pem.lines().filter(|line| !line.starts_with('-')).collect();
    let der = BASE64.decode(text)?;
    let strange = || format!("no certificate that is known here: {pem}");
    let (whole, ..) = element(&der).ok_or_else(strange)?;
    let (_, told, rest) = element(whole).ok_or_else(strange)?;
    let (_, algorithm, _) = element(rest).ok_or_else(strange)?;
    let mut told = told.to_vec();
    // Two moments of thirteen letters each.
    let dates = told.windows(4).position(|part| part == [0x30, 0x1e, 0x17, 0x0d]).ok_or_else(strange)?;
    for (at, seconds) in [(dates + 4, from), (dates + 19, until)] {
        told[at..at + 13].copy_from_slice(moment(seconds).as_bytes());
    }
    let signature = KeyPair::from_pem(key)?.sign(&told)?;
    let signature = wrapped(3, &[&[0], signature.as_slice()].concat());
    let text = BASE64.encode(wrapped(0x30, &[&told, algorithm, &signature].concat()));
    let lines: Vec<&str> =
        text.as_bytes().chunks(64).filter_map(|line| std::str::from_utf8(line).ok()).collect();
    Ok(format!("-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n", lines.join("\n")))
}

/// The files of a Secret, or of a ConfigMap.
fn files(room: &Room<'_>, kind: &str, name: &str) -> Result<Files, BoxError> {
    let data = room.get(kind, name)?["data"].clone();
    let mut files = Files::new();
    for (file, text) in data.as_object().into_iter().flatten() {
        let text = text.as_str().unwrap_or_default();
        let bytes = if kind == "secret" { BASE64.decode(text)? } else { text.as_bytes().to_vec() };
        files.insert(file.clone(), String::from_utf8(bytes)?);
    }
    Ok(files)
}

/// Changes files of a Secret.
fn write(room: &Room<'_>, secret: &str, files: &Files) -> Outcome {
    let data: Map<String, Value> =
        files.iter().map(|(file, text)| (file.clone(), json!(BASE64.encode(text)))).collect();
    let patch = json!({"data": data}).to_string();
    room.kubectl(&["patch", "secret", secret, "--type=merge", "-p", &patch])?;
    Ok(())
}

/// The cluster of the case, and a client of it.
struct Renewal<'a> {
    queue: Queue<'a>,
    known: Known,
}

impl Renewal<'_> {
    /// The certificates of all who have one, by their files, with these dates from now on. They are signed by the authority that signs.
    fn redate(&self, dates: impl Fn(&str) -> (i64, i64)) -> Result<Files, BoxError> {
        let key = &files(self.queue.room, "secret", "demo-node-ca")?["ca.key"];
        let mut redates = files(self.queue.room, "secret", "demo-node-tls")?;
        redates.retain(|file, _| file.ends_with(".crt") && file != "ca.crt");
        for (file, pem) in &mut redates {
            let (from, until) = dates(file);
            *pem = redated(pem, key, now() + from, now() + until)?;
        }
        write(self.queue.room, "demo-node-tls", &redates)?;
        Ok(redates)
    }

    /// The authority that signs, as if it had been made at another time.
    fn redate_authority(&self, from: i64, until: i64) -> Outcome {
        let authority = files(self.queue.room, "secret", "demo-node-ca")?;
        let pem = redated(&authority["ca.crt"], &authority["ca.key"], now() + from, now() + until)?;
        write(self.queue.room, "demo-node-ca", &[("ca.crt".to_owned(), pem)].into())?;
        touch(self.queue.room)
    }

    /// Whether the operator is to change nothing for now.
    fn pause(&self, is_paused: bool) -> Outcome {
        let patch = json!({"spec": {"paused": is_paused}}).to_string();
        self.queue.room.kubectl(&["patch", "raftqueue", "demo", "--type=merge", "-p", &patch])?;
        let holds = if is_paused { "True" } else { "False" };
        self.queue.wait_condition("Paused", holds, None, TOLD_WITHIN)?;
        Ok(())
    }

    /// The sum of a series of a node.
    fn metric(&self, node: usize, series: &str) -> Result<f64, BoxError> {
        let url = format!("https://demo-{node}.{}:7422/metrics", self.known.domain);
        let output = self.known.curl(&[&url]).output()?;
        let text = super::load::said(&output);
        let lines = text.lines().filter(|line| line.starts_with(series));
        let values: Vec<f64> = lines
            .filter_map(|line| line.rsplit_once(' '))
            .filter_map(|(_, value)| value.parse().ok())
            .collect();
        if values.is_empty() { Err(text.into()) } else { Ok(values.iter().sum()) }
    }

    /// When the certificate that a node shows runs out, in seconds since 1970.
    #[expect(clippy::cast_possible_truncation, reason = "a date is far below what is exact")]
    fn expires(&self, node: usize) -> Result<i64, String> {
        self.metric(node, EXPIRES).map(|at| at as i64).map_err(|error| error.to_string())
    }

    /// Waits until something of every node is so. Kubernetes gives a changed Secret to a pod within a minute or two, and at once to one
    /// that somebody touches.
    fn wait_nodes(&self, what: &str, is_so: impl Fn(usize) -> Result<bool, String>) -> Outcome {
        let mut looks = 0_u64;
        soon(what, TOLD_WITHIN, || {
            let seen = (0..NODES).map(&is_so).collect::<Result<Vec<_>, _>>()?;
            if seen.iter().all(|is_so| *is_so) {
                return Ok(());
            }
            looks += 1;
            let touched = format!("touched=look-{looks}");
            let touch = ["annotate", "pods", "-l", &self.queue.selector(), "--overwrite", &touched];
            self.queue.room.kubectl(&touch).map_err(|error| error.to_string())?;
            Err(format!("{seen:?}"))
        })?;
        Ok(())
    }

    /// How often a node has read its files so far.
    fn reads(&self, node: usize) -> Result<usize, String> {
        let log = self.queue.room.kubectl(&["logs", &format!("demo-{node}")]);
        Ok(log.map_err(|error| error.to_string())?.matches(READ).count())
    }

    /// After a change, waits until the trusted authorities are as wanted, and all nodes and the client have them. Returns the whole
    /// Secret.
    fn change_trusted(
        &self,
        what: &str,
        change: impl FnOnce() -> Outcome,
        is_so: impl Fn(&str) -> bool,
    ) -> Result<Files, BoxError> {
        let reads = (0..NODES).map(|node| self.reads(node)).collect::<Result<Vec<_>, _>>()?;
        change()?;
        let found = soon(what, TOLD_WITHIN, || {
            let found =
                files(self.queue.room, "secret", "demo-node-tls").map_err(|error| error.to_string())?;
            if is_so(&found["ca.crt"]) { Ok(found) } else { Err(found["ca.crt"].clone()) }
        })?;
        self.wait_nodes(what, |node| Ok(self.reads(node)? > reads[node]))?;
        soon("the same in the ConfigMap", TOLD_WITHIN, || {
            let open =
                files(self.queue.room, "configmap", "demo-config").map_err(|error| error.to_string())?;
            (open.get("ca.crt") == found.get("ca.crt")).then_some(()).ok_or_else(|| format!("{open:?}"))
        })?;
        // As Kubernetes replaces a file of a pod.
        let aside = self.known.trust.with_extension("new");
        std::fs::write(&aside, &found["ca.crt"])?;
        std::fs::rename(&aside, &self.known.trust)?;
        Ok(found)
    }
}

/// The certificates of a Secret of nodes, without keys and authorities.
fn shown(files: &Files) -> Files {
    let is_shown = |file: &str| file.ends_with(".crt") && file != "ca.crt";
    files.iter().filter(|(file, _)| is_shown(file)).map(|(file, text)| (file.clone(), text.clone())).collect()
}

pub(super) fn certificates_and_their_authority_are_renewed_under_load(room: &Room<'_>) -> Outcome {
    let queue = Queue::applied_with(room, "demo", 3, &json!({"tls": {"clients": "Required"}}))?;
    queue.wait_ready()?;
    queue.raftq("demo-0", &["topic", "create", TOPIC])?;
    let folder = tempfile::tempdir()?;
    let trust = folder.path().join("ca.crt");
    std::fs::write(&trust, &files(room, "configmap", "demo-config")?["ca.crt"])?;
    let pods = uids(&queue, "pods")?;
    let renewal = Renewal { queue, known: Known::of(room, trust, None) };
    let load = TlsLoad::start(&renewal.known, Calls::Once);
    load.go_on()?;

    // Twice certificates that run out are made anew: once all of them, once those of which two thirds have gone.
    for (round, kept) in [None, Some("demo-0.crt")].into_iter().enumerate() {
        let dates = |file: &str| match (round, Some(file) == kept) {
            (0, _) => (-80 * DAY, ALMOST_OVER),
            (_, true) => (-59 * DAY, 31 * DAY),
            _ => (-61 * DAY, 29 * DAY),
        };
        renewal.pause(true)?;
        let old = renewal.redate(dates)?;
        renewal.wait_nodes("all nodes to show what runs out", |node| {
            Ok(renewal.expires(node)? < now() + 32 * DAY)
        })?;
        load.go_on()?;
        renewal.pause(false)?;
        renewal.wait_nodes("all nodes to show what is made anew", |node| {
            let is_kept = Some(format!("demo-{node}.crt").as_str()) == kept;
            Ok(is_kept || renewal.expires(node)? > now() + 89 * DAY)
        })?;
        load.go_on()?;
        let new = shown(&files(room, "secret", "demo-node-tls")?);
        let same: Vec<&String> = old.keys().filter(|file| old[*file] == new[*file]).collect();
        assert_eq!(same, kept.iter().collect::<Vec<_>>(), "what is renewed has had two thirds of its time");
    }
    renewal.queue.wait_event("CertificatesMade", "demo-1")?;

    // The authority has had two thirds of its ten years: everybody trusts another one before it signs.
    let before = files(room, "secret", "demo-node-tls")?;
    let grow_old = || renewal.redate_authority(-2_500 * DAY, 1_150 * DAY);
    let both = renewal.change_trusted("two authorities", grow_old, |trusted| trusted != before["ca.crt"])?;
    assert!(both["ca.crt"].contains(before["ca.crt"].trim()), "the old one counts on");
    assert_eq!(shown(&both), shown(&before), "the new one signs nothing yet");
    load.go_on()?;
    let expires = (0..NODES).map(|node| renewal.expires(node)).collect::<Result<Vec<_>, _>>()?;
    // An hour later it signs for all.
    renewal.redate_authority(-3_600 - SPREAD, 3_650 * DAY)?;
    renewal
        .wait_nodes("certificates of the new authority", |node| Ok(renewal.expires(node)? > expires[node]))?;
    load.go_on()?;
    let new = files(room, "secret", "demo-node-tls")?;
    let same = shown(&new).into_iter().filter(|(file, text)| both[file] == *text).count();
    assert_eq!(same, 0, "nobody shows one of the old authority any more");
    assert!(new["ca.crt"].contains(before["ca.crt"].trim()), "which counts on all the same");
    // And an hour after that the old one counts no more.
    let grow_older = || renewal.redate(|_| (-3_600 - SPREAD, 89 * DAY)).and_then(|_| touch(room));
    let is_alone = |trusted: &str| !trusted.contains(before["ca.crt"].trim());
    renewal.change_trusted("one authority", grow_older, is_alone)?;
    load.go_on()?;

    for node in 0..NODES {
        let failed = renewal.metric(node, FAILED)?;
        assert!(failed < 0.5, "{failed} handshakes have failed at node {node}");
    }
    let count = load.finish()?;
    eprintln!("{}: {count} messages, and no call has failed", room.namespace);
    let after = (uids(&renewal.queue, "pods")?, renewal.queue.restarts()?);
    assert_eq!(after, (pods, 0), "no node was restarted for that");
    // One that is restarted is let in by the others, by the new authority alone.
    room.kubectl(&["delete", "pod", "demo-1"])?;
    renewal.queue.wait_ready()?;
    Ok(())
}
