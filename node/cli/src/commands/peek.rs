//! `raftq peek`, and the looking part of `raftq dead`.

use super::{Target, deliveries};
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
    pub(super) async fn run(self, client: &Client, output: &Output) -> Result<(), Failure> {
        let state = match self.state {
            State::Ready => v1::MessageState::Ready,
            State::Leased => v1::MessageState::Leased,
            State::Delayed => v1::MessageState::Delayed,
            State::Dead => v1::MessageState::Dead,
        };
        show(&self.target, &self.window, state, client, output).await
    }
}

/// Shows messages of one state, as many as asked for.
pub(super) async fn show(
    target: &Target,
    window: &Window,
    state: v1::MessageState,
    client: &Client,
    output: &Output,
) -> Result<(), Failure> {
    let mut found = Vec::new();
    let mut from_offset = window.from;
    while (found.len() as u64) < window.number {
        let wanted = (window.number - found.len() as u64).min(CALL_MESSAGES_MAX);
        let request = v1::PeekRequest {
            topic: target.topic.clone(),
            subscription: target.subscription.clone(),
            state: state.into(),
            from_offset,
            messages_max: u32::try_from(wanted).expect("a call has at most a thousand"),
            bytes_max: 0,
        };
        let deliveries = client.peek(request).await?.deliveries;
        let Some(last) = deliveries.last() else { break };
        from_offset = last.offset + 1;
        found.extend(deliveries);
    }
    if found.is_empty() {
        return Err(Failure::Nothing);
    }
    deliveries::show(output, &found, window.bodies_only)
}
