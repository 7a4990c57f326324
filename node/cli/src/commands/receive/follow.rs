//! `raftq receive --follow`: messages are printed as they come.

use super::{CALL_MESSAGES_MAX, Receive};
use crate::commands::deliveries::{self, Part};
use crate::failure::Failure;
use crate::output::Output;
use crate::signals::Signals;
use crate::text::{counted, escaped};
use raftqueue_client::{Client, Consumer, Delivery, Error, Settled, Settlement};

/// Messages that are held at once, those included whose acknowledgement is under way.
const HELD_MAX: usize = 2_000;

/// Prints messages until so many are printed, or somebody asks for the end. What is not printed then is given back.
pub(super) async fn run(how: &Receive, client: &Client, output: &Output) -> Result<(), Failure> {
    // Whether there is a cluster and a topic is told at once, and not after a long wait.
    how.ready(client).await?;
    let mut signals = Signals::listen()?;
    if how.loses_leases(output) {
        eprintln!("{}", how.lost_leases("each message is"));
    }
    let mut left = how.number.unwrap_or(u64::MAX);
    let mut consumer = how.consumer(client, HELD_MAX)?;
    let mut settling: Option<Settlement> = None;
    let mut part = Part::First;
    let ended = loop {
        if left == 0 {
            break Ok(());
        }
        let at_once = usize::try_from(left.min(CALL_MESSAGES_MAX)).expect("at most a thousand");
        let received = tokio::select! {
            biased;
            asked = signals.next() => break asked.ended(),
            settled = settled(&mut settling), if settling.is_some() => {
                settling = None;
                tell_late(settled);
                continue;
            }
            received = consumer.receive_many(at_once) => received,
        };
        let received = match received {
            Ok(received) => received,
            Err(error) if error.is_passing() => {
                eprintln!("warning: {}; still waiting", escaped(&error.text));
                continue;
            }
            Err(error) => break Err(error.into()),
        };
        let shown: Vec<_> = received.iter().map(|delivery| (**delivery).clone()).collect();
        if let Err(failure) = deliveries::show(output, &shown, how.showing(part)) {
            received.into_iter().for_each(|delivery| drop(delivery.release()));
            break Err(failure);
        }
        part = Part::Later;
        left -= received.len() as u64;
        if let Some(before) = settling.take() {
            tell_late(before.await);
        }
        settling = settle(how, &consumer, received);
    };
    // Closing confirms what is under way, and does not wait for long if there is no cluster any more.
    let closed = consumer.close().await;
    if let Some(last) = settling {
        tell_late(last.await);
    }
    closed?;
    ended
}

/// What is printed is acknowledged, or its lease is left to whoever saw it.
fn settle(how: &Receive, consumer: &Consumer, printed: Vec<Delivery>) -> Option<Settlement> {
    if how.ack {
        return Some(consumer.ack_all(printed));
    }
    printed.into_iter().for_each(|delivery| drop(delivery.into_inner()));
    None
}

async fn settled(settling: &mut Option<Settlement>) -> Result<Settled, Error> {
    settling.as_mut().expect("only asked if there is one").await
}

/// Says what comes again although it is printed.
fn tell_late(settled: Result<Settled, Error>) {
    match settled {
        Ok(settled) if settled.is_done() => {}
        Ok(settled) => eprintln!(
            "warning: {} printed but not acknowledged: the lease had ended, so they are delivered again",
            counted(settled.stale as u64, "message")
        ),
        Err(error) => eprintln!("warning: printed, and perhaps not acknowledged: {}", escaped(&error.text)),
    }
}
