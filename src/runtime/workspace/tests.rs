use std::os::unix::fs::{MetadataExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use rustix::fs::{CWD, FileType, Mode, mknodat};
use tokio::time::timeout;

use super::*;
use crate::domain::ContainerId;

/// A workspace with the owner that a container's agent would have, as far as we may.
fn workspace() -> (tempfile::TempDir, Workspace) {
    let data_dir = tempfile::tempdir().unwrap();
    let owner = rustix::process::geteuid().is_root().then_some((10_001, 10_001));
    let workspace = Workspaces::open(data_dir.path(), owner).unwrap().get(ContainerId::generate());
    (data_dir, workspace)
}

/// What an agent does in its workspace.
async fn as_agent(workspace: &Workspace) -> PathBuf {
    workspace.ensure().await.unwrap();
    workspace.path()
}

#[tokio::test]
async fn what_is_written_is_read_and_listed_and_belongs_to_the_agent() {
    let (_data_dir, workspace) = workspace();
    assert_eq!(workspace.list().await.unwrap(), []);
    workspace.write("a/b/c.txt", Bytes::from_static(b"one")).await.unwrap();
    workspace.write("a/b/c.txt", Bytes::from_static(b"two!")).await.unwrap();
    workspace.write("z", Bytes::new()).await.unwrap();

    assert_eq!(workspace.read("./a//b/c.txt", 4).await.unwrap().unwrap(), "two!");
    let files = workspace.list().await.unwrap();
    let seen: Vec<_> = files.iter().map(|file| (file.path.as_str(), file.size)).collect();
    assert_eq!(seen, [("a/b/c.txt", 4), ("z", 0)]);
    assert!(files[0].modified_ms > 1_600_000_000_000);
    if let Some((user, _)) = workspace.owner {
        for made in ["", "a", "a/b", "a/b/c.txt", "z"] {
            assert_eq!(fs::metadata(workspace.path().join(made)).unwrap().uid(), user, "{made}");
        }
    }
    assert_eq!(fs::metadata(&workspace.parent).unwrap().mode() & 0o777, 0o700);
    workspace.erase().await.unwrap();
    workspace.erase().await.unwrap();
    assert!(!workspace.path().exists());
}

#[tokio::test]
async fn what_is_not_there_is_none_and_what_is_too_large_says_so() {
    let (_data_dir, workspace) = workspace();
    workspace.write("file", Bytes::from_static(b"12345")).await.unwrap();
    assert!(workspace.read("nothing", 5).await.unwrap().is_none());
    assert!(workspace.read("no/thing", 5).await.unwrap().is_none());
    assert!(workspace.read("file", 5).await.unwrap().is_some());
    assert!(matches!(workspace.read("file", 4).await, Err(WorkspaceError::TooLarge { limit: 4 })));
    assert!(matches!(workspace.read("../x", 4).await, Err(WorkspaceError::BadPath(_))));
    assert!(matches!(workspace.write("/x", Bytes::new()).await, Err(WorkspaceError::BadPath(_))));
    assert!(matches!(workspace.write("file/x", Bytes::new()).await, Err(WorkspaceError::NotAFile)));
    assert!(matches!(workspace.read("file/x", 4).await, Err(WorkspaceError::NotAFile)));
}

#[tokio::test]
async fn links_that_lead_out_lead_nowhere() {
    let (data_dir, workspace) = workspace();
    let secret = data_dir.path().join("first-token");
    fs::write(&secret, "rc_secret").unwrap();
    let inside = as_agent(&workspace).await;
    fs::write(inside.join("real"), "fine").unwrap();
    symlink("real", inside.join("inner")).unwrap();
    symlink(&secret, inside.join("absolute")).unwrap();
    symlink("../../first-token", inside.join("relative")).unwrap();
    symlink(data_dir.path(), inside.join("directory")).unwrap();
    symlink("loop", inside.join("loop")).unwrap();

    assert_eq!(workspace.read("inner", 10).await.unwrap().unwrap(), "fine");
    for planted in ["absolute", "relative", "directory/first-token", "loop"] {
        let read = workspace.read(planted, 100).await;
        assert!(matches!(read, Err(WorkspaceError::NotAFile)), "{planted}: {read:?}");
    }
    let write = workspace.write("directory/planted", Bytes::from_static(b"x")).await;
    assert!(matches!(write, Err(WorkspaceError::NotAFile)), "{write:?}");
    assert!(!data_dir.path().join("planted").exists());

    // The link itself is replaced; what it pointed at stays.
    workspace.write("absolute", Bytes::from_static(b"mine")).await.unwrap();
    assert_eq!(workspace.read("absolute", 10).await.unwrap().unwrap(), "mine");
    let listed: Vec<_> = workspace.list().await.unwrap().into_iter().map(|file| file.path).collect();
    assert_eq!(listed, ["absolute", "real"]);
    workspace.erase().await.unwrap();
    assert_eq!(fs::read_to_string(&secret).unwrap(), "rc_secret");
}

#[tokio::test]
async fn a_hard_link_is_never_written_through() {
    let (data_dir, workspace) = workspace();
    let victim = data_dir.path().join("victim");
    fs::write(&victim, "untouched").unwrap();
    fs::hard_link(&victim, as_agent(&workspace).await.join("linked")).unwrap();
    let owner_before = fs::metadata(&victim).unwrap().uid();
    workspace.write("linked", Bytes::from_static(b"new")).await.unwrap();
    assert_eq!(fs::read_to_string(&victim).unwrap(), "untouched");
    assert_eq!(fs::metadata(&victim).unwrap().uid(), owner_before);
}

#[tokio::test]
async fn what_is_no_file_is_neither_read_nor_listed_and_blocks_nobody() {
    let (_data_dir, workspace) = workspace();
    let inside = as_agent(&workspace).await;
    mknodat(CWD, inside.join("fifo"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let _socket = UnixListener::bind(inside.join("socket")).unwrap();
    fs::create_dir(inside.join("directory")).unwrap();
    for special in ["fifo", "socket", "directory"] {
        let read = timeout(Duration::from_secs(5), workspace.read(special, 100)).await.expect("it blocks");
        assert!(matches!(read, Err(WorkspaceError::NotAFile)), "{special}: {read:?}");
    }
    let write = workspace.write("directory", Bytes::new()).await;
    assert!(matches!(write, Err(WorkspaceError::NotAFile)), "{write:?}");
    assert_eq!(workspace.list().await.unwrap(), []);
    assert_eq!(fs::read_dir(&inside).unwrap().count(), 3, "the temporary file is gone");
}

#[tokio::test]
async fn a_listing_is_bounded_in_files_and_depth() {
    let (_data_dir, workspace) = workspace();
    let inside = as_agent(&workspace).await;
    for number in 0..10_050 {
        fs::File::create(inside.join(format!("{number}"))).unwrap();
    }
    assert_eq!(workspace.list().await.unwrap().len(), 10_000);
    workspace.erase().await.unwrap();

    let deep = as_agent(&workspace).await.join("d/".repeat(33));
    fs::create_dir_all(&deep).unwrap();
    fs::write(deep.join("too-deep"), "").unwrap();
    fs::write(deep.parent().unwrap().join("deep"), "").unwrap();
    let listed: Vec<_> = workspace.list().await.unwrap().into_iter().map(|file| file.path).collect();
    assert_eq!(listed, ["d/".repeat(32) + "deep"]);
}

#[tokio::test]
async fn a_tree_deeper_than_descriptors_go_is_erased() {
    let (_data_dir, workspace) = workspace();
    as_agent(&workspace).await;
    let mut directory = workspace.open().unwrap();
    for _ in 0..3_000 {
        directory.create_dir("d").unwrap();
        directory = directory.open_dir("d").unwrap();
    }
    directory.write("leaf", "x").unwrap();
    drop(directory);
    workspace.erase().await.unwrap();
    assert!(!workspace.path().exists());
}
