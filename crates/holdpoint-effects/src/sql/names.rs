//! Names of tables and their one normal form as resources. Must never give two spellings of one
//! table two resources, nor two tables one.

use super::{Database, Dialect};
use sqlparser::ast::{Ident, ObjectName};
use std::fmt::Write;

/// Where names without a schema lead, as far as the batch has said until now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Path {
    /// Where the server looks unless told otherwise.
    #[default]
    Usual,
    /// A schema, or for MySQL a database, that the batch has chosen.
    Chosen(String),
    /// Several, or one that cannot be told.
    Unknown,
}

/// The parts of a name as the server folds them; `None` if a part is computed.
pub(super) fn parts(dialect: Dialect, name: &ObjectName) -> Option<Vec<String>> {
    name.0.iter().map(|part| part.as_ident().map(|ident| fold(dialect, ident))).collect()
}

/// A name as the server folds it. MySQL's case depends on its file system, so the mildest common
/// reading is taken: all lower case.
pub(super) fn fold(dialect: Dialect, ident: &Ident) -> String {
    match (dialect, ident.quote_style) {
        (Dialect::Postgres, Some(_)) => ident.value.clone(),
        (Dialect::Postgres | Dialect::Sqlite | Dialect::Mysql, _) => ident.value.to_lowercase(),
    }
}

/// The resource of the table, view, index or sequence called `parts`; `None` if it cannot be told.
pub(super) fn resource(database: &Database, path: &Path, parts: &[String]) -> Option<String> {
    let address = database.address.as_str();
    let (server, own) = address.rsplit_once('/').unwrap_or((address, ""));
    let server = if server.ends_with('/') { address } else { server };
    let chosen = match path {
        Path::Usual => None,
        Path::Chosen(schema) => Some(schema.as_str()),
        Path::Unknown if parts.len() == 1 => return None,
        Path::Unknown => None,
    };
    let own = if server == address { "" } else { own };
    Some(match (database.dialect, parts) {
        (_, []) => return None,
        (Dialect::Postgres, [name]) if name.starts_with("pg_") => {
            format!("{address}/pg_catalog.{}", plain(name))
        }
        (Dialect::Postgres, [name]) => {
            format!("{address}/{}.{}", plain(chosen.unwrap_or("public")), plain(name))
        }
        (Dialect::Postgres, [schema, name]) => {
            format!("{address}/{}.{}", plain(schema), plain(name))
        }
        (Dialect::Postgres, [base, schema, name]) if base == own => {
            format!("{address}/{}.{}", plain(schema), plain(name))
        }
        (Dialect::Postgres, [base, schema, name]) => {
            format!("{server}/{}/{}.{}", plain(base), plain(schema), plain(name))
        }
        (Dialect::Sqlite, [name]) => format!("{address}/{}", plain(name)),
        (Dialect::Sqlite, [schema, name]) if schema == "main" => {
            format!("{address}/{}", plain(name))
        }
        (Dialect::Sqlite, [schema, name]) => format!("{address}/{}.{}", plain(schema), plain(name)),
        (Dialect::Mysql, [name]) => match chosen {
            Some(base) if base != own => format!("{server}/{}/{}", plain(base), plain(name)),
            Some(_) | None => format!("{address}/{}", plain(name)),
        },
        (Dialect::Mysql, [base, name]) if base == own => format!("{address}/{}", plain(name)),
        (Dialect::Mysql, [base, name]) => format!("{server}/{}/{}", plain(base), plain(name)),
        (Dialect::Postgres | Dialect::Sqlite | Dialect::Mysql, _) => return None,
    })
}

/// Another database of the same server.
pub(super) fn other_database(database: &Database, name: &str) -> String {
    let address = database.address.as_str();
    match address.rsplit_once('/') {
        Some((_, own)) if own == name => address.to_owned(),
        Some((server, _)) if !server.ends_with('/') => format!("{server}/{}", plain(name)),
        Some(_) | None => format!("{address}/{}", plain(name)),
    }
}

/// A part of a name so that it cannot be taken for two parts, nor for a pattern.
pub(super) fn plain(part: &str) -> String {
    let mut out = String::with_capacity(part.len());
    for letter in part.chars() {
        if letter.is_alphanumeric() || matches!(letter, '_' | '$' | '-') {
            out.push(letter);
        } else {
            let mut bytes = [0; 4];
            for byte in letter.encode_utf8(&mut bytes).bytes() {
                // Writing to a string cannot fail.
                let _ = write!(out, "%{byte:02X}");
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::{Path, resource};
    use crate::sql::{Database, Dialect};

    fn check(dialect: Dialect, address: &str, parts: &[&str], expected: &str) {
        let database = Database::new(dialect, address);
        let parts: Vec<String> = parts.iter().map(|part| (*part).to_owned()).collect();
        let found = resource(&database, &Path::Usual, &parts);
        assert_eq!(found.as_deref().unwrap_or("-"), expected);
    }

    #[test]
    fn one_table_has_one_resource() {
        let pg = "pg://prod/orders";
        check(Dialect::Postgres, pg, &["users"], "pg://prod/orders/public.users");
        check(Dialect::Postgres, pg, &["public", "users"], "pg://prod/orders/public.users");
        check(Dialect::Postgres, pg, &["orders", "a", "b"], "pg://prod/orders/a.b");
        check(Dialect::Postgres, pg, &["other", "a", "b"], "pg://prod/other/a.b");
        check(Dialect::Postgres, pg, &["pg_shadow"], "pg://prod/orders/pg_catalog.pg_shadow");
        check(Dialect::Postgres, pg, &["a.b/*"], "pg://prod/orders/public.a%2Eb%2F%2A");
        check(Dialect::Sqlite, "sqlite://prod", &["main", "t"], "sqlite://prod/t");
        check(Dialect::Sqlite, "sqlite://prod", &["x", "t"], "sqlite://prod/x.t");
        check(Dialect::Mysql, "mysql://m/shop", &["shop", "t"], "mysql://m/shop/t");
        check(Dialect::Mysql, "mysql://m/shop", &["mysql", "user"], "mysql://m/mysql/user");
        check(Dialect::Mysql, "mysql://m", &["shop", "t"], "mysql://m/shop/t");
        check(Dialect::Mysql, "mysql://m/shop", &["a", "b", "c"], "-");
    }
}
