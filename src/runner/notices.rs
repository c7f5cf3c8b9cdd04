//! What attempts say about themselves: read, kept, passed on.
//!
//! A task may say as much as it likes: what is read of it in a tenth of a
//! second is bounded, and what was said in that time goes to the daemon as one
//! message. All that is known of a live attempt is kept and told again to each
//! new connection.

use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, RawFd};
use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::mailbox::{self, Mailbox};
use super::poll::{Timer, Token};
use super::protocol::FromRunner;
use super::serve::Runner;
use crate::model::attempt::AttemptKey;
use crate::model::notice::{DATAGRAM_MAX, Notice, parse};
use crate::model::receipt::Receipt;
use crate::model::time::Time;

/// Shortest time between two messages to the daemon about one attempt.
const WINDOW: Duration = Duration::from_millis(100);
/// Datagrams of one attempt that are read in that time.
const SHARE: u32 = 32;
/// Datagrams read at an attempt's end: more than a socket holds.
const LAST_WORDS: u32 = 1024;

/// What a live attempt has said about itself.
#[derive(Debug)]
pub(super) struct Notices {
    ear: Ear,
    said: Said,
    /// Datagrams that are still read in this window.
    left: u32,
    watched: bool,
    /// Takes a message that brought descriptors. Nothing is read meanwhile.
    taker: Option<JoinHandle<()>>,
}

/// Where what an attempt says is heard.
#[derive(Debug)]
pub(super) enum Ear {
    /// On a socket of its own, from whoever of its processes speaks.
    Mailbox(Mailbox),
    /// On the line of a call (`calls.rs`).
    Line,
}

/// All that was said, and what of it the daemon was not told. Kept over a
/// renewal.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
#[serde(default)]
pub(super) struct Said {
    /// Everything but signs of life, and when the last of it came.
    all: Notice,
    at: Time,
    /// The last sign of life.
    beat: Option<Time>,
    /// To be told, and when the last of it came.
    news: Notice,
    news_at: Time,
}

impl Said {
    fn add(&mut self, mut notice: Notice, at: Time) {
        let news = std::mem::take(&mut self.news);
        self.news = news.then(notice.clone(), at.since(self.news_at));
        self.news_at = at;
        if std::mem::take(&mut notice.watchdog) {
            self.beat = Some(at);
        }
        if !notice.is_empty() {
            let all = std::mem::take(&mut self.all);
            self.all = all.then(notice, at.since(self.at));
            self.at = at;
        }
    }

    fn take_news(&mut self) -> Option<(Notice, Time)> {
        let news = std::mem::take(&mut self.news);
        (!news.is_empty()).then_some((news, self.news_at))
    }

    /// Everything, for someone who knows nothing of it.
    fn everything(&mut self) -> Vec<(Notice, Time)> {
        self.news = Notice::default();
        let alive = Notice {
            watchdog: true,
            ..Notice::default()
        };
        let all = (!self.all.is_empty()).then(|| (self.all.clone(), self.at));
        let beat = self.beat.map(|at| (alive, at));
        all.into_iter().chain(beat).collect()
    }
}

/// Notices, over a renewal.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Saved {
    #[serde(flatten)]
    mailbox: Option<SavedMailbox>,
    said: Said,
}

#[derive(Debug, Serialize, Deserialize)]
struct SavedMailbox {
    socket: RawFd,
    path: PathBuf,
}

impl Notices {
    pub(super) const fn new(ear: Ear, said: Said) -> Self {
        Self {
            ear,
            said,
            left: SHARE,
            watched: true,
            taker: None,
        }
    }

    pub(super) fn saved(&self) -> Saved {
        Saved {
            mailbox: self.mailbox().map(|mailbox| SavedMailbox {
                socket: mailbox.as_fd().as_raw_fd(),
                path: mailbox.path().to_owned(),
            }),
            said: self.said.clone(),
        }
    }

    pub(super) fn restore(saved: Saved) -> io::Result<Self> {
        let ear = match saved.mailbox {
            Some(own) => Ear::Mailbox(Mailbox::restore(own.socket, own.path)?),
            None => Ear::Line,
        };
        Ok(Self::new(ear, saved.said))
    }

