//! Chooses the rule of each column by table, name, type and documented references. `row` generates the values.

use std::sync::Arc;

use crate::demo::school::catalogue::entry::Entry;
use crate::demo::school::columns::names::{integer, is_lasting, null_rate, number, undocumented, when};
use crate::demo::school::columns::rule::{Polymorphic, Rule, TextKind, TimeKind, UNSPECIFIED, ValueKind, Weighted};
use crate::demo::school::columns::shape::{Column, Kind};
use crate::demo::school::values::random::salt;
use crate::demo::school::values::text::{Form, Json};
use crate::demo::school::values::vocabulary;
use crate::demo::school::world::{Reference, World, table_of, word_of};

/// Required columns with a few nulls, as in the real service (rows written before a schema was relaxed).
pub(crate) const REQUIRED_NULLS: &[(&str, &str, &str)] = &[
    ("canvas", "attachment_associations", "context_type"),
    ("canvas", "calendar_events", "important_dates"),
    ("canvas", "comment_bank_items", "comment"),
    ("canvas", "content_tags", "context_id"),
    ("canvas", "lti_line_items", "score_maximum"),
    ("canvas", "web_conferences", "title"),
    ("catalog", "custom_emails", "created_by"),
    ("catalog", "products", "workflow_state"),
];

/// References that follow from another one: a submission belongs to the course of its assignment. Table, column, the column that refers to
/// the other table, that table, its column.
const VIA: &[(&str, &str, &str, &str, &str)] = &[
    ("canvas.submissions", "course_id", "assignment_id", "canvas.assignments", "context_id"),
    ("canvas.submission_versions", "context_id", "assignment_id", "canvas.assignments", "context_id"),
    ("canvas.enrollments", "course_id", "course_section_id", "canvas.course_sections", "course_id"),
];

/// Rules of all value columns of a schema version.
pub(crate) fn rules(entry: &Entry, columns: &[Column], world: &World) -> Vec<Rule> {
    RuleBuilder { entry, table: &entry.full_name(), columns, world }.all(columns)
}

struct RuleBuilder<'a> {
    entry: &'a Entry,
    table: &'a str,
    columns: &'a [Column],
    world: &'a World,
}

