//! Blocks of records: what the store derives from records once for each block, not once for each
//! record, so that a commit touches few pages. Must not be asked about records after the last whole
//! block: whoever reads looks at those themselves.

use super::batch::int;
use super::fault::StoreFault;
use rusqlite::Connection;

/// How many records a block has. A checkpoint is kept at every end of one, so that damage can be
/// located.
pub(super) const BLOCK: u64 = 256;

/// Where the last whole block of a log with `size` records ends.
pub(super) fn end(size: u64) -> u64 {
    size - size % BLOCK
}

/// Takes the block that ends with `size` records into the index of actions and the list of open
/// ones.
pub(super) fn close(connection: &Connection, size: u64) -> Result<(), StoreFault> {
    let first = int(size.saturating_sub(BLOCK))?;
    let index = "INSERT INTO action_records (action, seq) SELECT action, seq FROM records \
                 WHERE seq >= ?1 AND action IS NOT NULL ORDER BY action, seq";
    let opened = "INSERT OR REPLACE INTO open_actions (action, gateway) \
                  SELECT action, gateway FROM records WHERE seq >= ?1 AND ruling = 'permit'";
    let ended = "DELETE FROM open_actions WHERE action IN \
                 (SELECT action FROM records WHERE seq >= ?1 AND kind = 'outcome')";
    for sql in [index, opened, ended] {
        connection.prepare_cached(sql)?.execute([first])?;
    }
    Ok(())
}
