//! The memory of a component: free lists for small blocks, in front of the allocator of the standard library.
//!
//! Most allocations of a call are small and end with the call: ids, names, a payload, a list of effects. The standard
//! allocator searches and merges for each of them, which made up a quarter of a call. Here a freed block goes to the
//! list of its size, and the next allocation of that size takes it from there. All small blocks are parts of one arena,
//! which bounds the memory in free blocks of sizes that are no longer used; when the arena is full, the standard
//! allocator serves the request.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::fmt;
use std::ptr::null_mut;

/// The step to which sizes are rounded up, which is also the strictest alignment of a small block, in bytes.
const STEP: usize = 16;

/// The longest small block, in bytes: longer ones are few.
const LONGEST: usize = 512;

/// The size of the arena, in bytes: several times the usual need of a call.
const ARENA: usize = 256 * 1024;

/// An allocator for code that has one thread, as components do. [`export!`](crate::export) makes it a component's own.
pub struct Allocator(UnsafeCell<Lists>);

struct Lists {
    /// For each number of steps, the first free block. Each free block holds the address of the next.
    free: [*mut u8; LONGEST / STEP + 1],
    /// Null until the first allocation, and if there is no memory for an arena.
    arena: *mut u8,
    /// The number of bytes of the arena that were ever handed out.
    given: usize,
}

#[allow(unsafe_code, reason = "a component has one thread, so that nothing is ever shared")]
// SAFETY: only `export!` makes an allocator a static, for `wasm32` without threads.
unsafe impl Sync for Allocator {}

impl fmt::Debug for Allocator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Allocator").finish_non_exhaustive()
    }
}

impl Default for Allocator {
    fn default() -> Self {
        Self::new()
    }
}

impl Allocator {
    /// An allocator without an arena: the first allocation reserves it.
    #[must_use]
    pub const fn new() -> Self {
        Self(UnsafeCell::new(Lists { free: [null_mut(); LONGEST / STEP + 1], arena: null_mut(), given: 0 }))
    }
}

/// The free list for blocks of this layout; `None` for blocks that are not small.
const fn list_of(layout: Layout) -> Option<usize> {
    let is_small = layout.size() <= LONGEST && layout.align() <= STEP;
    if is_small { Some(layout.size().div_ceil(STEP)) } else { None }
}

impl Lists {
    /// A block from the unused rest of the arena; null when the arena is full.
    #[cold]
    #[allow(unsafe_code, reason = "an allocator deals in addresses")]
    fn carve(&mut self, list: usize) -> *mut u8 {
        let bytes = list * STEP;
        if self.arena.is_null() {
            let Ok(layout) = Layout::from_size_align(ARENA, STEP) else { return null_mut() };
            // SAFETY: the arena is not of size 0.
            self.arena = unsafe { System.alloc(layout) };
        }
        if self.arena.is_null() || self.given + bytes > ARENA {
            return null_mut();
        }
        // SAFETY: the arena has that many bytes left.
        let block = unsafe { self.arena.add(self.given) };
        self.given += bytes;
        block
    }

    #[inline]
    fn has(&self, block: *mut u8) -> bool {
        block.addr().wrapping_sub(self.arena.addr()) < self.given
    }
}

