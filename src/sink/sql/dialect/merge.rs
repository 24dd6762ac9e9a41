//! Statements that bring rows from the staging table into the table.

use super::names::Names;
use super::statement::Statement;
use super::table::SqlTable;

/// Staging and merging.
pub(in crate::sink::sql) trait MergeStatements: Names {
    /// Creates the staging table of the session, in place of one that was left. Its string columns have no limit.
    fn create_stage(&self, table: &SqlTable) -> Vec<Statement>;

    /// Drops the staging table, where it outlives the transaction.
    fn drop_stage(&self) -> Vec<Statement> {
        Vec::new()
    }

    /// The quoted name of the staging table.
    fn stage(&self) -> String;

    /// Type of the column `_action` of the staging table.
    fn action_type(&self) -> String;

    /// Refuses repeated keys in the staging table with a unique index, where [`MergeStatements::create_stage`] does not.
    fn unique_stage(&self, _table: &SqlTable) -> Vec<Statement> {
        Vec::new()
    }

    /// Updates the planner's statistics of the staging table.
    fn analyze_stage(&self) -> Vec<Statement> {
        Vec::new()
    }

    /// Adds values to a lookup table, which must not have them.
    fn add_lookup_values(&self, lookup: &str, values: &[&str]) -> Statement {
        let rows: Vec<String> = (1..=values.len()).map(|number| format!("({})", self.placeholder(number))).collect();
        let text = format!("INSERT INTO {lookup} ({}) VALUES {}", self.quote("value"), rows.join(", "));
        values.iter().fold(Statement::new(text), |statement, value| statement.bind(*value))
    }

    /// Adds staged values that the lookup tables do not have.
    fn fill_lookups(&self, table: &SqlTable) -> Vec<Statement>;

    /// Removes all rows of the table.
    fn clear(&self, table: &SqlTable) -> Statement;

    /// Writes staged upserts over the rows with the same keys.
    fn upsert(&self, table: &SqlTable) -> Vec<Statement>;

    /// Writes staged upserts into an empty table.
    fn insert(&self, table: &SqlTable) -> Statement;

    /// For a history: skips the staged upserts without effect (same values, or older than the current version), and closes the versions
    /// that the others replace. `as_of`: the time of a snapshot, as a literal without quotes. Empty for other tables.
    fn replace_versions(&self, table: &SqlTable, as_of: Option<&str>) -> Vec<Statement>;

    /// Applies staged deletes to the rows with their keys: removes them, marks them where the table has soft deletes, or closes their
    /// versions in a history.
    fn delete(&self, table: &SqlTable) -> Statement;

    /// For a table that keeps old rows: marks the rows whose keys are not staged, or closes their versions as of the time of the snapshot,
    /// `as_of`, a literal without quotes.
    fn delete_missing(&self, table: &SqlTable, as_of: &str) -> Statement;
}
