//! All routes, as they are told: a row for each of `access`' table, which the
//! tests and, in programs with debug assertions, each answer compare with it.

use crate::api::agents::asked::AskedAgent;
use crate::api::agents::told::{AgentInfo, AgentPage, Difference};
use crate::api::asked::{Accepted, Submit};
use crate::api::bulk::{Bulk, Counted};
use crate::api::dto::{Page, TaskInfo};
use crate::api::edit::Change;
use crate::api::graph::{ChangedInfo, GraphInfo};
use crate::api::hooks::QueueHooks;
use crate::api::queues::{AskedLimits, QueueInfo, QueueList};
use crate::api::schedules::{AskedSchedule, Coming, ScheduleInfo, SchedulePage};
use crate::api::submit::AcceptedList;

use super::daemon;
use super::told::Form::{Bytes, Events};
use super::told::Values::{Duration, Form, Number, Switch, Text, Words};
use super::told::{Parameter, Told, one, told};

pub(super) const LIMIT: Parameter = one(
    "limit",
    Number(1, 1_000),
    "How many at most; 100 when absent.",
);
const CURSOR: Parameter = one(
    "cursor",
    Number(1, u32::MAX as u64),
    "Where the page begins: `next` of the page before.",
);
const DEPENDANTS: Parameter = one("dependants", Switch, "The tasks that wait for it as well.");
const KEY: Parameter = one(
    "Idempotency-Key",
    Form("^[!-~]{1,255}$"),
    "Names the request: repeated with the same key, it gets the answer that it got before.",
);
pub(super) const LAST_EVENT: Parameter = one(
    "Last-Event-ID",
    Text,
    "Where a stream goes on: the `id` of the last event that was received.",
);
const RANGE: Parameter = one(
    "Range",
    Text,
    "A part of the output, such as `bytes=0-1023`.",
);

/// All routes.
pub(super) fn all() -> Vec<Told> {
    let mut all = about_tasks();
    all.extend(about_one_task());
    all.extend(changes_of_one_task());
    all.extend(about_queues());
    all.extend(about_schedules());
    all.extend(about_agents());
    all.extend(daemon::about_what_happened());
    all.extend(daemon::about_the_daemon());
    all
}

fn about_tasks() -> Vec<Told> {
    let bulk = |route, id, what| {
        told(route, id, what)
            .takes::<Bulk>()
            .sends::<Counted>(200, "How many.")
    };
    vec![
        told("GET /v1/tasks", "listTasks", "Lists tasks, newest first.")
            .query([
                one("state", Text, "Only these states, separated by commas."),
                one("queue", Text, "Only this queue."),
                one("name", Text, "Only names that contain this."),
                one(
                    "label",
                    Form("^[^=]*=.*$"),
                    "Only this label, as NAME=VALUE.",
                ),
                one("owner", Text, "Only tasks of this user, by name or uid."),
                LIMIT,
                one(
                    "cursor",
                    Text,
                    "Where the page begins: `next` of the page before.",
                ),
            ])
            .sends::<Page>(200, "A page of tasks."),
        told(
            "POST /v1/tasks",
            "submitTasks",
            "Hands in a task, or up to 10,000 under `tasks`, all or none. The answer is sent when \
             they are on disk.",
        )
        .headers([KEY])
        .takes::<Submit>()
        .sends::<Accepted>(200, "A task that was there already.")
        .sends::<AcceptedList>(200, "Tasks that were there already.")
        .sends::<Accepted>(201, "A new task.")
        .sends::<AcceptedList>(201, "Tasks, of which some are new."),
        bulk(
            "POST /v1/tasks/retry",
            "retryTasks",
            "Runs all tasks again that a filter selects.",
        ),
        bulk(
            "POST /v1/tasks/cancel",
            "cancelTasks",
            "Cancels all tasks that a filter selects.",
        ),
        bulk(
            "POST /v1/tasks/discard",
            "discardTasks",
            "Removes all tasks that a filter selects, with all that is known of them but the events.",
        ),
    ]
}

fn about_one_task() -> Vec<Told> {
    vec![
        told(
            "GET /v1/tasks/{id}",
            "showTask",
            "All there is to say about a task.",
        )
        .sends::<TaskInfo>(200, "The task."),
        told(
            "PATCH /v1/tasks/{id}",
            "editTask",
            "Changes a task that waits.",
        )
        .takes::<Change>()
        .sends::<TaskInfo>(200, "The task as it is now."),
        told(
            "GET /v1/tasks/{id}/wait",
            "waitForTask",
            "Answers when the task is over.",
        )
        .query([one(
            "timeout",
            Duration,
            "How long to wait at most; 1m when absent, at most 1h.",
        )])
        .sends::<TaskInfo>(200, "The task is over.")
        .sends::<TaskInfo>(202, "It is not, and the time is."),
        told(
            "GET /v1/tasks/{id}/graph",
            "showGraph",
            "The tasks that it waits for and that wait for it, directly or through others.",
        )
        .query([one("limit", Number(1, 10_000), "How many at most.")])
        .sends::<GraphInfo>(200, "The graph."),
        told(
            "GET /v1/tasks/{id}/log",
            "readLog",
            "What a task wrote: as bytes or, with `Accept: text/event-stream`, as events.",
        )
        .query([
            one(
                "attempt",
                Number(1, u32::MAX as u64),
                "Of this attempt; of the latest when absent.",
            ),
            one("stream", Words(&["stdout", "stderr"]), "Only this stream."),
            one("follow", Switch, "Go on while the task runs."),
        ])
        .headers([RANGE, LAST_EVENT])
        .sends_as(200, "The output.", Bytes)
        .sends_as(
            200,
            "Events `attempt`, `output`, `gap` and, when all is sent, `end`, which has the task.",
            Events,
        )
        .sends_as(206, "The part of the output that was asked for.", Bytes),
    ]
}

