//! Statements of the user that run at the end of each load of a table, in its transaction.

use std::sync::Arc;

use super::state::SqlLoad;
use crate::error::{Error, Kind, Result};
use crate::sink::sql::dialect::Statement;

/// What an error code of the server means. The server's own message can quote the statement.
const MEANINGS: [(&str, &str); 16] = [
    ("42601", "syntax error"),
    ("42P01", "a table or view does not exist"),
    ("42703", "a column does not exist"),
    ("42883", "a function or operator does not exist"),
    ("42501", "a privilege is missing"),
    ("22012", "division by zero"),
    ("23505", "a key occurs twice"),
    ("1064", "syntax error"),
    ("1146", "a table does not exist"),
    ("1054", "a column does not exist"),
    ("1305", "a procedure or function does not exist"),
    ("1142", "a privilege is missing"),
    ("1062", "a key occurs twice"),
    ("102", "syntax error"),
    ("208", "a table or view does not exist"),
    ("207", "a column does not exist"),
];

const HINT: &str = "correct after_sql of the table; until then the table gets no new data";

impl SqlLoad {
    pub(super) fn has_statements_of_user(&self) -> bool {
        !self.statements_of_user().is_empty()
    }

    /// The statements of the user for this table.
    fn statements_of_user(&self) -> Vec<String> {
        let of_table = self.database.options.after_sql.iter().filter(|(tables, _)| self.plan.table.matches(tables));
        of_table.map(|(_, statement)| statement.clone()).collect()
    }

    /// Refuses statements that would end the transaction. Kind `Usage`.
    pub(super) fn check_statements_of_user(&self) -> Result<()> {
        let dialect = self.database.dialect();
        for (index, statement) in self.statements_of_user().iter().enumerate() {
            let keyword = keyword(statement);
            if keyword.is_empty() || !dialect.keeps_transaction(&keyword) {
                return Err(Error::new(Kind::Usage, format!("Statement {} of after_sql cannot run in the load's transaction", index + 1))
                    .hint("use statements that neither end nor commit a transaction; in MySQL and MariaDB these are CALL, DELETE, DO, INSERT, REPLACE, SELECT, UPDATE and WITH"));
            }
        }
        Ok(())
    }

    /// Runs the statements of the user.
    pub(super) async fn run_statements_of_user(&mut self) -> Result<()> {
        let database = Arc::clone(&self.database);
        let dialect = database.dialect();
        for (index, statement) in self.statements_of_user().into_iter().enumerate() {
            let number = index + 1;
            self.session.execute(&dialect.mark()).await?;
            self.session.execute(&Statement::of_user(statement)).await.map_err(|error| failed(&error, number))?;
            self.session.execute(&dialect.check_mark()).await.map_err(|error| {
                let sentence = format!("Statement {number} of after_sql ended the load's transaction");
                Error::new(Kind::Target, sentence)
                    .hint("leave out what commits or rolls back; run again to complete the load")
                    .caused_by(error)
            })?;
            self.ran_statements_of_user = true;
        }
        Ok(())
    }
}

/// The error of a statement, without the server's message.
fn failed(error: &Error, number: usize) -> Error {
    let mut failed = Error::new(error.kind(), format!("Statement {number} of after_sql failed")).hint(HINT);
    for name in ["sqlstate", "code", "number"] {
        let Some(code) = error.get(name) else { continue };
        if let Some((_, meaning)) = MEANINGS.iter().find(|(known, _)| *known == code) {
            failed = failed.with_field("error", meaning);
        }
        failed = failed.with_field(name, code);
    }
    failed
}

/// The first word of a statement in capitals, behind comments and parentheses. Empty if there is none.
fn keyword(statement: &str) -> String {
    let mut rest = statement.trim_start();
    loop {
        let behind = if rest.starts_with("--") || rest.starts_with('#') {
            rest.split_once('\n').map_or("", |(_, behind)| behind)
        } else if let Some(comment) = rest.strip_prefix("/*") {
            // The server runs what is in comments that begin with an exclamation mark.
            if comment.starts_with(['!', 'M']) { "" } else { comment.split_once("*/").map_or("", |(_, behind)| behind) }
        } else if let Some(behind) = rest.strip_prefix(['(', ';']) {
            behind
        } else {
            break;
        };
        rest = behind.trim_start();
    }
    rest.chars().take_while(char::is_ascii_alphabetic).collect::<String>().to_ascii_uppercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_keyword_is_found_behind_comments_and_parentheses() {
        for (statement, word) in [
            ("insert into t values (1)", "INSERT"),
            ("  -- a note\n /* more */ ((Select 1))", "SELECT"),
            ("/*! COMMIT */ SELECT 1", ""),
            ("/*M!100100 COMMIT */", ""),
            ("# note\n;COMMIT", "COMMIT"),
            ("-- only a note", ""),
            ("/* open", ""),
            ("", ""),
        ] {
            assert_eq!(keyword(statement), word, "{statement}");
        }
    }
}
