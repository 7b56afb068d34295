//! The tools of a repository, and what a call of one asks for.
//! Must never let a name or a path pass for an option of git.

use crate::resource::ResourceFault;
use serde::Deserialize;
use serde_json::{Value, json};
use std::path::{Component, Path};

/// Most paths of one call.
const PATHS_MAX: usize = 1000;
/// Longest message of a commit, in bytes.
const MESSAGE_BYTES_MAX: usize = 64 << 10;
/// Longest name of a branch, a remote or a revision, in bytes.
const NAME_BYTES_MAX: usize = 200;
/// Most commits that one call of `git_log` tells.
const LOG_MAX: u32 = 1000;

/// A call, read.
#[derive(Debug)]
pub(super) enum Call {
    /// What changes nothing, as the arguments of git.
    Read(Vec<String>),
    Commit(Commit),
    Branch {
        name: String,
        start: String,
    },
    BranchDelete {
        name: String,
    },
    Push(Push),
}

/// What is to be committed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Commit {
    pub(super) message: String,
    pub(super) paths: Vec<String>,
}

/// What is to be pushed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Push {
    pub(super) remote: String,
    pub(super) branch: String,
    #[serde(default)]
    pub(super) force: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Status {}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Diff {
    #[serde(default)]
    staged: bool,
    #[serde(default)]
    from: Option<String>,
    #[serde(default)]
    to: Option<String>,
    #[serde(default)]
    paths: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Log {
    #[serde(default)]
    start: Option<String>,
    #[serde(default)]
    limit: Option<u32>,
    #[serde(default)]
    paths: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Branch {
    name: String,
    #[serde(default)]
    start: Option<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct BranchDelete {
    name: String,
}

// === impl Call ===

impl Call {
    /// Reads the call of the tool `name`; `None` if there is no such tool here.
    pub(super) fn read(name: &str, parameters: &Value) -> Result<Option<Self>, ResourceFault> {
        Ok(Some(match name {
            "git_status" => {
                let Status {} = read(parameters)?;
                let words = ["status", "--porcelain=v2", "--branch", "--ignore-submodules=all"];
                Self::Read(words.map(str::to_owned).to_vec())
            }
            "git_diff" => Self::Read(read::<Diff>(parameters)?.arguments()?),
            "git_log" => Self::Read(read::<Log>(parameters)?.arguments()?),
            "git_commit" => Self::Commit(read::<Commit>(parameters)?.checked()?),
            "git_branch" => {
                let Branch { name, start } = read(parameters)?;
                let start = start.unwrap_or_else(|| "HEAD".to_owned());
                Self::Branch { name: branch(name)?, start: revision(start)? }
            }
            "git_branch_delete" => {
                let BranchDelete { name } = read(parameters)?;
                Self::BranchDelete { name: branch(name)? }
            }
            "git_push" => {
                let push: Push = read(parameters)?;
                let (remote, branch) = (remote(push.remote)?, branch(push.branch)?);
                Self::Push(Push { remote, branch, force: push.force })
            }
            _ => return Ok(None),
        }))
    }
}

// === impl Commit ===

impl Commit {
    fn checked(self) -> Result<Self, ResourceFault> {
        let Self { message, paths } = self;
        let message = message.trim_end();
        if message.trim().is_empty() || message.len() > MESSAGE_BYTES_MAX || message.contains('\0')
        {
            let text = format!("`message` has 1 to {MESSAGE_BYTES_MAX} bytes of text");
            return Err(ResourceFault::Invalid(text));
        }
        if paths.is_empty() {
            let text = "`paths` names no file; name each file or folder to commit";
            return Err(ResourceFault::Invalid(text.to_owned()));
        }
        Ok(Self { message: format!("{message}\n"), paths: checked_paths(paths)? })
    }
}

// === impl Diff ===

impl Diff {
    fn arguments(self) -> Result<Vec<String>, ResourceFault> {
        let plain = ["--no-ext-diff", "--no-textconv", "--no-color", "--ignore-submodules=all"];
        let mut words = vec!["diff".to_owned()];
        words.extend(plain.map(str::to_owned));
        words.extend(self.staged.then(|| "--cached".to_owned()));
        words.push("--end-of-options".to_owned());
        for name in self.from.into_iter().chain(self.to) {
            words.push(revision(name)?);
        }
        words.push("--".to_owned());
        words.extend(checked_paths(self.paths)?);
        Ok(words)
    }
}

// === impl Log ===

impl Log {
    fn arguments(self) -> Result<Vec<String>, ResourceFault> {
        let limit = self.limit.unwrap_or(20).min(LOG_MAX);
        let format = "--format=commit %H%nparents %P%nauthor %an <%ae>%ndate %aI%n%n%B";
        let mut words = ["log", "--no-color", "--no-show-signature", "--no-ext-diff", format]
            .map(str::to_owned)
            .to_vec();
        words.push(format!("--max-count={limit}"));
        words.push("--end-of-options".to_owned());
        words.push(revision(self.start.unwrap_or_else(|| "HEAD".to_owned()))?);
        words.push("--".to_owned());
        words.extend(checked_paths(self.paths)?);
        Ok(words)
    }
}

/// The tools as MCP describes tools.
pub(super) fn tools() -> Vec<Value> {
    let paths = json!({
        "type": "array", "maxItems": PATHS_MAX, "items": { "type": "string", "minLength": 1 },
        "description": "Files or folders, relative to the repository, taken literally.",
    });
    let name = |text: &str| {
        json!({ "type": "string", "minLength": 1, "maxLength": NAME_BYTES_MAX,
            "description": text })
    };
    let flag = |text: &str| json!({ "type": "boolean", "description": text });
    vec![
        tool("git_status", "What is staged, changed and untracked.", json!({}), &[]),
        tool(
            "git_diff",
            "What differs between the work tree, the index and commits.",
            json!({ "staged": flag("Compare the index instead of the work tree."),
                "from": name("A revision."), "to": name("A revision."), "paths": paths }),
            &[],
        ),
        tool(
            "git_log",
            "Commits, the newest first.",
            json!({ "start": name("A revision; absent: what is checked out."),
                "limit": { "type": "integer", "minimum": 1, "maximum": LOG_MAX },
                "paths": paths }),
            &[],
        ),
        tool(
            "git_commit",
            "Commits these files, as they lie in the work tree, to the branch checked out.",
            json!({ "message": { "type": "string", "minLength": 1,
                "maxLength": MESSAGE_BYTES_MAX }, "paths": paths }),
            &["message", "paths"],
        ),
        tool(
            "git_branch",
            "Makes a branch; does not check it out.",
            json!({ "name": name("The new branch."),
                "start": name("Where it starts; absent: what is checked out.") }),
            &["name"],
        ),
        tool(
            "git_branch_delete",
            "Deletes a branch that is not checked out.",
            json!({ "name": name("The branch.") }),
            &["name"],
        ),
        tool(
            "git_push",
            "Pushes one branch to the branch of the same name at a remote.",
            json!({ "remote": name("The name of a configured remote."),
                "branch": name("The branch."),
                "force": flag("Also if the remote's branch loses commits by that.") }),
            &["remote", "branch"],
        ),
    ]
}

fn tool(name: &str, description: &str, properties: Value, required: &[&str]) -> Value {
    let read = matches!(name, "git_status" | "git_diff" | "git_log");
    json!({
        "name": name,
        "description": description,
        "inputSchema": {
            "type": "object", "properties": properties, "required": required,
            "additionalProperties": false,
        },
        "annotations": {
            "readOnlyHint": read,
            "destructiveHint": matches!(name, "git_branch_delete" | "git_push"),
            "idempotentHint": read,
            "openWorldHint": name == "git_push",
        },
    })
}

fn read<T: serde::de::DeserializeOwned>(parameters: &Value) -> Result<T, ResourceFault> {
    // A derived reader takes an array for an object.
    if !parameters.is_object() {
        return Err(ResourceFault::Invalid("the parameters are no object".to_owned()));
    }
    T::deserialize(parameters).map_err(|fault| ResourceFault::Invalid(fault.to_string()))
}

/// A name that git will look at further: what git takes for a branch is for git to say.
fn branch(name: String) -> Result<String, ResourceFault> {
    let plain = name.bytes().all(|byte| byte > b' ' && byte != 0x7f);
    checked("branch", name, |name| plain && !name.starts_with('-') && name != "HEAD")
}

fn revision(name: String) -> Result<String, ResourceFault> {
    let plain = name.bytes().all(|byte| byte >= b' ' && byte != 0x7f);
    // A range is none: one name is one commit.
    checked("revision", name, |name| plain && !name.starts_with(['-', '^']) && !name.contains(".."))
}

fn remote(name: String) -> Result<String, ResourceFault> {
    let word = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    checked("remote", name, |name| name.bytes().all(word) && !name.starts_with(['-', '.']))
}

fn checked(
    what: &str,
    name: String,
    is_plain: impl FnOnce(&str) -> bool,
) -> Result<String, ResourceFault> {
    if name.is_empty() || name.len() > NAME_BYTES_MAX || !is_plain(&name) {
        return Err(ResourceFault::Invalid(format!("this is no name of a {what}")));
    }
    Ok(name)
}

fn checked_paths(paths: Vec<String>) -> Result<Vec<String>, ResourceFault> {
    if paths.len() > PATHS_MAX {
        return Err(ResourceFault::TooLarge(format!("{} paths", paths.len())));
    }
    match paths.iter().find(|path| !is_inside(path)) {
        None => Ok(paths),
        Some(path) => {
            let shown: String = path.chars().take(NAME_BYTES_MAX).collect();
            let text = format!("`{shown}` is no path within the repository");
            Err(ResourceFault::Invalid(text))
        }
    }
}

fn is_inside(path: &str) -> bool {
    let plain = |part: Component<'_>| match part {
        Component::Normal(name) => !name.eq_ignore_ascii_case(".git"),
        Component::CurDir => true,
        Component::Prefix(_) | Component::RootDir | Component::ParentDir => false,
    };
    !path.is_empty() && !path.contains('\0') && Path::new(path).components().all(plain)
}

#[cfg(test)]
mod tests {
    use super::Call;
    use serde_json::json;

    #[test]
    fn no_name_and_no_path_passes_for_an_option() {
        let refused = [
            ("git_branch", json!({ "name": "--force" })),
            ("git_branch", json!({ "name": "a b" })),
            ("git_branch", json!({ "name": "HEAD" })),
            ("git_branch", json!({ "name": "x", "start": "-x" })),
            ("git_branch", json!({ "name": "x".repeat(201) })),
            ("git_branch", json!({ "name": "x", "more": 1 })),
            ("git_branch", json!(["x"])),
            ("git_branch_delete", json!({ "name": "" })),
            ("git_push", json!({ "remote": "ext::sh -c id", "branch": "main" })),
            ("git_push", json!({ "remote": "--exec=x", "branch": "main" })),
            ("git_push", json!({ "remote": "../elsewhere", "branch": "main" })),
            ("git_push", json!({ "remote": "origin", "branch": "-d" })),
            ("git_log", json!({ "start": "--output=/tmp/x" })),
            ("git_log", json!({ "start": "main..other" })),
            ("git_diff", json!({ "from": "--output=x" })),
            ("git_diff", json!({ "paths": ["/etc/passwd"] })),
            ("git_commit", json!({ "message": "x", "paths": [] })),
            ("git_commit", json!({ "message": " ", "paths": ["a"] })),
            ("git_commit", json!({ "message": "x", "paths": ["../a"] })),
            ("git_commit", json!({ "message": "x", "paths": ["a/.GIT/config"] })),
            ("git_commit", json!({ "message": "x", "paths": [""] })),
            ("git_commit", json!({ "message": "x", "paths": vec!["a"; 1001] })),
            ("git_commit", json!({ "message": "x".repeat(70_000), "paths": ["a"] })),
            ("git_status", json!({ "x": 1 })),
        ];
        for (tool, parameters) in refused {
            assert!(Call::read(tool, &parameters).is_err(), "{tool} {parameters}");
        }
        let taken = json!({ "message": "x", "paths": ["-a", ":(top)b", "*"] });
        assert!(matches!(Call::read("git_commit", &taken), Ok(Some(Call::Commit(_)))));
        assert!(matches!(Call::read("git_stash", &json!({})), Ok(None)));
    }
    #[test]
    fn a_log_has_an_end() {
        let Ok(Some(Call::Read(words))) = Call::read("git_log", &json!({ "limit": 5000 })) else {
            panic!("it is a read")
        };
        assert!(words.contains(&"--max-count=1000".to_owned()), "{words:?}");
    }
}
