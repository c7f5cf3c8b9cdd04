//! What each command is answered while nothing may be written.

use crate::model::quantity::ByteSize;
use crate::model::time::Time;
use crate::store::disk::Shortage;

use super::command::{Command, Error};
use super::graph::Ask;
use super::{agents, hooks, queues, record, relay, schedules};

/// How much of the disk is free, and how much has to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Is free.
    pub free: ByteSize,
    /// Has to be.
    pub mark: ByteSize,
}

impl From<Shortage> for Room {
    fn from(shortage: Shortage) -> Self {
        // To whole KiB: nobody cares about the last bytes.
        let round = |bytes: u64| ByteSize::kib(bytes >> 10);
        Self {
            free: round(shortage.free),
            mark: round(shortage.mark),
        }
    }
}

impl Command {
    /// Answers without carrying anything out, where nothing may be written.
    /// Hands a report back, which must not get lost.
    pub(super) fn refuse(self, why: &Error, now: Time) -> Option<Self> {
        let why = why.clone();
        match self {
            Self::Asked { command, .. } => return command.refuse(&why, now),
            Self::Submit { reply, .. } => drop(reply.send(Err(why))),
            Self::Cancel { reply, .. }
            | Self::Retry { reply, .. }
            | Self::Pause { reply, .. }
            | Self::Resume { reply, .. } => drop(reply.send(Err(why))),
            // Nothing was changed that it would be about.
            Self::Record(record::Ask::Note(note)) => {
                drop(note.reply.map(|reply| reply.send(Err(why))));
            }
            Self::Edit(ask) => drop(ask.reply.send(Err(why))),
            Self::Record(record::Ask::Bulk(order)) => drop(order.reply.send(Err(why))),
            Self::Record(record::Ask::Probe { reply, .. }) => drop(reply.send(Err(why))),
            Self::Hook(hooks::Ask::SetOfQueue { reply, .. }) => drop(reply.send(Err(why))),
            Self::Schedule(
                schedules::Ask::Add { reply, .. } | schedules::Ask::Change { reply, .. },
            ) => {
                drop(reply.send(Err(why)));
            }
            Self::Agent(agents::ask::Ask::Add { reply, .. }) => drop(reply.send(Err(why))),
            Self::Agent(agents::ask::Ask::Change { reply, .. }) => drop(reply.send(Err(why))),
            Self::Graph(Ask::Cancel { reply, .. } | Ask::Retry { reply, .. }) => {
                drop(reply.send(Err(why)));
            }
            Self::Queue(queues::Ask { reply, .. }) => drop(reply.send(Err(why))),
            Self::Relay(relay::Ask::Call(waiting)) => waiting.refuse(why),
            // Asked for again by whoever waits; and it shows that all else is
            // well.
            Self::Wait { reply, .. } => drop(reply.send(Err(Error::Stopping))),
            Self::Ping { reply } => drop(reply.send(Ok(now))),
            Self::Shutdown { reply } => drop(reply.send(Ok(()))),
            report @ (Self::Configure { .. }
            | Self::Agent(agents::ask::Ask::Seen { .. })
            | Self::Relay(relay::Ask::Left | relay::Ask::Over { .. })
            | Self::Record(record::Ask::Retain(_) | record::Ask::WithOutput { .. })
            | Self::RunnerUp(_)
            | Self::RunnerDown
            | Self::ClockLead { .. }
            | Self::Notified { .. }
            | Self::Dialled { .. }
            | Self::Started { .. }
            | Self::Ended { .. }) => return Some(report),
        }
        None
    }
}
