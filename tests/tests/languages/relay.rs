//! A way to a node that loses the answers of its last moments, as a machine does that dies: what the node has done, its
//! client never hears of.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};

/// The head of an HTTP/2 frame, in bytes: three of length, one of kind, one of flags, four of stream.
const HEAD_BYTES: usize = 9;
/// The kind of frame that carries messages.
const DATA: u8 = 0;
/// The kind of frame that begins an answer, or ends one.
const HEADERS: u8 = 1;
/// The flag of a frame that ends an answer.
const END: u8 = 1;

/// Passes on connections of HTTP/2. The threads behind it end with the process.
pub(super) struct Relay {
    port: u16,
    answers: Arc<Answers>,
}

#[derive(Default)]
struct Answers {
    held: Mutex<Held>,
    changed: Condvar,
}

#[derive(Default)]
struct Held {
    /// So many frames with messages still pass; `None`: all of them.
    left: Option<u64>,
    /// Connections that hold back an answer.
    holding: u64,
    /// What was held back is lost.
    is_lost: bool,
}

impl Answers {
    fn lock(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits until an answer may begin, or go on; false if it never will.
    fn pass(&self, is_message: bool) -> bool {
        let mut held = self.lock();
        held.holding += 1;
        held = self
            .changed
            .wait_while(held, |held| held.left == Some(0) && !held.is_lost)
            .unwrap_or_else(PoisonError::into_inner);
        held.holding -= 1;
        if let Some(left) = held.left.as_mut().filter(|_| is_message) {
            *left = left.saturating_sub(1);
        }
        !held.is_lost
    }
}

impl Relay {
    /// A relay to a port of this machine.
    pub(super) fn new(port: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).expect("a port is free");
        let own_port = listener.local_addr().expect("it is bound").port();
        let answers = Arc::new(Answers::default());
        let shared = Arc::clone(&answers);
        std::thread::spawn(move || serve(&listener, port, &shared));
        Self { port: own_port, answers }
    }

    /// Where clients connect.
    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// After so many more frames with messages nothing passes to clients any more.
    pub(super) fn hold_after(&self, answers: u64) {
        self.answers.lock().left = Some(answers);
    }

    /// Whether a client waits for an answer that is here.
    pub(super) fn is_holding(&self) -> bool {
        let held = self.answers.lock();
        held.left == Some(0) && held.holding > 0
    }

    /// What was held back is lost with its connections.
    pub(super) fn lose(&self) {
        self.answers.lock().is_lost = true;
        self.answers.changed.notify_all();
    }
}

fn serve(listener: &TcpListener, port: u16, answers: &Arc<Answers>) {
    for near in listener.incoming().filter_map(Result::ok) {
        let answers = Arc::clone(answers);
        std::thread::spawn(move || {
            // Where nobody listens the connection ends, as if it was refused.
            let Ok(far) = TcpStream::connect(("127.0.0.1", port)) else { return };
            let (Ok(near_end), Ok(far_end)) = (near.try_clone(), far.try_clone()) else { return };
            std::thread::spawn(move || ended(near_end, far_end, requests));
            ended(far, near, |from, to| answered(from, to, &answers));
        });
    }
}

/// Copies in one direction, then ends both.
fn ended(
    mut from: TcpStream,
    mut to: TcpStream,
    copy: impl FnOnce(&mut TcpStream, &mut TcpStream) -> std::io::Result<()>,
) {
    let _ = to.set_nodelay(true);
    let _ = copy(&mut from, &mut to);
    let _ = to.shutdown(Shutdown::Both);
    let _ = from.shutdown(Shutdown::Both);
}

fn requests(from: &mut TcpStream, to: &mut TcpStream) -> std::io::Result<()> {
    std::io::copy(from, to).map(drop)
}

/// Passes on frame by frame.
fn answered(from: &mut TcpStream, to: &mut TcpStream, answers: &Answers) -> std::io::Result<()> {
    loop {
        let mut frame = vec![0; HEAD_BYTES];
        from.read_exact(&mut frame)?;
        let length = u32::from_be_bytes([0, frame[0], frame[1], frame[2]]);
        frame.resize(HEAD_BYTES + usize::try_from(length).expect("24 bits"), 0);
        from.read_exact(&mut frame[HEAD_BYTES..])?;
        let (kind, flags) = (frame[3], frame[4]);
        let is_message = kind == DATA && length > 0;
        // A client that has seen an answer begin does not ask again by itself.
        let is_begin = kind == HEADERS && flags & END == 0;
        if (is_message || is_begin) && !answers.pass(is_message) {
            return Ok(());
        }
        to.write_all(&frame)?;
    }
}