    pub(super) const fn mailbox(&self) -> Option<&Mailbox> {
        match &self.ear {
            Ear::Mailbox(mailbox) => Some(mailbox),
            Ear::Line => None,
        }
    }

    /// What came on the line of a call.
    pub(super) fn hear(&mut self, text: &[u8], at: Time) {
        self.said.add(parse(text), at);
    }

    /// What it said that its call came to.
    pub(super) fn receipt(&mut self) -> Option<Box<Receipt>> {
        self.said.all.receipt.take()
    }

    /// Whether a message is still being taken.
    fn taking(&mut self) -> bool {
        if self.taker.as_ref().is_some_and(JoinHandle::is_finished) {
            self.taker = None;
        }
        self.taker.is_some()
    }

    /// Takes the message that was looked at. False when nothing more may be
    /// read for now.
    fn take(&mut self, brings_descriptors: bool) -> bool {
        self.left = self.left.saturating_sub(1);
        let Ear::Mailbox(mailbox) = &self.ear else {
            return false;
        };
        let taken = if brings_descriptors {
            self.left = 0;
            mailbox.take_apart().map(|thread| {
                self.taker = Some(thread);
            })
        } else {
            mailbox.take()
        };
        if let Err(error) = &taken {
            tracing::warn!(%error, "cannot take a task's notice: trying again soon");
            self.left = 0;
        }
        self.left > 0
    }
}

impl Runner {
    /// An attempt says something.
    pub(super) fn on_notice(&mut self, id: u32) {
        // Whoever speaks runs: that is told first.
        self.on_exec(id);
        while self.read_notice(id) {}
        let Some(notices) = self.held.live(id).and_then(|live| live.notices.as_mut()) else {
            return;
        };
        if notices.left == 0 && notices.watched {
            // The rest waits, and so does who says it.
            notices.watched = false;
            if let Some(mailbox) = notices.mailbox() {
                self.poll.forget(mailbox);
            }
        }
        self.pass_on(id);
    }

    /// Tells what an attempt said, now or when its window is over.
    pub(super) fn pass_on(&mut self, id: u32) {
        if !self.poll.armed(Timer::Notices(id)) {
            self.tell_news_if_heard(id);
            self.poll.arm(Timer::Notices(id), WINDOW);
        }
    }

    /// A window is over.
    pub(super) fn on_window(&mut self, id: u32) {
        let told = self.tell_news_if_heard(id);
        let Some(notices) = self.notices(id) else {
            return;
        };
        let taking = notices.taking();
        let again = told || taking || !notices.said.news.is_empty();
        let watch = !taking && !notices.watched;
        if !taking {
            notices.left = SHARE;
            notices.watched = true;
        }
        if again {
            self.poll.arm(Timer::Notices(id), WINDOW);
        }
        if watch {
            self.watch_notices(id);
        }
    }

    /// Waits for what an attempt says.
    pub(super) fn watch_notices(&mut self, id: u32) {
        let Some(notices) = self.held.live(id).and_then(|live| live.notices.as_mut()) else {
            return;
        };
        let Some(mailbox) = notices.mailbox() else {
            return;
        };
        if let Err(error) = self.poll.watch(mailbox, Token::Notice(id)) {
            tracing::error!(%error, "cannot watch a task's socket: trying again soon");
            notices.watched = false;
            self.poll.arm(Timer::Notices(id), WINDOW);
        }
    }

    /// Reads what an attempt that is over said last, and tells it.
    pub(super) fn last_notices(&mut self, id: u32) {
        self.poll.disarm(Timer::Notices(id));
        let Some(notices) = self.held.live(id).and_then(|live| live.notices.as_mut()) else {
            return;
        };
        let watched = std::mem::take(&mut notices.watched);
        if let Some(mailbox) = notices.mailbox() {
            if watched {
                self.poll.forget(mailbox);
            }
            mailbox.shut();
            if !notices.taking() {
                notices.left = LAST_WORDS;
                while self.read_notice(id) {}
            }
        }
        if let Some(notices) = self.notices(id)
            && notices.left == 0
            && let Some(mailbox) = notices.mailbox()
            && let Err(error) = mailbox.empty_apart()
        {
            tracing::warn!(%error, "no thread to empty a task's socket");
        }
        self.tell_news(id);
    }

