//! Positions of the boxes of a diagram. Tables are to the right of the tables that they refer to, in columns, near their
//! relations. Tables that very many others refer to (hubs) are placed separately, because lines to them would cover everything
//! else. The layout is deterministic.

/// Distance between columns, with room for the lines.
const COLUMN_GAP: f64 = 90.0;
/// Distance between boxes of a column.
const GAP: f64 = 22.0;
/// Smaller diagrams have no hubs.
const FEW: usize = 12;
/// A table that this many others refer to is a hub.
const MANY: usize = 9;
const SWEEPS: usize = 24;

/// Position and size of a box.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Place {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// Positions of all boxes.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Layout {
    /// In the order of the given sizes.
    pub(super) places: Vec<Place>,
    /// Whether a table is a hub.
    pub(super) is_hub: Vec<bool>,
    pub(super) width: f64,
    pub(super) height: f64,
}

/// Places boxes of the given sizes. `edges` go from the referring to the referenced table.
pub(super) fn layout(sizes: &[(f64, f64)], edges: &[(usize, usize)]) -> Layout {
    let count = sizes.len();
    let mut referred = vec![0_usize; count];
    for (from, to) in edges {
        if from != to {
            referred[*to] += 1;
        }
    }
    let is_hub: Vec<bool> = referred.iter().map(|by| count > FEW && *by >= MANY).collect();
    let lines: Vec<(usize, usize)> =
        edges.iter().copied().filter(|(from, to)| from != to && !is_hub[*from] && !is_hub[*to]).collect();
    let mut has_line = vec![false; count];
    for (from, to) in &lines {
        has_line[*from] = true;
        has_line[*to] = true;
    }

    let mut places = vec![Place { x: 0.0, y: 0.0, width: 0.0, height: 0.0 }; count];
    for (place, (width, height)) in places.iter_mut().zip(sizes) {
        (place.width, place.height) = (*width, *height);
    }
    let mut hubs: Vec<usize> = (0..count).filter(|table| is_hub[*table]).collect();
    hubs.sort_by_key(|table| std::cmp::Reverse(referred[*table]));
    let middle: Vec<usize> = (0..count).filter(|table| !is_hub[*table] && has_line[*table]).collect();
    let alone: Vec<usize> = (0..count).filter(|table| !is_hub[*table] && !has_line[*table]).collect();

    let area: f64 = sizes.iter().map(|(width, height)| (width + COLUMN_GAP) * (height + GAP)).sum();
    let wished_height = (area * 0.62).sqrt().max(400.0);
    let columns = columns(&middle, &lines, sizes, wished_height);
    let middle_width = place_columns(&mut places, &columns, &lines);
    let width = middle_width.max((area * 1.4).sqrt().min(2600.0));
    let top = place_rows(&mut places, &hubs, 0.0, width);
    let shift = if hubs.is_empty() { 0.0 } else { top + GAP };
    let mut bottom = top;
    let left = (width - middle_width) / 2.0;
    for table in &middle {
        places[*table].y += shift;
        places[*table].x += left.max(0.0);
        bottom = bottom.max(places[*table].y + places[*table].height);
    }
    let begin = if middle.is_empty() && hubs.is_empty() { 0.0 } else { bottom + 2.0 * GAP };
    let end = place_rows(&mut places, &alone, begin, width);
    let right = places.iter().map(|place| place.x + place.width).fold(0.0, f64::max);
    Layout { places, is_hub, width: right, height: bottom.max(end) }
}

/// Tables by column, referenced tables first. A column that is too long is split.
fn columns(tables: &[usize], lines: &[(usize, usize)], sizes: &[(f64, f64)], wished_height: f64) -> Vec<Vec<usize>> {
    let mut rank = vec![None; sizes.len()];
    for table in tables {
        rank_of(*table, lines, &mut rank, &mut Vec::new());
    }
    let deepest = tables.iter().filter_map(|table| rank[*table]).max().unwrap_or(0);
    let mut columns: Vec<Vec<usize>> = Vec::new();
    for wanted in 0..=deepest {
        let mut column = Vec::new();
        let mut height = 0.0;
        for table in tables.iter().filter(|table| rank[**table] == Some(wanted)) {
            if height > 0.0 && height + sizes[*table].1 > wished_height {
                columns.push(std::mem::take(&mut column));
                height = 0.0;
            }
            height += sizes[*table].1 + GAP;
            column.push(*table);
        }
        if !column.is_empty() {
            columns.push(column);
        }
    }
    columns
}

/// The depth of a table: one more than that of the tables that it refers to. References that close a cycle are ignored.
fn rank_of(table: usize, lines: &[(usize, usize)], rank: &mut [Option<usize>], way: &mut Vec<usize>) -> usize {
    if let Some(known) = rank[table] {
        return known;
    }
    way.push(table);
    let targets: Vec<usize> =
        lines.iter().filter(|(from, to)| *from == table && !way.contains(to)).map(|line| line.1).collect();
    let found = targets.into_iter().map(|to| rank_of(to, lines, rank, way) + 1).max().unwrap_or(0);
    way.pop();
    rank[table] = Some(found);
    found
}

