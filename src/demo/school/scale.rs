//! Number of rows of each table. Proportions follow real schools: many submissions, participations and log rows, a tenth as many scores and
//! discussion entries, a few thousand courses, some dozen accounts.

/// Rows per million submissions, and the least number of rows.
const SHARES: &[(&str, u64, u64)] = &[
    ("canvas.access_tokens", 8_000, 6),
    ("canvas.account_domains", 0, 3),
    ("canvas.account_users", 400, 5),
    ("canvas.accounts", 30, 8),
    ("canvas.assessment_question_banks", 1_500, 5),
    ("canvas.assessment_questions", 40_000, 10),
    ("canvas.asset_user_accesses", 1_200_000, 50),
    ("canvas.assignment_groups", 4_000, 8),
    ("canvas.assignment_override_students", 12_000, 6),
    ("canvas.assignment_overrides", 8_000, 6),
    ("canvas.assignments", 30_000, 15),
    ("canvas.attachment_associations", 150_000, 15),
    ("canvas.attachments", 300_000, 25),
    ("canvas.calendar_events", 12_000, 8),
    ("canvas.comment_bank_items", 2_000, 5),
    ("canvas.communication_channels", 13_000, 25),
    ("canvas.content_migrations", 2_500, 5),
    ("canvas.content_participation_counts", 50_000, 20),
    ("canvas.content_participations", 900_000, 60),
    ("canvas.content_tags", 60_000, 20),
    ("canvas.context_external_tools", 500, 6),
    ("canvas.context_module_progressions", 200_000, 20),
    ("canvas.context_modules", 10_000, 10),
    ("canvas.conversation_message_participants", 120_000, 20),
    ("canvas.conversation_messages", 50_000, 15),
    ("canvas.conversation_participants", 45_000, 15),
    ("canvas.conversations", 20_000, 10),
    ("canvas.course_account_associations", 2_500, 8),
    ("canvas.course_sections", 1_500, 8),
    ("canvas.courses", 1_000, 6),
    ("canvas.custom_gradebook_column_data", 8_000, 8),
    ("canvas.developer_keys", 60, 5),
    ("canvas.discussion_entries", 120_000, 20),
    ("canvas.discussion_entry_participants", 350_000, 30),
    ("canvas.discussion_topic_participants", 150_000, 20),
    ("canvas.discussion_topics", 12_000, 10),
    ("canvas.enrollment_states", 50_000, 30),
    ("canvas.enrollment_terms", 15, 6),
    ("canvas.enrollments", 50_000, 30),
    ("canvas.favorites", 6_000, 8),
    ("canvas.folders", 30_000, 10),
    ("canvas.grading_period_groups", 15, 3),
    ("canvas.grading_periods", 40, 5),
    ("canvas.group_memberships", 15_000, 10),
    ("canvas.groups", 4_000, 8),
    ("canvas.learning_outcome_question_results", 60_000, 10),
    ("canvas.learning_outcome_results", 80_000, 15),
    ("canvas.lti_results", 40_000, 10),
    ("canvas.master_courses_child_content_tags", 20_000, 8),
    ("canvas.master_courses_master_content_tags", 10_000, 8),
    ("canvas.originality_reports", 60_000, 10),
    ("canvas.pseudonyms", 10_500, 22),
    ("canvas.quiz_questions", 50_000, 15),
    ("canvas.quiz_submissions", 160_000, 20),
    ("canvas.quizzes", 7_000, 8),
    ("canvas.role_overrides", 200, 8),
    ("canvas.roles", 10, 8),
    ("canvas.rubric_assessments", 60_000, 10),
    ("canvas.score_statistics", 20_000, 10),
    ("canvas.scores", 200_000, 30),
    ("canvas.submission_comments", 200_000, 20),
    ("canvas.submission_versions", 1_300_000, 60),
    ("canvas.submissions", 1_000_000, 1),
    ("canvas.user_account_associations", 15_000, 20),
    ("canvas.users", 10_000, 20),
    ("canvas.wiki_pages", 15_000, 10),
    ("canvas.wikis", 1_000, 6),
    ("canvas_logs.web_logs", 5_000_000, 100),
    ("catalog.accounts", 5, 4),
    ("catalog.enrollments", 5_000, 10),
    ("catalog.order_items", 4_500, 10),
    ("catalog.orders", 4_000, 10),
    ("catalog.payments", 3_500, 8),
    ("catalog.products", 400, 8),
    ("catalog.users", 3_000, 10),
];

/// Rows of a table at the first commit of a school with `submissions` submissions.
pub(super) fn rows(table: &str, submissions: u64) -> u64 {
    let (share, least) = match SHARES.binary_search_by_key(&table, |(name, ..)| name) {
        Ok(found) => (SHARES[found].1, SHARES[found].2),
        Err(_) => (700, 5),
    };
    (u128::from(submissions) * u128::from(share) / 1_000_000).max(u128::from(least)) as u64
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_share_belongs_to_a_table_and_is_found() {
        let known: Vec<String> =
            crate::demo::school::catalogue::tables().map(|(namespace, table)| format!("{namespace}.{table}")).collect();
        for (name, share, least) in SHARES {
            assert!(known.iter().any(|table| table == name), "{name}");
            assert!(*least > 0);
            assert_eq!(rows(name, 1_000_000), (*share).max(*least));
        }
    }
}