    fn notices(&mut self, id: u32) -> Option<&mut Notices> {
        self.held.live(id)?.notices.as_mut()
    }

    /// Reads one message. True when there may be more, and it may be read.
    fn read_notice(&mut self, id: u32) -> bool {
        let Some(live) = self.held.live(id) else {
            return false;
        };
        let (key, begun) = (live.launch.key, &live.begun);
        let Some(notices) = live.notices.as_mut().filter(|notices| notices.left > 0) else {
            return false;
        };
        // One byte more shows that a message is too long.
        let room = self.room.read.get_mut(..=DATAGRAM_MAX).unwrap_or_default();
        let Some(mailbox) = notices.mailbox() else {
            return false;
        };
        let seen = match mailbox.look(room) {
            Ok(seen) => seen,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return false,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return true,
            Err(error) => {
                tracing::warn!(task = %key.task, attempt = key.number, %error, "cannot read a task's notices");
                notices.left = 0;
                return false;
            }
        };
        if mailbox::is_from(begun, seen.pid, seen.uid) {
            let text = room.get(..seen.bytes).unwrap_or_default();
            notices.said.add(parse(text), (self.clock)());
        } else {
            tracing::debug!(task = %key.task, attempt = key.number, pid = seen.pid, uid = seen.uid, "a process that is no part of a task speaks for it: ignored");
        }
        notices.take(seen.descriptors)
    }

    /// Tells the daemon what is new about an attempt, unless it is behind with
    /// reading. True when something was told.
    fn tell_news_if_heard(&mut self, id: u32) -> bool {
        let behind = self.link.as_ref().is_some_and(|link| link.waiting);
        !behind && self.tell_news(id)
    }

    fn tell_news(&mut self, id: u32) -> bool {
        let Some(held) = self.held.get(id) else {
            return false;
        };
        let key = held.key;
        let notices = held.live().and_then(|live| live.notices.as_mut());
        let news = notices.and_then(|notices| notices.said.take_news());
        self.tell(key, news)
    }

    /// Tells a daemon that has just said who it is everything there is.
    pub(super) fn tell_everything(&mut self) {
        for id in self.held.live_ids() {
            let Some(held) = self.held.get(id) else {
                continue;
            };
            let key = held.key;
            let notices = held.live().and_then(|live| live.notices.as_mut());
            let everything = notices.map(|notices| notices.said.everything());
            self.tell(key, everything.unwrap_or_default());
        }
    }

    fn tell(&mut self, key: AttemptKey, news: impl IntoIterator<Item = (Notice, Time)>) -> bool {
        let mut told = false;
        for (notice, at) in news {
            if !told {
                // Whoever speaks runs: that is told first.
                self.tell_starts();
            }
            self.say(&FromRunner::Notified { key, notice, at });
            told = true;
        }
        told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(text: &str) -> Notice {
        parse(text.as_bytes())
    }

    #[test]
    fn news_are_told_once_and_everything_to_whoever_is_new() {
        let (first, then, last) = (
            Time::from_micros(1_000),
            Time::from_micros(1_100),
            Time::from_micros(1_200),
        );
        let mut all = Said::default();
        assert_eq!(all.take_news(), None);
        all.add(said("STATUS=one\nEXTEND_TIMEOUT_USEC=500"), first);
        all.add(said("WATCHDOG=1"), then);
        all.add(said("STATUS=two"), last);
        let news = said("STATUS=two\nWATCHDOG=1\nEXTEND_TIMEOUT_USEC=300");
        assert_eq!(all.take_news(), Some((news, last)));
        assert_eq!(all.take_news(), None);
        all.add(said("WATCHDOG=1"), Time::from_micros(5_000));
        let beat = (said("WATCHDOG=1"), Time::from_micros(5_000));
        let known = (said("STATUS=two\nEXTEND_TIMEOUT_USEC=300"), last);
        assert_eq!(all.everything(), [known.clone(), beat.clone()]);
        assert_eq!(all.take_news(), None);
        assert_eq!(all.everything(), [known, beat]);
    }
}
