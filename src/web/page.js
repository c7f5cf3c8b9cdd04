// What makes a page live: forms are sent without leaving it, parts that changed are put in anew when something has
// happened, output comes as it is written. Without this file everything can be read and done as well, one page at a time.
"use strict";

const EVENTS = "/v1/events?follow=true";
const STATUS = "/v1/status";
const GATHER = 200; // Milliseconds in which events are taken together.
const AGAIN = 5000; // Milliseconds after which a lost stream is asked for again, and times are told anew.
const SAMPLE = 2000; // Milliseconds between two points of a chart.
const POINTS = 120; // Points of a chart.
const LOG_MAX = 2000; // Pieces of output that are kept in the page.

const find = (selector, root = document) => root.querySelector(selector);
const all = (selector, root = document) => [...root.querySelectorAll(selector)];
const parse = (text) => new DOMParser().parseFromString(text, "text/html");

document.documentElement.classList.add("scripted");

// Says whether what is shown is as it is now.
function tell(isLive, words) {
    const link = find("#link");
    if (link && link.textContent !== words) {
        link.textContent = words;
        link.classList.toggle("live", isLive);
    }
}

// Puts new parts in, and keeps what a person was doing in the old ones.
function renew(page) {
    for (const old of all("[data-live]")) {
        const part = page.getElementById(old.id);
        if (!part || part.outerHTML === old.was) continue;
        const was = part.outerHTML;
        const chosen = all("input:checked", old).map((box) => box.value);
        const place = all("a, button, input, [tabindex]", old).indexOf(document.activeElement);
        const scrolled = all(".wide", old).map((box) => box.scrollLeft);
        old.replaceWith(part);
        part.was = was;
        for (const box of all("input[type=checkbox]", part)) box.checked = chosen.includes(box.value);
        all(".wide", part).forEach((box, index) => (box.scrollLeft = scrolled[index] || 0));
        if (place >= 0) all("a, button, input, [tabindex]", part)[place]?.focus({ preventScroll: true });
    }
}

let shown = location.pathname + location.search;

// Shows another page in the place of this one.
function show(page, address) {
    const here = location.pathname + location.search;
    const there = new URL(address);
    shown = there.pathname + there.search;
    if (shown !== here) history.pushState(null, "", shown);
    document.title = page.title;
    find("header").replaceWith(find("header", page));
    find("main").replaceWith(find("main", page));
    begin();
    find("main").focus({ preventScroll: true });
    scrollTo(0, 0);
}

async function refresh() {
    try {
        const answer = await fetch(location.href, { headers: { Accept: "text/html" } });
        if (answer.status === 401) return location.assign("/sign-in");
        if (answer.ok) renew(parse(await answer.text()));
    } catch {
        tell(false, "not live: no answer");
    }
}

let gathering = null;
function soon() {
    gathering ??= setTimeout(async () => {
        await refresh();
        gathering = null;
    }, GATHER);
}

// What is open to the daemon while the page can be seen.
let streams = [];
function open(address, begun, handlers) {
    const source = new EventSource(address);
    const entry = { close: () => source.close() };
    streams.push(entry);
    source.onopen = begun;
    for (const [name, handler] of Object.entries(handlers)) source.addEventListener(name, (event) => handler(event, source));
    source.onerror = () => {
        if (address === EVENTS) tell(false, "not live: trying again");
        if (source.readyState !== EventSource.CLOSED) return;
        // A refusal is final for the browser; the daemon may be about to come back.
        const timer = setTimeout(() => open(address, begun, handlers), AGAIN);
        entry.close = () => clearTimeout(timer);
        if (address === EVENTS) refresh();
    };
}

