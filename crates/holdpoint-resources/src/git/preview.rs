//! What a call would change, found out with git itself and an index of its own.
//! Must never change the work tree, the index or a ref; objects that nothing names are harmless.

use super::calls::{Commit, Push};
use super::moves::{Kind, Move};
use super::plumbing::Ask;
use super::staging::{Blob, Staged, unreadable};
use super::{Git, Work};
use crate::resource::{Change, Preview, ResourceFault};
use holdpoint_types::{Disclosure, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// A preview and what it prepares.
type Previewed = Result<(Preview, Work), ResourceFault>;

/// A file of a commit: path, what it was, what it becomes.
type File = (String, Option<Blob>, Option<Blob>);

/// What commits there are while something else is under way.
const UNFINISHED: [&str; 3] = ["MERGE_HEAD", "CHERRY_PICK_HEAD", "REVERT_HEAD"];

// === impl Git: commits ===

impl Git {
    pub(super) async fn preview_commit(&self, commit: Commit, now: Timestamp) -> Previewed {
        for head in UNFINISHED {
            if self.line(&["rev-parse", "--verify", "--quiet", head]).await?.is_some() {
                let text = format!("something else is under way: {head}");
                return Err(ResourceFault::Refused(text));
            }
        }
        let branch = self.checked_out().await?;
        let from = self.local(&branch).await?;
        let (tree, files) = self.would_commit(&commit.paths, from.as_deref()).await?;
        self.check_files(&files).await?;
        let to = self.make_commit(&tree, from.as_deref(), (&commit.message, now)).await?;
        let paths: Vec<&str> = files.iter().map(|(path, ..)| path.as_str()).collect();
        let mut index = self.staged(&paths).await?;
        let staged =
            files.iter().map(|(path, _, to)| (path.clone(), (index.remove(path), to.clone())));
        let change = Move {
            kind: Kind::Commit,
            remote: None,
            branch,
            from,
            to: Some(to),
            staged: Staged(staged.collect()),
            until: self.keep_until(now),
        };
        let mut preview = self.preview_of(&change, self.kept_note());
        if let Some(first) = preview.changes.first_mut() {
            let (name, address) = &self.spec().author;
            // Not the commit itself, whose name holds the time.
            first.after = Some(json!({
                "tree": tree, "parent": change.from, "message": commit.message,
                "author": format!("{name} <{address}>"),
            }));
        }
        let address = change.address(&self.spec().place);
        preview.changes.extend(self.show(&address, files).await?);
        Ok((preview, Work::Move(Box::new(change))))
    }

    async fn checked_out(&self) -> Result<String, ResourceFault> {
        let head = self.line(&["symbolic-ref", "--quiet", "HEAD"]).await?;
        let branch = head.as_deref().and_then(|head| head.strip_prefix("refs/heads/"));
        let detached = || ResourceFault::Refused("no branch is checked out".to_owned());
        branch.map(str::to_owned).ok_or_else(detached)
    }

    /// The tree that a commit would have, and how it differs from the one before.
    async fn would_commit(
        &self,
        paths: &[String],
        from: Option<&str>,
    ) -> Result<(String, Vec<File>), ResourceFault> {
        let unavailable = |fault: std::io::Error| ResourceFault::Unavailable(fault.to_string());
        let folder = tempfile::tempdir().map_err(unavailable)?;
        let index = folder.path().join("index");
        let own = |input| Ask::input(input).index(&index);
        match from {
            Some(from) => self.git(&["read-tree", from], &own(b"")).await?,
            None => self.git(&["read-tree", "--empty"], &own(b"")).await?,
        };
        let listed = paths.join("\0");
        let words = ["add", "--all", "--pathspec-from-file=-", "--pathspec-file-nul"];
        self.git(&words, &own(listed.as_bytes())).await?;
        let tree = self.git(&["write-tree"], &own(b"")).await?.text().trim().to_owned();
        let base = match from {
            Some(from) => format!("{from}^{{tree}}"),
            None => self.git(&["mktree"], &Ask::default()).await?.text().trim().to_owned(),
        };
        let words = ["diff-tree", "-r", "-z", "--raw", "--no-renames", "--no-abbrev"];
        let words = [&words[..], &["--end-of-options", &base, &tree]].concat();
        let raw = self.git(&words, &Ask::default()).await?;
        let files = read_raw(&raw.stdout)?;
        if files.is_empty() {
            return Err(ResourceFault::Refused("there is nothing to commit".to_owned()));
        }
        Ok((tree, files))
    }

    async fn check_files(&self, files: &[File]) -> Result<(), ResourceFault> {
        if files.len() > self.spec().limits.files_max {
            return Err(ResourceFault::TooLarge(format!("{} files", files.len())));
        }
        let is_link = |blob: &Option<Blob>| blob.as_ref().is_some_and(|b| b.mode == "160000");
        if files.iter().any(|(_, from, to)| is_link(from) || is_link(to)) {
            return Err(ResourceFault::Refused("a submodule would change".to_owned()));
        }
        if self.spec().programs {
            return Ok(());
        }
        let paths: Vec<&str> = files.iter().map(|(path, ..)| path.as_str()).collect();
        let words = ["check-attr", "-z", "--stdin", "filter"];
        let ran = self.git(&words, &Ask::input(paths.join("\0").as_bytes())).await?;
        let text = ran.text();
        let fields: Vec<&str> = text.split_terminator('\0').collect();
        let filtered =
            |field: &[&str]| !matches!(field.last(), Some(&("unspecified" | "unset" | "set")));
        if fields.chunks(3).any(filtered) {
            let text = "a file goes through a filter, which is a program";
            return Err(ResourceFault::Refused(text.to_owned()));
        }
        Ok(())
    }

    async fn make_commit(
        &self,
        tree: &str,
        parent: Option<&str>,
        (message, now): (&str, Timestamp),
    ) -> Result<String, ResourceFault> {
        let mut words = vec!["commit-tree", "--no-gpg-sign", tree];
        words.extend(parent.iter().flat_map(|parent| ["-p", parent]));
        words.extend(["-F", "-"]);
        let at = format!("@{} +0000", now.0.div_euclid(1000).max(0));
        let mut ask = Ask::input(message.as_bytes());
        ask.env = vec![("GIT_AUTHOR_DATE", at.clone()), ("GIT_COMMITTER_DATE", at)];
        Ok(self.git(&words, &ask).await?.text().trim().to_owned())
    }

    /// Files as changes; of short texts with what they hold.
    async fn show(&self, address: &str, files: Vec<File>) -> Result<Vec<Change>, ResourceFault> {
        let blobs = files.iter().flat_map(|(_, from, to)| from.iter().chain(to));
        let oids: Vec<&str> = blobs.map(|blob| blob.oid.as_str()).collect();
        let texts = self.texts(&oids).await?;
        let side = |blob: Option<Blob>| {
            let blob = blob?;
            let mut shown = json!({ "mode": blob.mode, "blob": blob.oid });
            if let (Some(members), Some(text)) = (shown.as_object_mut(), texts.get(&blob.oid)) {
                members.extend(text.clone());
            }
            Some(shown)
        };
        let change = |(path, from, to)| Change {
            resource: format!("{address}:{path}"),
            before: side(from),
            after: side(to),
        };
        Ok(files.into_iter().map(change).collect())
    }

    /// Sizes of blobs, and the texts of those that are short texts.
    async fn texts(
        &self,
        oids: &[&str],
    ) -> Result<BTreeMap<String, serde_json::Map<String, Value>>, ResourceFault> {
        let longest = self.spec().limits.text_bytes_max;
        let input = |oids: &[&str]| oids.iter().flat_map(|oid| [oid, "\n"]).collect::<String>();
        let all = input(oids);
        let sizes = self.git(&["cat-file", "--batch-check"], &Ask::input(all.as_bytes())).await?;
        let sizes = sizes.text();
        let (mut found, mut short) = (BTreeMap::new(), Vec::new());
        for line in sizes.lines() {
            let mut words = line.split(' ');
            let (oid, size) = (words.next().unwrap_or_default(), words.nth(1));
            let size: u64 = size.and_then(|size| size.parse().ok()).ok_or_else(unreadable)?;
            let first = found.insert(oid.to_owned(), members(json!({ "bytes": size }))).is_none();
            if first && usize::try_from(size).is_ok_and(|size| size <= longest) {
                short.push(oid);
            }
        }
        let short = input(&short);
        let ran = self.git(&["cat-file", "--batch"], &Ask::input(short.as_bytes())).await?;
        for (oid, text) in read_batch(&ran.stdout)? {
            let held = found.entry(oid).or_default();
            held.extend(members(json!({ "text": text })));
        }
        Ok(found)
    }

    fn preview_of(&self, change: &Move, notes: Vec<String>) -> Preview {
        Preview { notes, ..change.preview(self.spec()) }
    }

    fn kept_note(&self) -> Vec<String> {
        let days = self.spec().keep.as_secs() / 86_400;
        vec![format!("the commit from before is kept in the repository for {days} days")]
    }
}

// === impl Git: branches and pushes ===

impl Git {
    pub(super) async fn preview_branch(
        &self,
        name: &str,
        start: &str,
        now: Timestamp,
    ) -> Previewed {
        self.check_branch(name).await?;
        if self.local(name).await?.is_some() {
            return Err(ResourceFault::Refused(format!("there is a branch `{name}`")));
        }
        let wanted = format!("{start}^{{commit}}");
        let words = ["rev-parse", "--verify", "--quiet", "--end-of-options", &wanted];
        let gone = || ResourceFault::Gone(format!("`{start}` is no commit"));
        let to = self.line(&words).await?.ok_or_else(gone)?;
        let change = self.local_move(Kind::Branch, name, (None, Some(to)), now);
        Ok((self.preview_of(&change, Vec::new()), Work::Move(Box::new(change))))
    }

    pub(super) async fn preview_delete(&self, name: &str, now: Timestamp) -> Previewed {
        self.check_branch(name).await?;
        let from = self.local(name).await?;
        let from = from.ok_or_else(|| ResourceFault::Gone(format!("no branch `{name}`")))?;
        if self.is_checked_out(name).await? {
            return Err(ResourceFault::Refused(format!("`{name}` is checked out")));
        }
        let but = format!("--exclude={name}");
        let words = ["rev-list", "--count", &from, "--not", &but];
        let words = [&words[..], &["--branches", "--tags", "--remotes"]].concat();
        let only = self.line(&words).await?.unwrap_or_default();
        let mut notes = self.kept_note();
        notes.push(format!("{only} commits are on no other branch or tag; its reflog is lost"));
        let change = self.local_move(Kind::Delete, name, (Some(from), None), now);
        Ok((self.preview_of(&change, notes), Work::Move(Box::new(change))))
    }

    fn local_move(
        &self,
        kind: Kind,
        name: &str,
        (from, to): (Option<String>, Option<String>),
        now: Timestamp,
    ) -> Move {
        let (branch, until) = (name.to_owned(), self.keep_until(now));
        Move { kind, remote: None, branch, from, to, staged: Staged::default(), until }
    }

    async fn check_branch(&self, name: &str) -> Result<(), ResourceFault> {
        let words = ["check-ref-format", &format!("refs/heads/{name}")];
        let ran = self.run(&words, &Ask::default()).await.map_err(ResourceFault::from)?;
        if ran.status.success() {
            return Ok(());
        }
        Err(ResourceFault::Invalid("this is no name of a branch".to_owned()))
    }

    pub(super) async fn preview_push(&self, push: Push, now: Timestamp) -> Previewed {
        let Push { remote, branch, force } = push;
        self.check_branch(&branch).await?;
        self.check_remote(&remote).await?;
        let to = self.local(&branch).await?;
        let to = to.ok_or_else(|| ResourceFault::Gone(format!("no branch `{branch}`")))?;
        let from = self.at_remote(&remote, &branch).await?;
        if from.as_ref() == Some(&to) {
            let text = "the remote's branch is there already".to_owned();
            return Err(ResourceFault::Refused(text));
        }
        let lost = match &from {
            None => Vec::new(),
            Some(from) => {
                self.fetch_missing(&remote, &branch, from).await?;
                self.commits(&[from, "--not", &to]).await?
            }
        };
        if !lost.is_empty() && !force {
            let text = format!("the remote's branch would lose {} commits", lost.len());
            return Err(ResourceFault::Refused(text));
        }
        let seen = format!("--remotes={remote}");
        let new = match &from {
            Some(from) => self.commits(&[&to, "--not", from]).await?,
            None => self.commits(&[&to, "--not", &seen]).await?,
        };
        let move_to = Move {
            kind: Kind::Push,
            remote: Some(remote),
            branch,
            from,
            to: Some(to),
            staged: Staged::default(),
            until: self.keep_until(now),
        };
        Ok((self.show_push(&move_to, new, lost), Work::Move(Box::new(move_to))))
    }

    fn show_push(
        &self,
        change: &Move,
        new: Vec<(String, Value)>,
        lost: Vec<(String, Value)>,
    ) -> Preview {
        let mut preview = change.preview(self.spec());
        let address = change.address(&self.spec().place);
        let commit = |oid: String| format!("{address}@{oid}");
        preview.changes.extend(lost.into_iter().map(|(oid, told)| Change {
            resource: commit(oid),
            before: Some(told),
            after: None,
        }));
        preview.changes.extend(new.into_iter().map(|(oid, told)| Change {
            resource: commit(oid),
            before: None,
            after: Some(told),
        }));
        preview.disclosure =
            if self.spec().remote_inside { Disclosure::Wider } else { Disclosure::Left };
        preview.notes.extend(self.kept_note());
        preview
    }

    /// A remote must be a configured one, read and written at one place.
    async fn check_remote(&self, remote: &str) -> Result<(), ResourceFault> {
        let urls = self.configured(&format!("remote.{remote}.url")).await?;
        let elsewhere = self.configured(&format!("remote.{remote}.pushurl")).await?;
        if urls.is_empty() {
            return Err(ResourceFault::Gone(format!("no remote `{remote}` is configured")));
        }
        if urls.len() > 1 || !elsewhere.is_empty() {
            let text = "the remote is read at one place and written at another";
            return Err(ResourceFault::Refused(text.to_owned()));
        }
        Ok(())
    }

    /// Gets the remote's commit if it is not here: it tells what would be lost, and is what an undo
    /// puts back.
    async fn fetch_missing(
        &self,
        remote: &str,
        branch: &str,
        oid: &str,
    ) -> Result<(), ResourceFault> {
        if self.has(oid).await? {
            return Ok(());
        }
        let reference = format!("refs/heads/{branch}");
        let quiet = ["fetch", "--quiet", "--no-tags", "--no-write-fetch-head", "--refmap="];
        let more = ["--no-auto-maintenance", "--recurse-submodules=no", "--", remote, &reference];
        self.git(&[&quiet[..], &more].concat(), &Ask::default()).await?;
        if self.has(oid).await? {
            return Ok(());
        }
        Err(ResourceFault::Unavailable("the remote's branch moves too fast".to_owned()))
    }

    /// These commits, the newest first.
    async fn commits(&self, which: &[&str]) -> Result<Vec<(String, Value)>, ResourceFault> {
        let most = self.spec().limits.commits_max;
        let limit = format!("--max-count={}", most.saturating_add(1));
        let format = "--format=%H%x09%an <%ae>%x09%s";
        let plain = ["log", "-z", "--no-color", "--no-show-signature", format, &limit];
        let ran = self.git(&[&plain[..], which, &["--"]].concat(), &Ask::default()).await?;
        let text = ran.text();
        let read = |line: &str| {
            let mut parts = line.splitn(3, '\t');
            let oid = parts.next()?.to_owned();
            let (author, subject) = (parts.next()?, parts.next()?);
            Some((oid, json!({ "author": author, "subject": subject })))
        };
        let found: Option<Vec<_>> = text.split_terminator('\0').map(read).collect();
        let found = found.ok_or_else(unreadable)?;
        if found.len() > most {
            return Err(ResourceFault::TooLarge(format!("more than {most} commits")));
        }
        Ok(found)
    }
}

fn members(value: Value) -> serde_json::Map<String, Value> {
    match value {
        Value::Object(members) => members,
        _ => serde_json::Map::new(),
    }
}

/// Reads `:mode mode oid oid status\0path\0` of `git diff-tree --raw -z`.
fn read_raw(raw: &[u8]) -> Result<Vec<File>, ResourceFault> {
    let text = std::str::from_utf8(raw);
    let text = text.map_err(|_| ResourceFault::Refused("a path is no UTF-8".to_owned()))?;
    let mut fields = text.split_terminator('\0');
    let mut files = Vec::new();
    while let Some(head) = fields.next() {
        let path = fields.next().ok_or_else(unreadable)?;
        let words: Vec<&str> = head.trim_start_matches(':').split(' ').collect();
        let [from_mode, to_mode, from, to, _] = words.as_slice() else {
            return Err(unreadable());
        };
        let blob = |mode: &str, oid: &str| {
            let there = mode != "000000";
            there.then(|| Blob { mode: mode.to_owned(), oid: oid.to_owned() })
        };
        files.push((path.to_owned(), blob(from_mode, from), blob(to_mode, to)));
    }
    Ok(files)
}

/// Reads `oid blob size\nbytes\n` of `git cat-file --batch`; leaves out what is no text.
fn read_batch(mut rest: &[u8]) -> Result<Vec<(String, String)>, ResourceFault> {
    let mut found = Vec::new();
    while !rest.is_empty() {
        let end = rest.iter().position(|&byte| byte == b'\n').ok_or_else(unreadable)?;
        let (head, body) = rest.split_at(end);
        let head = String::from_utf8_lossy(head).into_owned();
        let (oid, size) = (head.split(' ').next(), head.rsplit(' ').next());
        let size: usize = size.and_then(|size| size.parse().ok()).ok_or_else(unreadable)?;
        let bytes = body.get(1..=size).ok_or_else(unreadable)?;
        if let (Some(oid), Ok(text)) = (oid, std::str::from_utf8(bytes))
            && !text.contains('\0')
        {
            found.push((oid.to_owned(), text.to_owned()));
        }
        rest = body.get(size.saturating_add(2)..).ok_or_else(unreadable)?;
    }
    Ok(found)
}