/// Orders each column by the positions of its relations, then moves boxes towards them. Returns the total width.
fn place_columns(places: &mut [Place], columns: &[Vec<usize>], lines: &[(usize, usize)]) -> f64 {
    let mut columns = columns.to_vec();
    let mut x = 0.0;
    for column in &columns {
        let width = column.iter().map(|table| places[*table].width).fold(0.0, f64::max);
        stack(places, column);
        column.iter().for_each(|table| places[*table].x = x);
        x += width + COLUMN_GAP;
    }
    let tallest = columns.iter().map(|column| bottom_of(places, column)).fold(0.0, f64::max);
    for column in &columns {
        let spare = (tallest - bottom_of(places, column)) / 2.0;
        column.iter().for_each(|table| places[*table].y += spare);
    }
    for sweep in 0..SWEEPS {
        let order: Vec<usize> = if sweep % 2 == 0 { (0..columns.len()).collect() } else { (0..columns.len()).rev().collect() };
        for number in order {
            let column = &mut columns[number];
            let wishes: Vec<f64> = column.iter().map(|table| wish(places, *table, lines)).collect();
            let mut by_wish: Vec<(usize, f64)> = column.iter().copied().zip(wishes).collect();
            by_wish.sort_by(|one, other| one.1.total_cmp(&other.1).then(one.0.cmp(&other.0)));
            *column = by_wish.iter().map(|(table, _)| *table).collect();
            settle(places, &by_wish);
        }
    }
    let highest = columns.iter().flatten().map(|table| places[*table].y).fold(f64::MAX, f64::min);
    columns.iter().flatten().for_each(|table| places[*table].y -= highest);
    (x - COLUMN_GAP).max(0.0)
}

fn stack(places: &mut [Place], column: &[usize]) {
    let mut y = 0.0;
    for table in column {
        places[*table].y = y;
        y += places[*table].height + GAP;
    }
}

fn bottom_of(places: &[Place], column: &[usize]) -> f64 {
    column.last().map_or(0.0, |table| places[*table].y + places[*table].height)
}

/// The mean position of a table's relations.
fn wish(places: &[Place], table: usize, lines: &[(usize, usize)]) -> f64 {
    let centre = |table: usize| places[table].y + places[table].height / 2.0;
    let near = lines.iter().filter_map(|(from, to)| match (*from == table, *to == table) {
        (true, false) => Some(*to),
        (false, true) => Some(*from),
        _ => None,
    });
    let (sum, count) = near.fold((0.0, 0.0), |(sum, count), other| (sum + centre(other), count + 1.0));
    if count == 0.0 { centre(table) } else { sum / count }
}

/// Places boxes as near as possible to their preferred positions, in this order and without overlap. Touching boxes form a group
/// around their mean.
fn settle(places: &mut [Place], by_wish: &[(usize, f64)]) {
    // Each group: its boxes, its height, and the sum of the tops of the group that its boxes prefer.
    let mut groups: Vec<(Vec<usize>, f64, f64)> = Vec::new();
    for (table, wish) in by_wish {
        let height = places[*table].height + GAP;
        let mut group = (vec![*table], height, wish - places[*table].height / 2.0);
        while let Some(last) = groups.last() {
            let top = last.2 / last.0.len() as f64;
            if top + last.1 <= group.2 / group.0.len() as f64 {
                break;
            }
            let Some((mut tables, above, wishes)) = groups.pop() else { break };
            let wishes = wishes + group.2 - above * group.0.len() as f64;
            tables.extend(&group.0);
            group = (tables, above + group.1, wishes);
        }
        groups.push(group);
    }
    for (tables, _, wishes) in groups {
        let mut y = wishes / tables.len() as f64;
        for table in tables {
            places[table].y = y;
            y += places[table].height + GAP;
        }
    }
}

/// Places boxes in rows from `begin`, as many per row as fit. Returns the end.
fn place_rows(places: &mut [Place], tables: &[usize], begin: f64, width: f64) -> f64 {
    let (mut x, mut y, mut row_height) = (0.0, begin, 0.0_f64);
    for table in tables {
        if x > 0.0 && x + places[*table].width > width {
            x = 0.0;
            y += row_height + GAP;
            row_height = 0.0;
        }
        (places[*table].x, places[*table].y) = (x, y);
        x += places[*table].width + GAP * 1.5;
        row_height = row_height.max(places[*table].height);
    }
    if tables.is_empty() { begin } else { y + row_height + GAP }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn overlap(one: &Place, other: &Place) -> bool {
        one.x < other.x + other.width - 0.01
            && other.x < one.x + one.width - 0.01
            && one.y < other.y + other.height - 0.01
            && other.y < one.y + one.height - 0.01
    }

    proptest! {
        #[test]
        fn boxes_never_overlap_and_stay_inside(
            sizes in prop::collection::vec((120.0..380.0_f64, 30.0..300.0_f64), 0..40),
            edges in prop::collection::vec((0..40_usize, 0..40_usize), 0..120),
        ) {
            let edges: Vec<_> = edges.into_iter().filter(|(from, to)| *from < sizes.len() && *to < sizes.len()).collect();
            let laid = layout(&sizes, &edges);
            prop_assert_eq!(laid.places.len(), sizes.len());
            for (number, place) in laid.places.iter().enumerate() {
                prop_assert!(place.x >= -0.01 && place.y >= -0.01, "{:?}", place);
                prop_assert!(place.x + place.width <= laid.width + 0.01 && place.y + place.height <= laid.height + 0.01);
                for other in &laid.places[number + 1..] {
                    prop_assert!(!overlap(place, other), "{:?} {:?}", place, other);
                }
            }
            prop_assert_eq!(layout(&sizes, &edges), laid);
        }
    }

    #[test]
    fn tables_with_references_are_to_the_right() {
        let laid = layout(&[(100.0, 50.0); 3], &[(0, 1), (1, 2)]);
        assert!(laid.places[0].x > laid.places[1].x && laid.places[1].x > laid.places[2].x);
    }
}
