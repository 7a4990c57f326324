//! Serving connections on the client port, and on that of operations.
//!
//! HTTP/1.1 and HTTP/2 (with prior knowledge, as gRPC has it) on one port. Windows are large enough that flow control
//! does not hold up a stream of message bodies within a data centre. They are not larger, since what fills them is in
//! memory. Frames are large enough to be handed on in few pieces.

use crate::edges::connections::Acceptor;
use crate::edges::request_end;
use crate::edges::sent;
use axum::Router;
use http::Request;
use hyper::rt::Executor;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::conn::auto::Builder;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;
use tower::ServiceBuilder;

/// HTTP/2 flow control window of a stream, in bytes: what a client may send while nobody reads it, as when it waits for
/// room in the budget.
const STREAM_WINDOW_BYTES: u32 = 512 << 10;
/// The same of a whole connection.
const CONNECTION_WINDOW_BYTES: u32 = 1 << 20;
/// What is read ahead on an HTTP/1.1 connection, in bytes.
const HTTP1_BUFFER_BYTES: usize = 128 << 10;
/// Greatest HTTP/2 frame, in bytes.
const FRAME_BYTES_MAX: u32 = 1 << 20;
/// Most calls at once on one HTTP/2 connection; more wait at the client.
const STREAMS_MAX: u32 = 4_096;
/// How many calls at once may be reset before the server has looked at them: as many as may be open. Beyond that the
/// library ends the connection, with all other calls on it. Its default is 20, which a dozen impatient callers exceed
/// on a busy machine. It also counts its own resets, such as for the rest of a body that was refused, for as long as
/// the connection lives. They are no sign of an attack: what calls may hold is bounded in bytes, elsewhere.
const RESETS_MAX: usize = STREAMS_MAX as usize;
/// Greatest size of all headers of a request, in bytes.
const HEADERS_BYTES_MAX: u32 = 64 << 10;
/// How long a client may take to send the head of an HTTP/1.1 request, and the first byte of anything.
pub(crate) const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// How often an idle HTTP/2 connection is asked whether it still lives, and how long it has to answer.
const KEEP_ALIVE: Duration = Duration::from_secs(20);

/// Serves `router` to whoever `acceptor` lets in until `shutdown` resolves; then accepts nothing more, lets calls that have begun run to
/// their end for at most `drain`, and closes.
///
/// Every connection runs on a task of its own, which ends with the connection or at the end of `drain`.
pub async fn serve(
    mut acceptor: Acceptor,
    router: Router,
    shutdown: impl Future<Output = ()>,
    drain: Duration,
) {
    let builder = builder();
    let connections = GracefulShutdown::new();
    let mut tasks = tokio::task::JoinSet::new();
    let mut shutdown = pin!(shutdown);
    loop {
        // Shutdown comes first: it must not wait for a lull. Ended tasks are collected as they end.
        tokio::select! {
            biased;
            () = &mut shutdown => break,
            Some(_) = tasks.join_next() => {}
            arrived = acceptor.accept() => {
                let (router, builder, watcher) = (router.clone(), builder.clone(), connections.watcher());
                tasks.spawn(async move {
                    let Some(stream) = arrived.enter().await else { return };
                    let peer = stream.peer().clone();
                    let service = ServiceBuilder::new()
                        .map_request(move |mut request: Request<_>| {
                            request.extensions_mut().insert(peer.clone());
                            request_end::listened(request)
                        })
                        .map_response(sent::counted)
                        .service(router);
                    let service = TowerToHyperService::new(service);
                    let connection = builder.serve_connection(TokioIo::new(stream), service).into_owned();
                    // A broken connection concerns only its client, who sees it, too.
                    last(sent::carry(watcher.watch(connection))).await;
                });
            }
        }
    }
    drop(acceptor);
    // Streams without an end (watchers of health) would hold the node for ever, so they are cut after the drain.
    let _ = tokio::time::timeout(drain, connections.shutdown()).await;
    tasks.shutdown().await;
}

/// Lets everybody who waits for this thread go before a connection that was woken. One answer wakes it, and by its turn all calls that
/// are answered at the same time have given it theirs: it writes them at once. Without that each answer would be a write of its own,
/// which costs more than all else that a small call does.
async fn last<F: Future>(carried: F) -> F::Output {
    let mut carried = pin!(carried);
    let mut is_its_turn = false;
    poll_fn(|context| {
        is_its_turn = !is_its_turn;
        if is_its_turn {
            // A task that wakes itself goes to the end of the line.
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        carried.as_mut().poll(context)
    })
    .await
}

/// Runs the streams of HTTP/2 connections, each on a task.
#[derive(Clone)]
struct Streams;

impl<F: Future<Output: Send> + Send + 'static> Executor<F> for Streams {
    fn execute(&self, stream: F) {
        tokio::spawn(sent::carry(stream));
    }
}

fn builder() -> Builder<Streams> {
    let mut builder = Builder::new(Streams);
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(HTTP1_BUFFER_BYTES);
    builder
        .http2()
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .max_concurrent_streams(STREAMS_MAX)
        .max_pending_accept_reset_streams(RESETS_MAX)
        .max_local_error_reset_streams(None)
        .max_header_list_size(HEADERS_BYTES_MAX)
        .keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(KEEP_ALIVE);
    builder
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::{mpsc, oneshot};

    /// A worker of the runtime runs what it has just woken before all else. So the connection would go after the first answer.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn a_connection_has_its_turn_after_all_calls_that_are_answered_together() {
        const CALLS: usize = 16;
        let (answers, mut taken) = mpsc::unbounded_channel();
        let (begin, begun) = oneshot::channel();
        let connection = tokio::spawn(last(async move {
            begin.send(()).expect("somebody waits");
            taken.recv_many(&mut Vec::new(), CALLS).await
        }));
        begun.await.expect("it waits for answers");
        tokio::spawn(async move {
            for call in 0..CALLS {
                let answers = answers.clone();
                tokio::spawn(async move { answers.send(call) });
            }
        });
        assert_eq!(connection.await.expect("it ends"), CALLS);
    }
}