impl RuleBuilder<'_> {
    fn all(&self, columns: &[Column]) -> Vec<Rule> {
        columns.iter().map(|column| self.rule(column)).collect()
    }

    fn rule(&self, column: &Column) -> Rule {
        let what = self.what(column);
        let lasting = match &what {
            ValueKind::Id { .. } => column.required || self.leads(column.name) || column.name == "canvas_user_id",
            ValueKind::Via { .. } | ValueKind::Parent(_) | ValueKind::Uuid | ValueKind::Time(TimeKind::Created) => true,
            ValueKind::Text { words, .. } => is_lasting(column.name, words),
            _ => false,
        };
        let here = (self.entry.namespace, self.entry.table, column.name);
        let poly = matches!(what, ValueKind::PolyId(_) | ValueKind::PolyType(_));
        let nulls = match () {
            () if REQUIRED_NULLS.contains(&here) => 40,
            () if column.required || poly => 0,
            () if matches!(what, ValueKind::Time(TimeKind::Deleted)) => 0,
            () if matches!(what, ValueKind::Parent(_)) => match column.name {
                // The roots of a tree are its nulls; copies and replacements are rare.
                "parent_account_id" | "parent_folder_id" | "parent_id" | "root_entry_id" | "learning_outcome_group_id" => 0,
                _ => 970,
            },
            () => null_rate(self.table, column.name),
        };
        Rule { salt: salt(column.name), lasting, nulls, oversize: column.oversize, what }
    }

    /// Whether other columns follow from this one, so that it must not change.
    fn leads(&self, column: &str) -> bool {
        VIA.iter().any(|(table, _, by, ..)| *table == self.table && *by == column)
    }

    fn what(&self, column: &Column) -> ValueKind {
        if let Some(what) = self.reference(column) {
            return what;
        }
        let name = column.name;
        match &column.kind {
            Kind::Bool => ValueKind::Bool(match name {
                "state_is_current" | "access_is_current" | "subscribed" | "enabled" | "active" | "applies_to_descendants" => {
                    220
                }
                _ => 70,
            }),
            Kind::Int { bits } => integer(name, *bits),
            Kind::IntEnum(members) => ValueKind::Code(Weighted::new(likely_first(members, &[200, 302, 304, 404, 401]))),
            Kind::Float => ValueKind::Float(number(name)),
            Kind::Decimal { precision, scale } => ValueKind::Decimal { precision: *precision, scale: *scale },
            Kind::Enum { members, open: false } => self.word(name, members),
            Kind::Enum { .. } => ValueKind::OpenWord(vocabulary::choices(name).unwrap_or(vocabulary::LOCALES)),
            Kind::Time => ValueKind::Time(when(name)),
            Kind::Date => ValueKind::Date,
            Kind::Uuid => ValueKind::Uuid,
            Kind::Ip => ValueKind::Address,
            Kind::Object(members) => {
                ValueKind::Object(members.iter().map(|member| (member.name, self.member(member))).collect())
            }
            Kind::List(item) => ValueKind::List(Box::new(self.item(name, item))),
            Kind::Text { max } => ValueKind::Text { words: self.words(name, *max, column.oversize), max: *max },
        }
    }

    fn member(&self, column: &Column) -> Rule {
        const SWITCHES: &[&str] = &["true", "false", "true", "1", "{\"enabled\":\"true\",\"text\":\"Menü\"}", ""];
        let what = match &column.kind {
            Kind::Text { max } => {
                let words = match column.name {
                    "question_text" | "neutral_comments" | "correct_comments" | "incorrect_comments" => TextKind::Remark,
                    "name" | "text" | "text_after_answers" => TextKind::Title,
                    "answers" | "matching_answer_incorrect_matches" => TextKind::Json(Json::Items),
                    "custom_fields" | "tool_configuration" => TextKind::Json(Json::Settings),
                    "question_type" => TextKind::Choice(&["multiple_choice_question", "essay_question", "true_false_question"]),
                    "course_format" => TextKind::Choice(&["on_campus", "online", "blended"]),
                    "canvas_caliper_url" => TextKind::Url,
                    "visibility" => TextKind::Choice(&["members", "admins", "public"]),
                    _ => TextKind::Choice(SWITCHES),
                };
                ValueKind::Text { words, max: *max }
            }
            _ => self.what(column),
        };
        let nulls = if column.required { 0 } else { 300 };
        Rule { salt: salt(column.name), lasting: false, nulls, oversize: column.oversize, what }
    }

    fn item(&self, name: &str, item: &Column) -> Rule {
        let what = match &item.kind {
            Kind::Text { max } if name.ends_with("uris") => ValueKind::Text { words: TextKind::Url, max: *max },
            Kind::Int { bits } => ValueKind::Int { low: 1, high: 90_000, bits: *bits },
            _ => self.what(item),
        };
        Rule { salt: salt(name), lasting: false, nulls: 0, oversize: item.oversize, what }
    }

    fn reference(&self, column: &Column) -> Option<ValueKind> {
        let name = column.name;
        if let Some(&(.., by, table, then)) = VIA.iter().find(|(table, via, ..)| *table == self.table && *via == name) {
            let target = if then == "context_id" { "canvas.courses" } else { self.targets(name).first()? };
            return Some(ValueKind::Via {
                by: Reference::new(self.world, table, by)?,
                then: Reference::new(self.world, target, then)?,
            });
        }
        if matches!(column.kind, Kind::Int { .. })
            && let Some(stem) = name.strip_suffix("_id")
            && let Some(poly) = self.poly(stem)
        {
            return Some(ValueKind::PolyId(poly));
        }
        if let Some(stem) = name.strip_suffix("_type")
            && matches!(column.kind, Kind::Enum { .. } | Kind::Text { .. })
            && let Some(poly) = self.poly(stem)
        {
            return Some(ValueKind::PolyType(poly));
        }
        if name.ends_with("context_code")
            && let Some(poly) = self.poly("context")
        {
            return Some(ValueKind::PolyCode(poly));
        }
        let Kind::Int { .. } = column.kind else { return None };
        let target = match self.targets(name) {
            [target, ..] => *target,
            [] => undocumented(self.table, name)?,
        };
        if target == self.table {
            return self.world.find(target).map(ValueKind::Parent);
        }
        let strangers = self.entry.namespace == "canvas_logs" && target == "canvas.users";
        Reference::new(self.world, target, name).map(|to| ValueKind::Id { to, strangers })
    }

    fn targets(&self, column: &str) -> &'static [&'static str] {
        self.entry.references.iter().find(|(known, _)| *known == column).map_or(&[], |(_, targets)| targets)
    }

    fn column(&self, stem: &str, end: &str) -> Option<&Column> {
        self.columns.iter().find(|column| column.name.strip_prefix(stem) == Some(end))
    }

    fn poly(&self, stem: &str) -> Option<Arc<Polymorphic>> {
        let (id, kind) = (self.column(stem, "_id")?, self.column(stem, "_type")?);
        if !matches!(id.kind, Kind::Int { .. }) || VIA.iter().any(|(table, via, ..)| *table == self.table && *via == id.name) {
            return None;
        }
        let named = |table: String| {
            let namespace = if self.entry.namespace == "catalog" { "catalog." } else { "canvas." };
            Reference::new(self.world, &[namespace, &table].concat(), id.name)
        };
        let mut choices: Vec<(&'static str, Option<Reference>)> = match &kind.kind {
            Kind::Enum { members, .. } => members
                .iter()
                .filter(|member| **member != UNSPECIFIED)
                .map(|member| (*member, table_of(member).and_then(named)))
                .collect(),
            _ => {
                let documented: &[&str] = match self.table {
                    "canvas.assessment_questions" => &["canvas.assessment_question_banks", "canvas.courses"],
                    _ => self.targets(id.name),
                };
                let choice = |table: &&str| Some((word_of(table)?, Reference::new(self.world, table, id.name)));
                documented.iter().filter_map(choice).collect()
            }
        };
        if choices.is_empty() {
            return None;
        }
        const LIKELY: [&str; 7] = ["Submission", "Course", "Assignment", "WikiPage", "Quizzes::Quiz", "Account", "User"];
        choices.sort_by_key(|(word, _)| LIKELY.iter().position(|likely| likely == word).unwrap_or(LIKELY.len()));
        Some(Arc::new(Polymorphic {
            salt: salt(id.name),
            lasting: id.required,
            wheel: Weighted::new((0..choices.len()).collect()),
            choices,
            nulls: 60,
            id_required: id.required,
            type_required: kind.required,
            has_unspecified: matches!(&kind.kind, Kind::Enum { members, .. } if members.contains(&UNSPECIFIED)),
        }))
    }

    fn word(&self, name: &str, members: &[&'static str]) -> ValueKind {
        const LIKELY: [&str; 22] = [
            "graded",
            "submitted",
            "registered",
            "published",
            "active",
            "available",
            "accepted",
            "processed",
            "complete",
            "completed",
            "read",
            "visible",
            "public",
            "imported",
            "scored",
            "on",
            "StudentEnrollment",
            "GET",
            "points",
            "online_upload",
            "not_threaded",
            "HTTP/2.0",
        ];
        if let ["read", "unread"] | ["__dap_unspecified__", "read", "unread"] = members {
            return ValueKind::Toggle(["unread", "read"]);
        }
        // The value of softly deleted rows.
        let gone = ["deleted", "retired"].into_iter().find(|word| name == "workflow_state" && members.contains(word));
        let said: Vec<_> = members.iter().copied().filter(|member| *member != UNSPECIFIED && Some(*member) != gone).collect();
        ValueKind::Word {
            wheel: Weighted::new(if said.is_empty() { vec![UNSPECIFIED] } else { likely_first(&said, &LIKELY) }),
            unspecified: members.contains(&UNSPECIFIED),
            gone,
        }
    }

    fn words(&self, name: &str, max: Option<usize>, oversize: bool) -> TextKind {
        let json = match name {
            "scopes" => Json::Scopes,
            "data"
            | "requirements_met"
            | "incomplete_requirements"
            | "prerequisites"
            | "completion_requirements"
            | "submission_data"
            | "tab_configuration"
            | "downstream_changes" => Json::Items,
            _ => Json::Settings,
        };
        let person = |column: &str, form| {
            Reference::new(self.world, "canvas.users", column)
                .map_or(TextKind::Person(form), |user| TextKind::PersonOf(user, form))
        };
        match (self.table, name) {
            _ if self.entry.json.contains(&name) => TextKind::Json(json),
            ("canvas.users", "name") => TextKind::Person(Form::Full),
            ("canvas.pseudonyms", "unique_id") => person("user_id", Form::Login),
            ("canvas.communication_channels", "path") => person("user_id", Form::Email),
            ("catalog.users", "user_name") => person("canvas_user_id", Form::Full),
            ("catalog.users", "email_address") => person("canvas_user_id", Form::Email),
            ("catalog.account_admins" | "catalog.applicants" | "catalog.orders", "name") => {
                person("canvas_user_id", Form::Full)
            }
            ("catalog.account_admins" | "catalog.applicants" | "catalog.orders", "email") => {
                person("canvas_user_id", Form::Email)
            }
            ("canvas.submissions", "body") => TextKind::Page(900),
            ("canvas_logs.web_logs", "url") => TextKind::Path,
            ("canvas_logs.web_logs", "user_agent") => TextKind::Choice(vocabulary::USER_AGENTS),
            ("catalog.accounts", "settings") => TextKind::Json(Json::Settings),
            (_, "sortable_name") => TextKind::Person(Form::Sortable),
            (_, "short_name") => TextKind::Person(Form::Short),
            (_, "author_name" | "user_name" | "created_by" | "updated_by" | "published_by") => TextKind::Person(Form::Full),
            (_, "email" | "email_address") => TextKind::Person(Form::Email),
            (_, "locale" | "default_locale") => TextKind::Choice(vocabulary::LOCALES),
            (_, "grade" | "published_grade") => TextKind::Choice(vocabulary::GRADES),
            (_, "extensions" | "custom" | "custom_fields" | "text_overrides" | "pdf_settings" | "old_pdf_settings") => {
                TextKind::Json(Json::Settings)
            }
            (_, "purchase_params" | "public_jwk" | "turnitin_data") => TextKind::Json(Json::Settings),
            (_, "attachment_ids" | "forwarded_message_ids" | "user_ids") => TextKind::Ids,
            (_, "last_login_ip" | "current_login_ip" | "ip_filter") => TextKind::Address,
            (_, "migration_id" | "vendor_guid") => TextKind::Hex("g", 32),
            (_, "md5" | "lti_context_id" | "token") => TextKind::Hex("", 32),
            (_, "color") => TextKind::Hex("", 6),
            (_, "resource_link_lookup_uuid") => TextKind::Hex("lookup-", 24),
            (_, "anonymous_id") => TextKind::Token(5),
            (_, "uuid" | "user_uuid" | "canvas_account_uuid" | "launch_id" | "lti_user_id" | "consumer_key" | "link_id") => {
                TextKind::Token(40)
            }
            (_, "code" | "access_code" | "self_enrollment_code" | "sku" | "reference_id" | "full_id") => TextKind::Token(12),
            (_, "document_id" | "conference_key" | "media_entry_id" | "media_comment_id" | "group_comment_id") => {
                TextKind::Token(22)
            }
            (_, "resource_id" | "tool_id" | "unified_tool_id" | "app_center_id" | "temporary_user_code" | "detail_code") => {
                TextKind::Token(16)
            }
            (_, "sis_source_id" | "sis_user_id") => TextKind::Numbered("SIS-"),
            (_, "integration_id") => TextKind::Numbered("INT"),
            (_, "course_code") => TextKind::Numbered("BIO-"),
            (_, "asset_code") => TextKind::Numbered("assignment_"),
            (_, "context_code") => TextKind::Numbered("course_"),
            (_, "group_code" | "namespace") => TextKind::Numbered("_localstorage_/account_"),
            (_, "submission_context_code") => TextKind::Numbered("root_"),
            (_, "filename" | "display_name") if oversize => TextKind::File,
            (_, "completion_events") => TextKind::Choice(&["publish_final_grade", "publish_final_grade,another"]),
            (_, "host" | "domain" | "canvas_domain") => TextKind::Choice(vocabulary::DOMAINS),
            (_, "front_page_url" | "path" | "portal_path" | "alias_path") => TextKind::Slug,
            ("canvas.wiki_pages", "url") => TextKind::Slug,
            (_, "content_type") => TextKind::Choice(vocabulary::MEDIA_TYPES),
            (_, "allowed_extensions") => TextKind::Choice(&["pdf", "pdf,docx", "doc,docx,odt,pdf", ""]),
            (_, "comment" | "comments" | "notes" | "message" | "last_sync_error" | "error_message" | "required_message") => {
                TextKind::Remark
            }
            (_, "teaser" | "content" | "short_description") => TextKind::Remark,
            (_, "body" | "description" | "syllabus_body" | "about" | "published" | "draft" | "header" | "footer") => {
                if max.is_some() { TextKind::Remark } else { TextKind::Page(600) }
            }
            (_, "public_description" | "turnitin_comments" | "css_content" | "js_content") => TextKind::Page(400),
            _ if name.ends_with("_file_name") => TextKind::File,
            _ if name.ends_with("_content_type") => TextKind::Choice(vocabulary::MEDIA_TYPES),
            _ if name.ends_with("time_zone") || name == "time_zone_edited" => TextKind::Choice(vocabulary::TIME_ZONES),
            _ if name.ends_with("url") || name.ends_with("uri") || name.ends_with("audience") => TextKind::Url,
            _ => match vocabulary::choices(name) {
                Some(choices) => TextKind::Choice(choices),
                None => TextKind::Title,
            },
        }
    }
}

/// Sorts the members of `likely` to the front.
fn likely_first<T: Copy + PartialEq>(members: &[T], likely: &[T]) -> Vec<T> {
    let mut members = members.to_vec();
    members.sort_by_key(|member| likely.iter().position(|word| word == member).unwrap_or(likely.len()));
    members
}
