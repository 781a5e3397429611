//! Compiled guests, kept on disk: a guest with a runtime inside takes seconds to compile.
//!
//! The engine names each file by the content that it was compiled from and by its own version and settings. Whoever may
//! write there decides what greetd executes, so the folder, and each above it, must be out of others' reach.

use std::fs::{self, DirBuilder, Metadata};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use wasmtime::{Cache, CacheConfig};

use crate::error::named;

/// So much is kept; what was not used for longest goes first.
const LARGEST: u64 = 512 << 20;
/// How often the engine looks for what must go.
const CLEANING: Duration = Duration::from_secs(24 * 60 * 60);

/// Why a folder is not used.
#[derive(Debug, thiserror::Error)]
pub(super) enum CacheError {
    #[error("{}: {}", .0.display(), named(.1))]
    Io(PathBuf, io::Error),
    #[error("{}: belongs to the user {}, not to {}", .0.display(), .1, .2)]
    Foreign(PathBuf, u32, u32),
    #[error("{}: others may write there; chmod go-w it", .0.display())]
    Open(PathBuf),
    #[error("{}: others may look into it; chmod 700 it", .0.display())]
    Visible(PathBuf),
    #[error("{0}")]
    Engine(String),
}

/// The cache in that folder, which is made where there is none.
pub(super) fn open(folder: &Path) -> Result<Cache, CacheError> {
    let io = |error| CacheError::Io(folder.to_owned(), error);
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(io)?;
    let folder = fs::canonicalize(folder).map_err(io)?;
    must_be_private(&folder)?;
    let mut config = CacheConfig::new();
    config.with_directory(&folder).with_files_total_size_soft_limit(LARGEST).with_cleanup_interval(CLEANING);
    Cache::new(config).map_err(|error| CacheError::Engine(error.to_string()))
}

/// The folder is this user's alone, and nobody else can put another in its place.
fn must_be_private(folder: &Path) -> Result<(), CacheError> {
    let me = rustix::process::geteuid().as_raw();
    let look = |path: &Path| fs::symlink_metadata(path).map_err(|error| CacheError::Io(path.to_owned(), error));
    let own = look(folder)?;
    if own.uid() != me {
        return Err(CacheError::Foreign(folder.to_owned(), own.uid(), me));
    }
    if own.mode() & 0o022 != 0 {
        return Err(CacheError::Open(folder.to_owned()));
    }
    if own.mode() & 0o055 != 0 {
        return Err(CacheError::Visible(folder.to_owned()));
    }
    for above in folder.ancestors().skip(1) {
        let status = look(above)?;
        if status.uid() != me && status.uid() != 0 {
            return Err(CacheError::Foreign(above.to_owned(), status.uid(), me));
        }
        if may_be_changed_by_others(&status) {
            return Err(CacheError::Open(above.to_owned()));
        }
    }
    Ok(())
}

/// In a folder with the sticky bit, as /tmp is, others cannot rename what is not theirs.
fn may_be_changed_by_others(status: &Metadata) -> bool {
    status.mode() & 0o022 != 0 && status.mode() & 0o1000 == 0
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn a_folder_is_made_for_this_user_alone() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("a/b");
        assert!(open(&cache).is_ok());
        assert_eq!(fs::metadata(&cache).unwrap().mode() & 0o777, 0o700);
    }

    #[test]
    fn a_folder_that_others_may_reach_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let cache = folder.path().join("cache");
        for (own, above, words) in [
            (0o720, 0o700, "others may write there"),
            (0o755, 0o700, "others may look into it"),
            (0o700, 0o777, "others may write there"),
        ] {
            let _ = fs::create_dir(&cache);
            fs::set_permissions(&cache, Permissions::from_mode(own)).unwrap();
            fs::set_permissions(folder.path(), Permissions::from_mode(above)).unwrap();
            let error = open(&cache).err().map(|error| error.to_string()).unwrap_or_default();
            assert!(error.contains(words), "{own:o} {above:o}: {error}");
        }
        fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
        let link = folder.path().join("link");
        std::os::unix::fs::symlink("/usr", &link).unwrap();
        assert!(open(&link).is_err(), "what a link leads to is judged");
    }
}
