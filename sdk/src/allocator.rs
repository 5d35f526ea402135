//! The memory of a component: free lists for small blocks, in front of the allocator of the standard library.
//!
//! Most of what a call allocates is small and gone when the call ends: ids, names, a payload, a list of effects. The standard
//! allocator searches and merges for each of them, which made up a quarter of a call. Here a block goes back to
//! the list of its size and comes from there again.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::UnsafeCell;
use std::fmt;
use std::ptr::null_mut;

/// What sizes are rounded up to, and the strictest alignment of a small block, in bytes.
const STEP: usize = 16;

/// The longest small block, in bytes: longer ones are few, and would tie up memory in lists that are seldom asked.
const LONGEST: usize = 512;

/// What is taken from the standard allocator at once, in bytes: some dozen calls' worth of blocks of one size.
const CHUNK: usize = 16 * 1024;

/// An allocator for code that has one thread, as components do. [`export!`](crate::export) makes it a component's own.
pub struct Allocator(UnsafeCell<Lists>);

struct Lists {
    /// For each number of steps the first free block. Each holds the address of the next.
    free: [*mut u8; LONGEST / STEP + 1],
    /// What is left of the last chunk.
    fresh: *mut u8,
    fresh_bytes: usize,
}

#[allow(unsafe_code, reason = "a component has one thread, so that nothing is ever shared")]
// SAFETY: `export!` makes this a static for `wasm32` alone, whose components have no threads.
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
    /// An allocator that has given nothing yet.
    #[must_use]
    pub const fn new() -> Self {
        let free = [null_mut(); LONGEST / STEP + 1];
        Self(UnsafeCell::new(Lists { free, fresh: null_mut(), fresh_bytes: 0 }))
    }
}

/// The list that a block is from, or nothing where it is not small.
const fn list_of(layout: Layout) -> Option<usize> {
    let is_small = layout.size() <= LONGEST && layout.align() <= STEP;
    if is_small { Some(layout.size().div_ceil(STEP)) } else { None }
}

impl Lists {
    /// A block that was never given before, from a chunk.
    #[cold]
    #[allow(unsafe_code, reason = "an allocator deals in addresses")]
    // SAFETY: the caller is alone with the lists.
    unsafe fn carve(&mut self, list: usize) -> *mut u8 {
        let bytes = list * STEP;
        if self.fresh_bytes < bytes {
            let Ok(layout) = Layout::from_size_align(CHUNK, STEP) else { return null_mut() };
            // SAFETY: a chunk is not of size 0.
            let chunk = unsafe { System.alloc(layout) };
            if chunk.is_null() {
                return chunk;
            }
            if self.fresh_bytes > 0 {
                // What is left is a block of its own size.
                // SAFETY: nobody else has it, and it has at least `STEP` bytes.
                unsafe { self.put_back(self.fresh, self.fresh_bytes / STEP) };
            }
            (self.fresh, self.fresh_bytes) = (chunk, CHUNK);
        }
        let block = self.fresh;
        // SAFETY: the chunk has that many bytes left.
        self.fresh = unsafe { block.add(bytes) };
        self.fresh_bytes -= bytes;
        block
    }

    #[inline]
    #[allow(unsafe_code, reason = "an allocator deals in addresses")]
    // SAFETY: the caller gives up a block of this list, which has room for an address and is aligned for one.
    unsafe fn put_back(&mut self, block: *mut u8, list: usize) {
        // SAFETY: as above.
        unsafe { block.cast::<*mut u8>().write(self.free[list]) };
        self.free[list] = block;
    }
}

#[allow(unsafe_code, reason = "an allocator deals in addresses")]
// SAFETY: blocks are from the standard allocator, or parts of chunks from there, which never overlap while in use.
unsafe impl GlobalAlloc for Allocator {
    #[inline]
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let Some(list) = list_of(layout) else {
            // SAFETY: the caller's promises are the same.
            return unsafe { System.alloc(layout) };
        };
        // SAFETY: there is one thread, and nothing in here calls back.
        let lists = unsafe { &mut *self.0.get() };
        let block = lists.free[list];
        if block.is_null() {
            // SAFETY: the lists are ours alone.
            return unsafe { lists.carve(list) };
        }
        // SAFETY: a free block holds the address of the next.
        lists.free[list] = unsafe { block.cast::<*mut u8>().read() };
        block
    }

    #[inline]
    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        match list_of(layout) {
            // SAFETY: the block is from that list, and there is one thread.
            Some(list) => unsafe { (*self.0.get()).put_back(block, list) },
            // SAFETY: it is from there.
            None => unsafe { System.dealloc(block, layout) },
        }
    }

    #[inline]
    unsafe fn realloc(&self, block: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size is one that a layout may have.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        match (list_of(layout), list_of(wanted)) {
            (Some(before), Some(after)) if before == after => block,
            // SAFETY: it is from there, and stays there.
            (None, None) => unsafe { System.realloc(block, layout, size) },
            _ => {
                // SAFETY: what is copied is within both blocks, which differ.
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
    }
}

#[cfg(test)]
#[allow(unsafe_code, reason = "an allocator is called so")]
mod tests {
    use super::*;

    fn layout(size: usize, align: usize) -> Layout {
        Layout::from_size_align(size, align).unwrap()
    }

    /// Blocks in use: each is filled with a byte of its own, so that any overlap shows.
    struct Blocks {
        allocator: Allocator,
        used: Vec<(*mut u8, Layout, u8)>,
    }

    impl Blocks {
        fn take(&mut self, layout: Layout, with: u8) {
            // SAFETY: no layout of these tests is empty.
            let block = unsafe { self.allocator.alloc(layout) };
            assert!(!block.is_null() && block.addr().is_multiple_of(layout.align()));
            // SAFETY: it was just given.
            unsafe { block.write_bytes(with, layout.size()) };
            self.used.push((block, layout, with));
        }

        fn check(block: *mut u8, size: usize, with: u8) {
            // SAFETY: it is in use, and was filled.
            let bytes = unsafe { std::slice::from_raw_parts(block, size) };
            assert!(bytes.iter().all(|byte| *byte == with), "a block was written over");
        }

        fn give_back(&mut self, at: usize) {
            let (block, layout, with) = self.used.swap_remove(at);
            Self::check(block, layout.size(), with);
            // SAFETY: it is given back once.
            unsafe { self.allocator.dealloc(block, layout) };
        }

        fn resize(&mut self, at: usize, size: usize) {
            let (block, before, with) = self.used[at];
            // SAFETY: it is in use.
            let moved = unsafe { self.allocator.realloc(block, before, size) };
            Self::check(moved, before.size().min(size), with);
            // SAFETY: it was just given.
            unsafe { moved.write_bytes(with, size) };
            self.used[at] = (moved, layout(size, before.align()), with);
        }
    }

    #[test]
    fn blocks_of_all_sizes_never_overlap_and_keep_what_is_in_them() {
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
    fn a_block_that_was_given_back_comes_again() {
        let allocator = Allocator::new();
        // SAFETY: nothing is used after it is given back.
        unsafe {
            let first = allocator.alloc(layout(40, 8));
            allocator.dealloc(first, layout(40, 8));
            assert_eq!(allocator.alloc(layout(33, 1)), first);
            assert_eq!(allocator.realloc(first, layout(33, 1), 48), first);
            assert_ne!(allocator.realloc(first, layout(48, 1), 49), first);
        }
    }
}
