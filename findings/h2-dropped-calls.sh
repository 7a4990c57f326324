#!/usr/bin/env bash
# h2 0.4.20 (under hyper and tonic): a client that gives up calls while their answers are on the way ends its own connection
# after about a thousand of them, and with it every other call on that connection.
#
# One would guess: to drop a call (a timeout, a `select!`, a hedged request) touches that call only. An answer that comes too
# late is thrown away, as HTTP/2 asks for, however long the connection lives.
# What happens: h2 remembers 50 dropped streams for a second. A frame for a dropped stream that it has forgotten is answered
# with a reset of its own making, and a connection has 1,024 of these for its whole life: the count never goes down. The next
# one ends the connection with GOAWAY ENHANCE_YOUR_CALM, "too_many_internal_resets", though the server did all as it should.
# The limit is `client::Builder::max_local_error_reset_streams`; tonic 0.14's `Endpoint` has no setting for it.
# Who meets it: a client that keeps one connection to a queue for weeks, with short timeouts: in a slow minute, when timeouts
# come in bursts, its consumers and publishers all fail at once with a "go away" that the server's log does not explain.
#
# Seen (200 calls given up in each round, each after the server answered it; then one that is waited for):
#   200 given up, the next call: 200 OK
#   ... 400, 600, 800 ...
#   1000 given up, the next call: 200 OK
#   1200 given up, the connection ended: connection error detected: detected excessive load generating behavior
#     (Error { kind: GoAway(b"", ENHANCE_YOUR_CALM, Library) })
#   the call that was open since the start: ... detected excessive load generating behavior (b"too_many_internal_resets")
#
# Needs: Rust 1.85 or newer.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
mkdir src
cat >Cargo.toml <<'END'
[package]
name = "late"
version = "0.0.0"
edition = "2024"

[dependencies]
bytes = "=1.10.1"
h2 = "=0.4.20"
http = "=1.3.1"
tokio = { version = "=1.47.1", features = ["io-util", "macros", "rt", "sync"] }
END
cat >src/main.rs <<'END'
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

use bytes::Bytes;
use http::{Request, Response};
use tokio::sync::mpsc;

const CALLS: usize = 200;

/// Runs the client's connection until `other` is done; an error if the connection ends first.
async fn with<T>(
    connection: &mut (impl Future<Output = Result<(), h2::Error>> + Unpin),
    other: impl Future<Output = T>,
) -> Result<T, h2::Error> {
    let mut other = pin!(other);
    poll_fn(|cx| {
        if let Poll::Ready(ended) = pin!(&mut *connection).poll(cx) {
            return Poll::Ready(Err(ended.expect_err("nobody closes the connection")));
        }
        other.as_mut().poll(cx).map(Ok)
    })
    .await
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), h2::Error> {
    let (near, far) = tokio::io::duplex(1 << 20);
    let (accepted, mut requests) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        let mut server = h2::server::handshake(far).await.expect("a client that speaks HTTP/2");
        while let Some(Ok((_, respond))) = server.accept().await {
            let _ = accepted.send(respond);
        }
    });
    let (client, mut connection) = h2::client::handshake(near).await?;
    let mut client = with(&mut connection, client.ready()).await??;
    let request = || Request::get("http://localhost/").body(()).expect("valid");
    let open = client.send_request(request(), true)?.0;
    let _never_answered = with(&mut connection, requests.recv()).await?;

    for round in 1..=20 {
        let (mut calls, mut responders) = (Vec::new(), Vec::new());
        for _ in 0..CALLS {
            client = with(&mut connection, client.ready()).await??;
            calls.push(client.send_request(request(), true)?.0);
            responders.push(with(&mut connection, requests.recv()).await?.expect("the server lives"));
        }
        // The server answers. The client's connection does not run meanwhile: the answers are on the way.
        for mut respond in responders {
            let mut body = respond.send_response(Response::new(()), false)?;
            body.send_data(Bytes::from_static(b"answer"), true)?;
        }
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        drop(calls);
        let next = async {
            client = with(&mut connection, client.clone().ready()).await??;
            let call = client.send_request(request(), true)?.0;
            let mut respond = with(&mut connection, requests.recv()).await?.expect("the server lives");
            respond.send_response(Response::new(()), true)?;
            with(&mut connection, call).await?
        };
        match next.await {
            Ok(answer) => println!("{} given up, the next call: {}", round * CALLS, answer.status()),
            Err(error) => {
                println!("{} given up, the connection ended: {error} ({error:?})", round * CALLS);
                println!("the call that was open since the start: {}", open.await.expect_err("no answer was sent"));
                return Ok(());
            }
        }
    }
    println!("the connection lives");
    Ok(())
}
END
cargo build -q
timeout 60 target/debug/late | tee seen
grep -q '^1000 given up, the next call: 200 OK$' seen && grep -q '^1[0-9]* given up, the connection ended: .*ENHANCE_YOUR_CALM' seen || {
    echo "changed: the connection does not end after a thousand calls given up"
    exit 1
}
