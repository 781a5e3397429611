//! How much memory guests may take: each instance by itself, and all of a plugin together.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use wasmtime::ResourceLimiter;

/// What an instance may have without drawing on what all of them share: about what a session costs otherwise.
const FREE: usize = 2 << 20;
/// What all instances of a plugin may have beyond that, in bytes.
const SHARED: usize = 1 << 30;
/// Tables hold functions; a Python guest has some ten thousand.
const TABLE_ELEMENTS: usize = 100_000;
/// A component is made of modules: a Python guest of some thirty.
const PARTS: usize = 100;

/// A guest wanted more than it may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum TooMuch {
    #[error("wanted {wanted} KiB of memory, and may have {limit} KiB")]
    Memory { wanted: usize, limit: usize },
    #[error("wanted {wanted} KiB of memory; all its instances together have the {} MiB that they may have", SHARED >> 20)]
    Together { wanted: usize },
    #[error("wanted a table of {0} elements, and may have {TABLE_ELEMENTS}")]
    Table(usize),
}

/// What the instances of a plugin have together.
#[derive(Debug, Default)]
pub(super) struct Together(AtomicUsize);

/// One instance's memory: the sum of its memories.
#[derive(Debug)]
pub(super) struct Memory {
    limit: usize,
    has: usize,
    together: Arc<Together>,
}

impl Memory {
    /// `limit` in bytes.
    pub(super) fn new(limit: usize, together: Arc<Together>) -> Self {
        Memory { limit, has: 0, together }
    }

    fn grow(&mut self, by: usize) -> Result<(), TooMuch> {
        let wants = self.has.saturating_add(by);
        if wants > self.limit {
            return Err(TooMuch::Memory { wanted: wants >> 10, limit: self.limit >> 10 });
        }
        let more = drawn(wants) - drawn(self.has);
        if self.together.0.fetch_add(more, Ordering::Relaxed) + more > SHARED {
            self.together.0.fetch_sub(more, Ordering::Relaxed);
            return Err(TooMuch::Together { wanted: wants >> 10 });
        }
        self.has = wants;
        Ok(())
    }
}

fn drawn(size: usize) -> usize {
    size.saturating_sub(FREE)
}

impl Drop for Memory {
    fn drop(&mut self) {
        self.together.0.fetch_sub(drawn(self.has), Ordering::Relaxed);
    }
}

/// A guest that may not grow is ended, rather than told: most would end in a way that says less.
impl ResourceLimiter for Memory {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        self.grow(desired.saturating_sub(current))?;
        Ok(true)
    }

    fn table_growing(&mut self, _: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        if desired > TABLE_ELEMENTS { Err(TooMuch::Table(desired).into()) } else { Ok(true) }
    }

    fn instances(&self) -> usize {
        PARTS
    }

    fn tables(&self) -> usize {
        PARTS
    }

    fn memories(&self) -> usize {
        PARTS
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    #[test]
    fn an_instance_has_its_limit_over_all_its_memories() {
        let mut memory = Memory::new(16 * MIB, Arc::default());
        assert_eq!(memory.grow(16 * MIB), Ok(()));
        assert_eq!(memory.grow(1024), Err(TooMuch::Memory { wanted: 16 * 1024 + 1, limit: 16 * 1024 }));
    }

    #[test]
    fn all_instances_have_a_limit_together_and_give_back_what_they_had() {
        let together = Arc::<Together>::default();
        let instance = || {
            let mut memory = Memory::new(66 * MIB, together.clone());
            memory.grow(66 * MIB).map(|()| memory)
        };
        let many: Vec<_> = (0..16).map(|_| instance().unwrap()).collect();
        assert_eq!(instance().unwrap_err(), TooMuch::Together { wanted: 66 * 1024 });
        let small: Vec<_> = (0..1000).map(|_| Memory::new(MIB, together.clone()).grow(MIB)).collect();
        assert!(small.iter().all(Result::is_ok), "small ones draw on nothing");
        drop(many);
        assert_eq!(together.0.load(Ordering::Relaxed), 0);
        assert!(instance().is_ok());
    }
}
