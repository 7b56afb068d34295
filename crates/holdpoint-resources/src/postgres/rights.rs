//! What the role of a database may do that no transaction takes back.
//!
//! Owns the list of such rights. Must never change anything.

use super::catalog::get;
use super::link::{Failed, Link};
use tokio_postgres::types::Type;

/// Roles whose members leave the database, and what they do there.
const FAR: [(&str, &str); 4] = [
    ("pg_execute_server_program", "runs programs on its server"),
    ("pg_write_server_files", "writes files on its server"),
    ("pg_read_server_files", "reads files on its server"),
    ("pg_signal_backend", "ends what others do"),
];

/// In words, what the role of `link` may do beyond its transactions; nothing where all is well.
pub(super) async fn beyond(link: &Link) -> Result<Vec<String>, Failed> {
    let own = "SELECT rolsuper, rolreplication, rolcreaterole FROM pg_catalog.pg_roles \
        WHERE rolname OPERATOR(pg_catalog.=) current_user";
    let row = link.row(own, &[]).await?;
    if get(&row, 0)? {
        return Ok(vec!["is a superuser, whom nothing keeps inside of a transaction".to_owned()]);
    }
    let mut rights = Vec::new();
    if get(&row, 1)? {
        rights.push("reads everything by replication".to_owned());
    }
    if get(&row, 2)? {
        rights.push("gives rights to itself and others (`CREATEROLE`)".to_owned());
    }
    let names: Vec<String> = FAR.iter().map(|(name, _)| (*name).to_owned()).collect();
    let member = "SELECT rolname::pg_catalog.text FROM pg_catalog.pg_roles WHERE \
        rolname::pg_catalog.text OPERATOR(pg_catalog.=) ANY ($1) \
        AND pg_catalog.pg_has_role(current_user, oid, 'MEMBER')";
    for row in link.rows(member, &[(&names as _, Type::TEXT_ARRAY)]).await? {
        let name: String = get(&row, 0)?;
        let does = FAR.iter().find(|(far, _)| *far == name).map_or("", |(_, does)| does);
        rights.push(format!("{does} (`{name}`)"));
    }
    Ok(rights)
}