function follow(log) {
    const decoders = {};
    let last = null;
    const clear = () => { if (!last) { log.textContent = ""; last = log; } };
    const add = (text, kind) => {
        clear();
        const isAtEnd = log.scrollHeight - log.scrollTop - log.clientHeight < 40;
        const piece = document.createElement("span");
        piece.textContent = text;
        if (kind) piece.className = kind;
        log.append(piece);
        while (log.childElementCount > LOG_MAX) log.firstElementChild.remove();
        if (isAtEnd) log.scrollTop = log.scrollHeight;
    };
    open(log.dataset.log, null, {
        attempt: (event) => {
            const number = JSON.parse(event.data).number;
            clear();
            if (number > 1 && event.lastEventId.endsWith(".0")) add(`— attempt ${number} —\n`, "note");
        },
        output: (event) => {
            const { stream, base64 } = JSON.parse(event.data);
            const bytes = Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
            decoders[stream] ??= new TextDecoder();
            const text = decoders[stream].decode(bytes, { stream: true });
            // Colours of terminals are left out.
            add(text.replace(/\x1b\[[0-9;?]*[A-Za-z]/g, ""), stream === "stderr" ? "err" : "");
        },
        gap: (event) => add(`— ${JSON.parse(event.data).dropped} bytes were not kept —\n`, "note"),
        end: (event, source) => source.close(),
    });
}

// Charts are of what was seen while some page was open, so they are kept for the next one.
const samples = JSON.parse(sessionStorage.getItem("samples") || "[]");
async function sample() {
    if (document.hidden || !find("[data-chart]")) return;
    try {
        const answer = await fetch(STATUS);
        if (!answer.ok) return;
        const { tasks, slots } = await answer.json();
        const over = ["succeeded", "failed", "cancelled", "skipped", "expired"];
        const ended = over.reduce((sum, word) => sum + (tasks[word] || 0), 0);
        const before = samples.at(-1);
        const fresh = before && Date.now() - before.at < 3 * SAMPLE;
        // Old tasks are removed: what is fewer than before says nothing.
        const more = fresh ? Math.max(0, ended - before.all) : 0;
        samples.push({ at: Date.now(), all: ended, running: slots.used, waiting: tasks.queued || 0, ended: more });
        samples.splice(0, samples.length - POINTS);
        sessionStorage.setItem("samples", JSON.stringify(samples));
    } catch {
        return;
    }
    all("[data-chart]").forEach(draw);
}

function draw(chart) {
    const values = samples.map((one) => one[chart.dataset.chart]);
    if (values.length === 0) return;
    find("output", chart).textContent = values.at(-1);
    if (values.length === 1) return;
    const most = Math.max(1, ...values);
    const x = (index) => (240 * (POINTS - values.length + index)) / (POINTS - 1);
    const points = values.map((value, index) => `${x(index).toFixed(1)} ${(46 - (42 * value) / most).toFixed(1)}`);
    find(".line", chart).setAttribute("d", `M${points.join("L")}`);
    find(".area", chart).setAttribute("d", `M${x(0).toFixed(1)} 48L${points.join("L")}L240 48Z`);
}

// Begins what a page that is shown has.
function begin() {
    for (const stream of streams) stream.close();
    streams = [];
    for (const part of all("[data-live]")) part.was ??= part.outerHTML;
    find("nav [aria-current]")?.scrollIntoView({ block: "nearest", inline: "nearest" });
    if (!find("#link") || document.hidden) return;
    open(EVENTS, () => tell(true, "live"), { message: soon, gap: soon });
    all("[data-log]").forEach(follow);
    all("[data-chart]").forEach(draw);
    sample();
}

document.addEventListener("submit", async (event) => {
    const form = event.target;
    const button = event.submitter;
    if (form.method !== "post" || form.dataset.plain !== undefined) return;
    event.preventDefault();
    if (form.dataset.sure && !confirm(form.dataset.sure)) return;
    const body = new URLSearchParams(new FormData(form, button));
    if (button) button.disabled = true;
    find(".problem.here")?.remove();
    try {
        const action = button?.getAttribute("formaction") || form.getAttribute("action");
        const answer = await fetch(action, { method: "POST", body, headers: { Accept: "text/html" } });
        if (answer.status === 401) return location.assign("/sign-in");
        const page = parse(await answer.text());
        if (answer.ok) return show(page, answer.redirected ? answer.url : location.href);
        const problem = find(".problem", page);
        if (!problem) return tell(false, `not done: ${answer.status}`);
        problem.classList.add("here");
        // What was filled in stays, and stands below why it was refused.
        if (form.closest("[data-live]")) find("main").prepend(problem);
        else form.prepend(problem);
    } catch {
        tell(false, "not sent: no answer");
    } finally {
        if (button) button.disabled = false;
    }
});

document.addEventListener("visibilitychange", () => {
    begin();
    if (!document.hidden) refresh();
});
// Back and forth between pages, not to a place within one.
addEventListener("popstate", () => {
    if (shown !== location.pathname + location.search) location.reload();
});
setInterval(sample, SAMPLE);
setInterval(() => { if (!document.hidden && find("[data-live]")) soon(); }, AGAIN);
begin();
