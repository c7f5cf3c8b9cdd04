//! Several calls in one process: those that a runner hands over, each with its
//! own streams, until it hands over no more.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::net;
use std::rc::Rc;

use tokio::io::Interest;
use tokio::net::UnixDatagram;
use tokio::task::{JoinSet, LocalSet};

use crate::client::https::pool::Pool;
use crate::model::retry::TRY_AGAIN;
use crate::runner::line::{Desk, Handed, Line, ToCaller};

use super::super::Outcome;
use super::voice::Voice;
use super::{make, read};

/// Makes the calls that come to a desk, and ends after the last.
pub(super) async fn see_to(desk: Desk) -> Outcome {
    LocalSet::new().run_until(take_all(&desk)).await
}

async fn take_all(desk: &Desk) -> Outcome {
    let watch = watch(desk)?;
    let pool = Rc::new(Pool::default());
    let mut calls = JoinSet::new();
    loop {
        tokio::select! {
            taken = next(&watch, || desk.take()) => match taken? {
                Some(handed) => drop(calls.spawn_local(attend(handed, Rc::clone(&pool)))),
                None => break,
            },
            // A panic is told by itself, and its line has closed.
            Some(_) = calls.join_next(), if !calls.is_empty() => {}
        }
    }
    while calls.join_next().await.is_some() {}
    Ok(0)
}

/// Has a socket watched by the runtime. It knows no sockets of this kind, and
/// those of another that are watched in the same way.
fn watch(socket: impl AsFd) -> io::Result<UnixDatagram> {
    let socket = net::UnixDatagram::from(socket.as_fd().try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    UnixDatagram::from_std(socket)
}

/// What `read` reads, once there is something.
async fn next<T>(watch: &UnixDatagram, read: impl Fn() -> io::Result<T>) -> io::Result<T> {
    loop {
        watch.readable().await?;
        match watch.try_io(Interest::READABLE, &read) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            read => return read,
        }
    }
}

/// Makes one call, unless its runner hangs up before it is over.
async fn attend(handed: Handed, pool: Rc<Pool>) {
    let Handed {
        line,
        input,
        out,
        err,
    } = handed;
    let line = Rc::new(line);
    let voice = Voice::of(out, err, Rc::clone(&line));
    let made = unless_frozen(&line, call(&voice, input.into(), &pool)).await;
    let code = made.unwrap_or_else(|error| {
        voice.complain(&format!(
            "cannot hear whether the call is still wanted: {error}"
        ));
        Some(TRY_AGAIN)
    });
    // The streams end before the call does.
    drop(voice);
    if let Some(code) = code
        && let Err(error) = line.end(code)
    {
        tracing::debug!(%error, "nobody hears how a call ended");
    }
}

async fn call(voice: &Voice, input: File, pool: &Pool) -> u8 {
    match read_and_make(voice, input, pool).await {
        Ok(code) => code,
        Err(failure) => {
            voice.complain(&failure.to_string());
            failure.code()
        }
    }
}

async fn read_and_make(voice: &Voice, input: File, pool: &Pool) -> Outcome {
    make(read(input)?, voice, pool).await
}

/// Goes on with a call except while it is to stand still; `None` when it is
/// not wanted any more.
async fn unless_frozen(line: &Rc<Line>, call: impl Future<Output = u8>) -> io::Result<Option<u8>> {
    let mut call = std::pin::pin!(call);
    let watch = watch(line)?;
    let mut frozen = false;
    loop {
        tokio::select! {
            biased;
            word = next(&watch, || line.word()) => match word? {
                ToCaller::Freeze => frozen = true,
                ToCaller::Thaw => frozen = false,
                ToCaller::HungUp => return Ok(None),
            },
            code = &mut call, if !frozen => return Ok(Some(code)),
        }
    }
}