fn changes_of_one_task() -> Vec<Told> {
    let change = |route, id, what| told(route, id, what).sends::<TaskInfo>(200, "The task.");
    vec![
        change(
            "POST /v1/tasks/{id}/cancel",
            "cancelTask",
            "Cancels a task.",
        )
        .query([DEPENDANTS])
        .sends::<ChangedInfo>(200, "The task, and how many more."),
        change(
            "POST /v1/tasks/{id}/retry",
            "retryTask",
            "Runs a task again that is over.",
        )
        .query([DEPENDANTS])
        .sends::<ChangedInfo>(200, "The task, and how many more."),
        change(
            "POST /v1/tasks/{id}/pause",
            "pauseTask",
            "Freezes a running task; its clocks stand still.",
        ),
        change(
            "POST /v1/tasks/{id}/resume",
            "resumeTask",
            "Lets a paused task go on.",
        ),
    ]
}

fn about_queues() -> Vec<Told> {
    let one_queue = |route, id, what| told(route, id, what).sends::<QueueInfo>(200, "The queue.");
    vec![
        told("GET /v1/queues", "listQueues", "Lists queues, by name.")
            .sends::<QueueList>(200, "All queues."),
        one_queue(
            "GET /v1/queues/{queue}",
            "showQueue",
            "A queue, its limits and tasks.",
        ),
        one_queue(
            "PATCH /v1/queues/{queue}",
            "setQueue",
            "Sets limits of a queue.",
        )
        .takes::<AskedLimits>(),
        one_queue(
            "DELETE /v1/queues/{queue}",
            "removeQueue",
            "Removes a queue without tasks.",
        ),
        told(
            "GET /v1/queues/{queue}/hooks",
            "showQueueHooks",
            "The hooks of a queue.",
        )
        .sends::<QueueHooks>(200, "The hooks."),
        told(
            "PUT /v1/queues/{queue}/hooks",
            "setQueueHooks",
            "Replaces the hooks of a queue.",
        )
        .takes::<QueueHooks>()
        .sends::<QueueHooks>(200, "The hooks."),
        one_queue(
            "POST /v1/queues/{queue}/{verb}",
            "changeQueue",
            "Lets a queue start nothing, go on, or take nothing new.",
        )
        .verbs(&["pause", "resume", "drain"]),
    ]
}

fn about_schedules() -> Vec<Told> {
    vec![
        told(
            "GET /v1/schedules",
            "listSchedules",
            "Lists schedules, in the order of their numbers.",
        )
        .query([LIMIT, CURSOR])
        .sends::<SchedulePage>(200, "A page of schedules."),
        told("POST /v1/schedules", "addSchedule", "Makes a schedule.")
            .takes::<AskedSchedule>()
            .sends::<ScheduleInfo>(201, "The schedule."),
        told(
            "GET /v1/schedules/{schedule}",
            "showSchedule",
            "A schedule with its latest tasks.",
        )
        .sends::<ScheduleInfo>(200, "The schedule."),
        told(
            "DELETE /v1/schedules/{schedule}",
            "removeSchedule",
            "Removes a schedule.",
        )
        .sends::<ScheduleInfo>(200, "The schedule as it was."),
        told(
            "GET /v1/schedules/{schedule}/next",
            "nextTimes",
            "The coming times of a schedule.",
        )
        .query([one("count", Number(1, 1_000), "How many; 5 when absent.")])
        .sends::<Coming>(200, "The times."),
        told(
            "POST /v1/schedules/{schedule}/{verb}",
            "changeSchedule",
            "Stops a schedule, lets it go on, or makes its task now.",
        )
        .verbs(&["pause", "resume", "trigger"])
        .sends::<ScheduleInfo>(200, "The schedule.")
        .sends::<TaskInfo>(201, "The task that was made."),
    ]
}

fn about_agents() -> Vec<Told> {
    vec![
        told(
            "GET /v1/agents",
            "listAgents",
            "Lists agents, in the order of their numbers.",
        )
        .query([LIMIT, CURSOR, one("mine", Switch, "Only one's own.")])
        .sends::<AgentPage>(200, "A page of agents."),
        told("POST /v1/agents", "addAgent", "Makes an agent.")
            .takes::<AskedAgent>()
            .sends::<Difference>(200, "With `dry_run`: what would be changed.")
            .sends::<AgentInfo>(201, "The agent."),
        told(
            "GET /v1/agents/{agent}",
            "showAgent",
            "An agent and its instances.",
        )
        .sends::<AgentInfo>(200, "The agent."),
        told(
            "DELETE /v1/agents/{agent}",
            "removeAgent",
            "Stops an agent and forgets it.",
        )
        .sends::<AgentInfo>(200, "The agent."),
        told(
            "POST /v1/agents/{agent}/{verb}",
            "changeAgent",
            "Starts or stops an agent.",
        )
        .verbs(&["start", "stop", "restart"])
        .sends::<AgentInfo>(200, "The agent."),
    ]
}
