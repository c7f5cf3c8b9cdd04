//! The question for a page of events, by what is asked about them.

use crate::model::event::Wanted;
use crate::store::list::Query;

/// Events with numbers above `after` and up to `until`.
pub(super) fn query(wanted: &Wanted, after: i64, until: i64) -> Query {
    let mut query = Query::new(
        "SELECT e.seq, e.at, e.task, e.attempt, e.kind, e.actor, q.name, e.data, e.pid, e.request \
         FROM event AS e LEFT JOIN queue AS q ON q.id = e.queue WHERE e.seq > ? AND e.seq <= ?",
    );
    query.values = vec![after.into(), until.into()];
    if let Some(owner) = wanted.owner {
        query.and("e.owner = ?", [i64::from(owner).into()]);
    }
    if let Some(task) = wanted.task {
        query.and("e.task = ?", [task.0.into()]);
    }
    if let Some(queue) = &wanted.queue {
        let condition = "e.queue = (SELECT id FROM queue WHERE name = ?)";
        query.and(condition, [queue.clone().into()]);
    }
    if let Some(actor) = wanted.actor {
        query.and("e.actor = ?", [i64::from(actor).into()]);
    }
    if let Some(request) = &wanted.request {
        query.and("e.request = ?", [request.clone().into()]);
    }
    if let Some(since) = wanted.since {
        query.and("e.at >= ?", [since.micros().into()]);
    }
    let kinds = wanted.kinds.iter().map(|kind| kind.clone().into());
    query.any("e.kind", kinds.collect());
    query.sql.push_str(match wanted.before {
        None => " ORDER BY e.seq LIMIT ?",
        Some(_) => " ORDER BY e.seq DESC LIMIT ?",
    });
    query.values.push(i64::from(wanted.limit).into());
    query
}
