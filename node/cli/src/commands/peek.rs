//! `raftq peek`, and the looking part of `raftq dead`.

use super::Target;
use super::deliveries::{self, Part, Showing, Which};
use crate::failure::Failure;
use crate::output::Output;
use clap::{Args, ValueEnum};
use raftqueue_client::{Client, v1};

/// Most messages of one call.
const CALL_MESSAGES_MAX: u64 = 1_000;

#[derive(Args)]
#[command(after_help = "\
Examples:
  raftq peek orders
  raftq peek orders -n 20 --state leased
  raftq peek orders --from 1000 -n 5 -o json | jq -r .body")]
pub(crate) struct Peek {
    #[command(flatten)]
    target: Target,
    #[command(flatten)]
    window: Window,
    /// Which messages
    #[arg(long, value_enum, default_value_t = State::Ready)]
    state: State,
}

/// How many messages to look at, and where to begin.
#[derive(Args)]
pub(super) struct Window {
    /// Most messages to show
    #[arg(short, long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..))]
    number: u64,
    /// Begin at this offset
    #[arg(long, value_name = "OFFSET", default_value_t = 0)]
    from: u64,
    /// Print raw bodies, one a line, also on a terminal
    #[arg(long)]
    bodies_only: bool,
    /// Print raw bodies, a NUL byte behind each, as for `xargs -0`
    #[arg(short = '0', long)]
    null: bool,
}

#[derive(Clone, Copy, ValueEnum)]
enum State {
    /// Waiting to be received
    Ready,
    /// Out with a consumer
    Leased,
    /// Waiting for its time
    Delayed,
    /// Given up, and kept
    Dead,
}

impl Peek {
    /// The topic.
    pub(super) fn topic(&self) -> &str {
        &self.target.topic
    }

    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let which = match self.state {
            State::Ready => Which::Ready,
            State::Leased => Which::Leased,
            State::Delayed => Which::Delayed,
            State::Dead => Which::Dead,
        };
        show(&self.target, &self.window, which, "", client, output).await
    }
}

/// Looks at the messages of one state, page by page.
pub(super) struct Pages<'a> {
    client: &'a Client,
    target: &'a Target,
    state: v1::MessageState,
    from_offset: u64,
}

impl<'a> Pages<'a> {
    /// The first page begins at this offset.
    pub(super) fn from(client: &'a Client, target: &'a Target, which: Which, from_offset: u64) -> Self {
        let state = match which {
            Which::Received | Which::Acknowledged | Which::Leased => v1::MessageState::Leased,
            Which::Ready => v1::MessageState::Ready,
            Which::Delayed => v1::MessageState::Delayed,
            Which::Dead => v1::MessageState::Dead,
        };
        Self { client, target, state, from_offset }
    }

    /// The next messages, at most so many; none behind the last one.
    pub(super) async fn next(&mut self, wanted: u64) -> Result<Vec<v1::Delivery>, Failure> {
        let wanted = wanted.min(CALL_MESSAGES_MAX);
        let request = v1::PeekRequest {
            topic: self.target.topic.clone(),
            subscription: self.target.subscription.clone(),
            state: self.state.into(),
            from_offset: self.from_offset,
            messages_max: u32::try_from(wanted).expect("a call has at most a thousand"),
            bytes_max: 0,
        };
        let deliveries = self.client.peek(request).await?.deliveries;
        if let Some(last) = deliveries.last() {
            self.from_offset = last.offset + 1;
        }
        Ok(deliveries)
    }
}

/// Shows messages of one state, as many as asked for: those whose reason for being dead has this text in it.
pub(super) async fn show(
    target: &Target,
    window: &Window,
    which: Which,
    reason: &str,
    client: &Client,
    output: &Output,
) -> Result<(), Failure> {
    let mut pages = Pages::from(client, target, which, window.from);
    let mut found = Vec::new();
    while (found.len() as u64) < window.number {
        let left = window.number - found.len() as u64;
        let mut page = pages.next(if reason.is_empty() { left } else { CALL_MESSAGES_MAX }).await?;
        if page.is_empty() {
            break;
        }
        page.retain(|delivery| delivery.dead_reason.contains(reason));
        page.truncate(usize::try_from(left).unwrap_or(usize::MAX));
        found.extend(page);
    }
    if found.is_empty() {
        let topic = &target.topic;
        let why = if reason.is_empty() { String::new() } else { format!(" with {reason:?} in its reason") };
        return Err(Failure::Nothing(format!("no {} message in {topic}{why}", which.name())));
    }
    let end = if window.null { 0 } else { b'\n' };
    let bodies_only = window.bodies_only || window.null;
    deliveries::show(output, &found, Showing { which, bodies_only, end, part: Part::All })
}
