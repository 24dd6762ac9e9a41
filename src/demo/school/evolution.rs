//! Schema changes of an evolving school: a fixed plan, so that a test can choose the table with the change that it needs. Data only.
//!
//! | table | commit: change |
//! | --- | --- |
//! | `canvas.accounts` | 2: optional enum column added; 4: `name` from 255 to 1024 characters |
//! | `canvas.users` | 2: optional boolean added; 4: member added to enum `workflow_state` |
//! | `canvas.enrollments` | 2: member added to enum `workflow_state`; 5: required `grade_publishing_status` relaxed |
//! | `canvas.pseudonyms` | 2: required `login_count` and `unique_id` relaxed in one version |
//! | `canvas.courses` | 3: member added to object `settings`; 5: column `turnitin_id` removed |
//! | `canvas.submissions` | 3: optional `word_count` added; 5: `submission_comments_count` from int32 to int64 |
//! | `canvas.context_external_tools` | 3: seven members added to object `settings` |
//! | `canvas.groups` | 3: a column added in the middle and another removed in one version |
//! | `canvas.assignments` | 4: required `grader_count` relaxed; 5: member added to the enum inside array `submission_types` |
//! | `canvas.late_policies` | 4: `late_submission_deduction` from decimal(5,2) to decimal(7,2) |
//! | `canvas_logs.web_logs` | 4: optional column added, `interaction_micros` from int32 to int64, `http_method` grows |
//! | `catalog.user_defined_fields` | 3: **required** column added; the commit rewrites every row |
//! | `catalog.orders` | 4: **required** column added; old rows have null in it until they are rewritten |
//! | `catalog.products` | 3: optional column added, version jumps from 1 to 3; 5: `list_order` to int64, version 4 |

use serde_json::{Map, Value, json};

use crate::model::TableRef;

/// A new schema version of one table.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// The commit that introduces the version; the initial load is commit 1.
    pub commit: u32,
    /// Number of the new version.
    pub version: i64,
    /// The changes.
    pub changes: &'static [Change],
}

/// One difference from the previous version.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Change {
    /// A value column is added. Older rows have null in it.
    ColumnAdded {
        /// Its name.
        column: &'static str,
        /// Its type.
        node: Node,
        /// The column before it; added at the end if `None`.
        after: Option<&'static str>,
        /// Whether it is listed in `required`.
        required: bool,
        /// Whether the commit rewrites all live rows, so that each has a value.
        backfilled: bool,
    },
    /// A value column is removed.
    ColumnRemoved {
        /// Its name.
        column: &'static str,
    },
    /// A value column is removed from `required`. Rows written later can have nulls.
    Relaxed {
        /// Its name.
        column: &'static str,
    },
    /// An enum (or the enum of an array's items) gets another member, which rows written later use.
    EnumGrown {
        /// Its name.
        column: &'static str,
        /// The new member.
        member: &'static str,
    },
    /// String members are added to an object.
    MembersAdded {
        /// Its name.
        column: &'static str,
        /// The new members.
        members: &'static [&'static str],
    },
    /// The maximum length of a string grows.
    TextWidened {
        /// Its name.
        column: &'static str,
        /// In characters.
        max_length: u32,
    },
    /// From int32 to int64.
    IntWidened {
        /// Its name.
        column: &'static str,
    },
    /// More digits before the point.
    DecimalWidened {
        /// Its name.
        column: &'static str,
        /// Digits before the point.
        whole_digits: u32,
    },
}

/// Type of an added column.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Node {
    /// `true` or `false`.
    Boolean,
    /// 32 bits.
    Int32,
    /// A string of at most this many characters.
    Text(u32),
    /// One of these values.
    Enum(&'static [&'static str]),
}

use Change::*;

const fn added(column: &'static str, node: Node) -> Change {
    ColumnAdded { column, node, after: None, required: false, backfilled: false }
}

const fn step(commit: u32, version: i64, changes: &'static [Change]) -> Step {
    Step { commit, version, changes }
}

