//! Processes and their trees.

use holdpoint_resources::{Process, ProcessFault, ProcessSpec};
use std::path::Path;
use std::time::Duration;
use tokio::io::AsyncReadExt as _;

/// The living processes that have `word` among their arguments.
pub fn named(word: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").unwrap().flatten();
    let ids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let has = |id: &u32| {
        let line = std::fs::read(format!("/proc/{id}/cmdline")).unwrap_or_default();
        let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).unwrap_or_default();
        let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
        let sleeps = line.starts_with(b"sleep\0");
        sleeps && state != Some('Z') && line.split(|b| *b == 0).any(|arg| arg == word.as_bytes())
    };
    ids.filter(has).collect()
}

/// A number of seconds to sleep that no other process of any test run has among its arguments.
pub fn mark(number: u32) -> String {
    format!("9{:07}.{number}", std::process::id())
}

/// Waits until something is so; fails if it does not become so.
pub async fn until(mut so: impl FnMut() -> bool) {
    let wait = async {
        while !so() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), wait).await.unwrap();
}

/// Waits until a file is there.
pub async fn appears(file: &Path) {
    until(|| file.exists()).await;
}

fn shell(script: &str) -> ProcessSpec {
    let command = ["sh", "-c", script].map(str::to_owned).to_vec();
    ProcessSpec { command, ..ProcessSpec::default() }
}

#[tokio::test]
async fn what_cannot_start_says_why() {
    let empty = Process::spawn(&ProcessSpec::default()).unwrap_err();
    assert!(matches!(empty, ProcessFault::Empty));
    let command = vec!["/nonexistent/program".to_owned()];
    let missing = Process::spawn(&ProcessSpec { command, ..ProcessSpec::default() }).unwrap_err();
    assert!(missing.to_string().starts_with("cannot start `/nonexistent/program`: "), "{missing}");
}

#[tokio::test]
async fn secrets_do_not_show() {
    let env = [("KEY".to_owned(), "hunter2".to_owned())].into();
    let text = format!("{:?}", ProcessSpec { env, ..ProcessSpec::default() });
    assert!(text.contains("KEY") && !text.contains("hunter2"), "{text}");
}

#[tokio::test]
async fn only_the_last_words_are_kept() {
    let script = "i=0; while [ $i -lt 3000 ]; do echo 012345678901234567890123456789$i >&2; \
                  i=$((i+1)); done; echo the end >&2";
    let (mut process, mut pipes) = Process::spawn(&shell(script)).unwrap();
    assert!(process.wait().await.unwrap().success());
    pipes.stdout.read_to_end(&mut Vec::new()).await.unwrap();
    until(|| process.last_words().ends_with("the end\n")).await;
    assert_eq!(process.last_words().len(), 64 << 10);
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_tree_is_killed_as_a_whole() {
    let mark = mark(1);
    let script = format!("trap '' TERM; setsid sleep {mark} & sleep {mark} & sleep {mark}");
    let (mut process, _pipes) = Process::spawn(&shell(&script)).unwrap();
    until(|| named(&mark).len() >= 3).await;
    process.kill_tree(Duration::from_millis(50)).await;
    assert_eq!(named(&mark), Vec::<u32>::new());
    assert!(!Path::new(&format!("/proc/{}", process.id())).exists(), "no zombie remains");
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn what_outlives_its_parents_is_found() {
    let mark = mark(2);
    // The root ends at once; what it started belongs to nobody we know, but carries the mark.
    let script = format!("(setsid sleep {mark} &); exit 0");
    let (mut process, _pipes) = Process::spawn(&shell(&script)).unwrap();
    assert!(process.wait().await.unwrap().success());
    until(|| !named(&mark).is_empty()).await;
    process.kill_tree(Duration::from_millis(50)).await;
    assert_eq!(named(&mark), Vec::<u32>::new());
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn dropping_kills() {
    let mark = mark(3);
    let script = format!("setsid sleep {mark} & sleep {mark}");
    let (process, _pipes) = Process::spawn(&shell(&script)).unwrap();
    until(|| named(&mark).len() >= 2).await;
    drop(process);
    until(|| named(&mark).is_empty()).await;
}

#[tokio::test]
async fn whoever_ends_by_itself_is_not_rushed() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("farewell");
    let script = format!("cat; echo done > {}", file.display());
    let (mut process, pipes) = Process::spawn(&shell(&script)).unwrap();
    drop(pipes.stdin);
    process.close(Duration::from_secs(20)).await;
    assert!(file.exists());
}