#[allow(unsafe_code, reason = "an allocator deals in addresses")]
// SAFETY: blocks are from the standard allocator, or parts of the arena, which never overlap while in use.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if let Some(list) = list_of(layout) {
            // SAFETY: there is one thread, and nothing in this method calls back.
            let lists = unsafe { &mut *self.0.get() };
            let mut block = lists.free[list];
            if block.is_null() {
                block = lists.carve(list);
            } else {
                // SAFETY: a free block holds the address of the next.
                lists.free[list] = unsafe { block.cast::<*mut u8>().read() };
            }
            if !block.is_null() {
                return block;
            }
        }
        // SAFETY: the caller upholds the same contract.
        unsafe { System.alloc(layout) }
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: there is one thread, and nothing in this method calls back.
        let lists = unsafe { &mut *self.0.get() };
        match list_of(layout) {
            Some(list) if lists.has(block) => {
                // SAFETY: the caller gives up a block of this list, which has room for an address and is aligned for one.
                unsafe { block.cast::<*mut u8>().write(lists.free[list]) };
                lists.free[list] = block;
            }
            // SAFETY: the standard allocator handed out the block.
            _ => unsafe { System.dealloc(block, layout) },
        }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: there is one thread, and nothing in this method calls back.
        if !unsafe { (*self.0.get()).has(block) } {
            // SAFETY: the standard allocator handed out the block, and keeps it.
            return unsafe { System.realloc(block, layout, size) };
        }
        // SAFETY: the caller guarantees that the size is valid for a layout.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        if list_of(layout) == list_of(wanted) {
            return block;
        }
        // SAFETY: the copied range is within both blocks, which do not overlap.
        unsafe {
            let moved = self.alloc(wanted);
            if !moved.is_null() {
                block.copy_to_nonoverlapping(moved, layout.size().min(size));
                self.dealloc(block, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
#[allow(unsafe_code, reason = "an allocator is called so")]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// Blocks in use, each filled with its own byte, so that an overlap shows.
    struct Blocks {
        allocator: Allocator,
        used: Vec<(*mut u8, Layout, u8)>,
    }

    impl Blocks {
        fn take(&mut self, layout: Layout, with: u8) {
            // SAFETY: no layout of these tests has size 0.
            let block = unsafe { self.allocator.alloc(layout) };
            assert!(!block.is_null() && block.addr().is_multiple_of(layout.align()));
            // SAFETY: the block was just allocated with this size.
            unsafe { block.write_bytes(with, layout.size()) };
            self.used.push((block, layout, with));
        }

        fn check(block: *mut u8, size: usize, with: u8) {
            // SAFETY: the block is in use, and was filled.
            let bytes = unsafe { std::slice::from_raw_parts(block, size) };
            assert!(bytes.iter().all(|byte| *byte == with), "a block was written over");
        }

        fn give_back(&mut self, at: usize) {
            let (block, layout, with) = self.used.swap_remove(at);
            Self::check(block, layout.size(), with);
            // SAFETY: the block is freed once.
            unsafe { self.allocator.dealloc(block, layout) };
        }

        fn resize(&mut self, at: usize, size: usize) {
            let (block, before, with) = self.used[at];
            // SAFETY: the block is in use, with this layout.
            let moved = unsafe { self.allocator.realloc(block, before, size) };
            Self::check(moved, before.size().min(size), with);
            // SAFETY: the block was just allocated with this size.
            unsafe { moved.write_bytes(with, size) };
            self.used[at] = (moved, layout(size, before.align()), with);
        }
    }

    #[test]
    fn blocks_never_overlap_and_keep_their_content() {
        let mut blocks = Blocks { allocator: Allocator::new(), used: Vec::new() };
        let mut random = crate::random::Random::new(1);
        for n in 0..50_000_u32 {
            let mut below = |limit: usize| (random.next() % limit as u64) as usize;
            let size = if below(8) == 0 { 1 + below(5_000) } else { 1 + below(600) };
            match below(if blocks.used.len() < 200 { 3 } else { 5 }) {
                0 | 1 => blocks.take(layout(size, 1 << below(6)), n as u8),
                2 if !blocks.used.is_empty() => blocks.resize(below(blocks.used.len()), size),
                _ if !blocks.used.is_empty() => blocks.give_back(below(blocks.used.len())),
                _ => {}
            }
        }
        while !blocks.used.is_empty() {
            blocks.give_back(0);
        }
    }

    #[test]
    fn freed_blocks_are_reused() {
        let allocator = Allocator::new();
        // SAFETY: no block is used after it is freed.
        unsafe {
            let first = allocator.alloc(layout(40, 8));
            allocator.dealloc(first, layout(40, 8));
            assert_eq!(allocator.alloc(layout(33, 1)), first);
            assert_eq!(allocator.realloc(first, layout(33, 1), 48), first);
            assert_ne!(allocator.realloc(first, layout(48, 1), 49), first);
        }
    }

    #[test]
    fn full_arena_falls_back_to_system_allocator() {
        let allocator = Allocator::new();
        for size in (STEP..=LONGEST).step_by(STEP) {
            // SAFETY: each block is freed once, with the layout of its allocation.
            unsafe {
                let blocks: Vec<_> = (0..ARENA / size + 10).map(|_| allocator.alloc(layout(size, 8))).collect();
                assert!(blocks.iter().all(|block| !block.is_null()));
                blocks.into_iter().for_each(|block| allocator.dealloc(block, layout(size, 8)));
                assert!((*allocator.0.get()).given <= ARENA);
            }
        }
    }
}
