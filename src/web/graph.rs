//! The picture of what hangs together: tasks in columns, each right of all that
//! it waits for.

use std::collections::BTreeMap;

use maud::{Markup, html};

use crate::api::graph::{GraphInfo, NodeInfo};

use super::parts::{brief, cut};

const WIDTH: usize = 200;
const HEIGHT: usize = 44;
const GAP_X: usize = 60;
const GAP_Y: usize = 14;
const EDGE: usize = 2;

/// Where a task stands in the picture: column and row.
type Place = (usize, usize);

pub(super) fn picture(graph: &GraphInfo) -> Markup {
    let places = places(graph);
    let columns = places.values().map(|(column, _)| column + 1).max();
    let rows = places.values().map(|(_, row)| row + 1).max();
    let width = columns.unwrap_or(1) * (WIDTH + GAP_X) - GAP_X + 2 * EDGE;
    let height = rows.unwrap_or(1) * (HEIGHT + GAP_Y) - GAP_Y + 2 * EDGE;
    html! {
        div .wide tabindex="0" role="region" aria-label="Graph of dependencies" {
            svg .graph width=(width) height=(height) viewBox={ "0 0 " (width) " " (height) }
                role="group" aria-label="Tasks and what they wait for" {
                @for edge in &graph.edges {
                    @if let Some(path) = line(&places, edge.after, edge.task) {
                        path .edge .met[edge.met] d=(path) {}
                    }
                }
                @for node in &graph.nodes { (draw(node, places.get(&node.id), node.id == graph.task)) }
            }
        }
        @if graph.cut { p .quiet { "There is more than is shown here." } }
    }
}

/// The column of a task is that of the longest way to it.
fn places(graph: &GraphInfo) -> BTreeMap<i64, Place> {
    let mut columns: BTreeMap<i64, usize> = graph.nodes.iter().map(|node| (node.id, 0)).collect();
    // Each round moves what stands too far to the left; a graph has no circles,
    // and so no more rounds than tasks.
    for _ in 0..graph.nodes.len() {
        let mut moved = false;
        for edge in &graph.edges {
            let Some(before) = columns.get(&edge.after).copied() else {
                continue;
            };
            if let Some(own) = columns.get_mut(&edge.task)
                && *own <= before
            {
                *own = before + 1;
                moved = true;
            }
        }
        if !moved {
            break;
        }
    }
    let mut taken: BTreeMap<usize, usize> = BTreeMap::new();
    let place = |(id, column): (i64, usize)| {
        let next = taken.entry(column).or_default();
        let row = *next;
        *next += 1;
        (id, (column, row))
    };
    columns.into_iter().map(place).collect()
}

fn corner((column, row): Place) -> (usize, usize) {
    (
        EDGE + column * (WIDTH + GAP_X),
        EDGE + row * (HEIGHT + GAP_Y),
    )
}

fn line(places: &BTreeMap<i64, Place>, from: i64, to: i64) -> Option<String> {
    let (left, top) = corner(*places.get(&from)?);
    let (x, y) = (left + WIDTH, top + HEIGHT / 2);
    let (end, below) = corner(*places.get(&to)?);
    let (end_y, bend) = (below + HEIGHT / 2, x + GAP_X / 2);
    Some(format!("M{x} {y}C{bend} {y} {bend} {end_y} {end} {end_y}"))
}

fn draw(node: &NodeInfo, place: Option<&Place>, is_own: bool) -> Markup {
    let (x, y) = corner(place.copied().unwrap_or_default());
    let name = node.name.clone();
    let name = name.unwrap_or_else(|| brief(&node.command));
    html! {
        a href={ "/tasks/" (node.id) } {
            title { "Task " (node.id) ": " (name) ", " (node.state) }
            rect class={ "node " (node.state) @if is_own { " own" } }
                x=(x) y=(y) width=(WIDTH) height=(HEIGHT) rx="6" {}
            text x=(x + 10) y=(y + 18) { (node.id) " " (cut(&name, 22)) }
            text .word x=(x + 10) y=(y + 35) { (node.state) }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::graph::EdgeInfo;

    fn graph(nodes: &[i64], edges: &[(i64, i64)]) -> GraphInfo {
        let node = |id: &i64| NodeInfo {
            id: *id,
            name: None,
            queue: "default".to_owned(),
            state: "blocked".to_owned(),
            message: None,
            command: vec!["</title><script>".to_owned()],
        };
        let edge = |(after, task): &(i64, i64)| EdgeInfo {
            task: *task,
            after: *after,
            wants: "ok".to_owned(),
            met: false,
        };
        GraphInfo {
            task: 1,
            nodes: nodes.iter().map(node).collect(),
            edges: edges.iter().map(edge).collect(),
            cut: false,
        }
    }

    #[test]
    fn each_task_stands_right_of_all_that_it_waits_for() {
        let diamond = graph(&[1, 2, 3, 4], &[(3, 4), (1, 2), (1, 3), (2, 4), (1, 4)]);
        let places = places(&diamond);
        let expected = [(1, (0, 0)), (2, (1, 0)), (3, (1, 1)), (4, (2, 0))];
        assert_eq!(places, BTreeMap::from(expected));
        let drawn = picture(&diamond).into_string();
        assert_eq!(drawn.matches("<rect").count(), 4);
        assert_eq!(drawn.matches("class=\"edge\"").count(), 5);
        assert!(!drawn.contains("<script"), "{drawn}");
    }

    #[test]
    fn edges_to_what_is_not_there_are_left_out() {
        let broken = graph(&[1], &[(7, 1), (1, 8)]);
        assert!(!picture(&broken).into_string().contains("<path"));
        let circle = graph(&[1, 2], &[(1, 2), (2, 1)]);
        assert_eq!(places(&circle).len(), 2, "it ends");
    }
}
