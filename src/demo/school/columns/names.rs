//! Properties derived from the names of columns: ranges of numbers, share of nulls, kind of timestamp. Data only.

use crate::demo::school::columns::rule::{NumberKind, TextKind, TimeKind, ValueKind};

/// The target of an id column without a documented reference.
pub(crate) fn undocumented(table: &str, column: &str) -> Option<&'static str> {
    Some(match (table, column) {
        (_, "current_sis_batch_id" | "sis_batch_id") => "canvas.sis_batches",
        (_, "course_template_id") => "canvas.courses",
        (_, "consortium_parent_account_id" | "canvas_id") => "canvas.accounts",
        (_, "rubric_association_id") => "canvas.rubric_associations",
        (_, "cloned_item_id") => "canvas.cloned_items",
        (_, "latest_outcome_import_id") => "canvas.outcome_imports",
        (_, "client_id") => "canvas.developer_keys",
        (_, "canvas_section_id") => "canvas.course_sections",
        (_, "owner_id") => "catalog.account_admins",
        (_, "bulk_checkout_id") => "catalog.bulk_checkouts",
        ("catalog.categories", "group_id") => "catalog.products",
        _ => return None,
    })
}

pub(crate) fn is_lasting(name: &str, words: &TextKind) -> bool {
    let by_name =
        ["sis_source_id", "sis_user_id", "integration_id", "uuid", "lti_context_id", "migration_id", "md5", "unique_id"];
    matches!(words, TextKind::Person(_) | TextKind::PersonOf(..)) || by_name.contains(&name)
}

pub(crate) fn null_rate(table: &str, column: &str) -> u64 {
    match (table, column) {
        ("canvas.submissions", "body") => 400,
        ("canvas.submissions", "attempt" | "submitted_at" | "submission_type" | "score" | "grade" | "workflow_state") => 200,
        ("canvas.submissions", "url") => 900,
        (_, "created_at" | "updated_at" | "name" | "title" | "workflow_state" | "user_id" | "sortable_name" | "short_name") => {
            20
        }
        (_, "media_comment_id" | "media_comment_type" | "media_object_id" | "media_entry_id") => 980,
        (_, "merged_into_user_id" | "real_user_id" | "turnitin_id" | "turnitin_data" | "usage_rights_id") => 960,
        (_, "cloned_item_id" | "duplicate_of_id" | "grading_standard_id" | "replacement_attachment_id") => 940,
        (_, "consortium_parent_account_id" | "old_assignment_id" | "temporary_user_code") => 1_010,
        (_, "group_id" | "extra_attempts" | "seconds_late_override" | "custom_grade_status_id" | "excused") => 800,
        (_, "redo_request" | "points_deducted" | "quiz_id" | "real_name" | "access_code" | "ip_filter") => 700,
        _ if column.ends_with("sis_batch_id") || column.ends_with("migration_id") => 600,
        _ => 150,
    }
}

pub(crate) fn integer(name: &str, bits: u32) -> ValueKind {
    let (low, high) = match name {
        _ if name.ends_with("quota") => (0, 524_288_000_000),
        "size" | "logo_file_size" | "image_file_size" => (0, 60_000_000),
        "interaction_micros" => (900, 4_000_000),
        "total_activity_time" => (0, 900_000),
        "seconds_late_override" => (-3_600, 1_209_600),
        "depth" => (0, 6),
        "attempt" | "artifact_attempt" | "submission_attempt" | "allowed_attempts" => (1, 6),
        "position" | "list_order" | "sequence" => (1, 60),
        "rating" => (0, 1),
        "calculation_int" => (1, 100),
        _ if name.ends_with("count") => (0, 80),
        _ => (0, 500),
    };
    ValueKind::Int { low, high, bits }
}

pub(crate) fn number(name: &str) -> NumberKind {
    match name {
        "amount" | "discount" | "discounted_amount" | "unit_price" | "total" | "enrollment_fee" => NumberKind::Money,
        "percent" | "mastery_score" => NumberKind::Share,
        "group_weight" | "weight" | "progress" | "originality_score" => NumberKind::Percent,
        "points_possible"
        | "possible"
        | "original_possible"
        | "quiz_points_possible"
        | "score_maximum"
        | "result_maximum"
        | "question_points"
        | "points" => NumberKind::Points,
        _ if name.ends_with("score") || name.ends_with("points") => NumberKind::Score,
        _ => NumberKind::Any,
    }
}

pub(crate) fn when(name: &str) -> TimeKind {
    match name {
        "created_at" => TimeKind::Created,
        "updated_at" | "workflow_state_timestamp" => TimeKind::Written,
        "deleted_at" => TimeKind::Deleted,
        "timestamp" => TimeKind::LogEvent,
        "start_at" | "unlock_at" | "start_date" | "delayed_post_at" | "enrollment_open_from" | "show_correct_answers_at" => {
            TimeKind::Ahead(0, 40)
        }
        "due_at" | "cached_due_date" | "todo_date" | "peer_reviews_due_at" => TimeKind::Ahead(40, 60),
        "end_at" | "lock_at" | "end_date" | "close_date" | "ends_at" | "expires_at" | "conclude_at" | "state_valid_until" => {
            TimeKind::Ahead(100, 120)
        }
        "hide_correct_answers_at" | "confirmation_code_expires_at" | "enrollment_open_to" => TimeKind::Ahead(100, 120),
        _ => TimeKind::Between,
    }
}