/// Namespace, table, and steps in the order of their commits.
pub const PLAN: &[(&str, &str, &[Step])] = &[
    (
        "canvas",
        "accounts",
        &[
            step(2, 2, &[added("account_purpose", Node::Enum(&["__dap_unspecified__", "teaching", "sandbox", "archive"]))]),
            step(4, 3, &[TextWidened { column: "name", max_length: 1024 }]),
        ],
    ),
    (
        "canvas",
        "assignments",
        &[
            step(4, 2, &[Relaxed { column: "grader_count" }]),
            step(5, 3, &[EnumGrown { column: "submission_types", member: "spoken_answer" }]),
        ],
    ),
    (
        "canvas",
        "context_external_tools",
        &[step(
            3,
            2,
            &[MembersAdded {
                column: "settings",
                members: &[
                    "analytics_hub",
                    "assignment_edit",
                    "asset_report",
                    "page_view",
                    "page_sidebar",
                    "submission_type_selection",
                    "top_navigation",
                ],
            }],
        )],
    ),
    (
        "canvas",
        "courses",
        &[
            step(3, 2, &[MembersAdded { column: "settings", members: &["hide_sections_on_people_page"] }]),
            step(5, 3, &[ColumnRemoved { column: "turnitin_id" }]),
        ],
    ),
    (
        "canvas",
        "enrollments",
        &[
            step(2, 2, &[EnumGrown { column: "workflow_state", member: "withdrawn" }]),
            step(5, 3, &[Relaxed { column: "grade_publishing_status" }]),
        ],
    ),
    (
        "canvas",
        "groups",
        &[step(
            3,
            2,
            &[
                ColumnAdded {
                    column: "meeting_place",
                    node: Node::Text(255),
                    after: Some("name"),
                    required: false,
                    backfilled: false,
                },
                ColumnRemoved { column: "default_view" },
            ],
        )],
    ),
    ("canvas", "late_policies", &[step(4, 2, &[DecimalWidened { column: "late_submission_deduction", whole_digits: 5 }])]),
    ("canvas", "pseudonyms", &[step(2, 2, &[Relaxed { column: "login_count" }, Relaxed { column: "unique_id" }])]),
    (
        "canvas",
        "submissions",
        &[step(3, 2, &[added("word_count", Node::Int32)]), step(5, 3, &[IntWidened { column: "submission_comments_count" }])],
    ),
    (
        "canvas",
        "users",
        &[
            step(2, 2, &[added("is_inst_user", Node::Boolean)]),
            step(4, 3, &[EnumGrown { column: "workflow_state", member: "suspended" }]),
        ],
    ),
    (
        "canvas_logs",
        "web_logs",
        &[step(
            4,
            2,
            &[
                added("client_region", Node::Text(64)),
                IntWidened { column: "interaction_micros" },
                EnumGrown { column: "http_method", member: "QUERY" },
            ],
        )],
    ),
    (
        "catalog",
        "orders",
        &[step(
            4,
            2,
            &[ColumnAdded { column: "tax_exempt", node: Node::Boolean, after: None, required: true, backfilled: false }],
        )],
    ),
    (
        "catalog",
        "products",
        &[step(3, 3, &[added("badge_name", Node::Text(100))]), step(5, 4, &[IntWidened { column: "list_order" }])],
    ),
    (
        "catalog",
        "user_defined_fields",
        &[step(
            3,
            2,
            &[ColumnAdded { column: "shown_on_invoice", node: Node::Boolean, after: None, required: true, backfilled: true }],
        )],
    ),
];

/// The steps of a table; empty for most tables.
pub fn evolution(table: &TableRef) -> &'static [Step] {
    let found = PLAN.iter().find(|(namespace, name, _)| *namespace == table.namespace.as_str() && *name == table.table);
    found.map_or(&[], |(.., steps)| steps)
}

/// The schema after a step.
pub(super) fn apply(schema: &Value, step: &Step) -> Value {
    let mut schema = schema.clone();
    for change in step.changes {
        apply_change(&mut schema["properties"]["value"], change);
    }
    schema
}

fn apply_change(value: &mut Value, change: &Change) {
    match *change {
        ColumnAdded { column, node, after, required, .. } => {
            insert(&mut value["properties"], column, node_of(node), after);
            if required && let Some(names) = value["required"].as_array_mut() {
                names.push(json!(column));
            }
        }
        ColumnRemoved { column } => {
            if let Some(properties) = value["properties"].as_object_mut() {
                properties.shift_remove(column);
            }
            relax(value, column);
        }
        Relaxed { column } => relax(value, column),
        EnumGrown { column, member } => {
            let node = &mut value["properties"][column];
            let node = if node["type"] == "array" { &mut node["items"] } else { node };
            if let Some(members) = node["enum"].as_array_mut() {
                members.push(json!(member));
            }
        }
        MembersAdded { column, members } => {
            for member in members {
                insert(&mut value["properties"][column]["properties"], member, json!({"type": "string"}), None);
            }
        }
        TextWidened { column, max_length } => value["properties"][column]["maxLength"] = json!(max_length),
        IntWidened { column } => value["properties"][column]["format"] = json!("int64"),
        DecimalWidened { column, whole_digits } => {
            let bound = 10_i64.pow(whole_digits);
            value["properties"][column]["exclusiveMinimum"] = json!(-bound);
            value["properties"][column]["exclusiveMaximum"] = json!(bound);
        }
    }
}

fn relax(value: &mut Value, column: &str) {
    if let Some(names) = value["required"].as_array_mut() {
        names.retain(|name| name != column);
    }
}

fn insert(properties: &mut Value, name: &str, node: Value, after: Option<&str>) {
    let Some(known) = properties.as_object_mut() else { return };
    let mut grown = Map::new();
    for (column, kept) in std::mem::take(known) {
        let here = Some(column.as_str()) == after;
        grown.insert(column, kept);
        if here {
            grown.insert(name.to_owned(), node.clone());
        }
    }
    if after.is_none() {
        grown.insert(name.to_owned(), node);
    }
    *known = grown;
}

fn node_of(node: Node) -> Value {
    match node {
        Node::Boolean => json!({"type": "boolean"}),
        Node::Int32 => json!({"type": "integer", "format": "int32"}),
        Node::Text(max_length) => json!({"type": "string", "maxLength": max_length}),
        Node::Enum(members) => json!({"type": "string", "enum": members}),
    }
}
