//! What a store and its lanes have in common, and how anything is asked of the server.

use tokio_postgres::Row;

use crate::store::StoreError;

use super::connect::{Connections, Param};
use super::lanes::Written;
use super::options::PostgresOptions;

/// What the store and its lanes have in common.
pub(super) struct Shared {
    pub(super) options: PostgresOptions,
    /// The name of the schema as SQL takes it.
    pub(super) schema: String,
    /// The statement by which lanes write, about the tables of this store.
    pub(super) append: String,
    pub(super) connections: Connections,
    pub(super) written: Written,
}

impl Shared {
    /// A statement about the tables of this store.
    pub(super) fn sql(&self, text: &str) -> String {
        text.replace("{schema}", &self.schema)
    }

    /// Asks something that may be asked twice, and whose commit has to be as durable as that of an append.
    pub(super) async fn ask_durably(
        &self,
        doing: &'static str,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        let sql = self.sql(sql);
        self.connections.ask_durably(doing, &sql, params).await
    }

    /// Asks something that may be asked twice.
    pub(super) async fn ask(
        &self,
        doing: &'static str,
        sql: &str,
        params: &[Param<'_>],
    ) -> Result<Vec<Row>, StoreError> {
        self.connections.ask(doing, &self.sql(sql), params).await
    }
}
