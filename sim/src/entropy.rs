//! Randomness of a thread that simulates: libc's `getrandom` (the function, and the system call by its number) answers
//! from a seed instead of from the kernel.
//!
//! `HashMap`'s keys, tokio's scheduler, `rand`, ring and quinn all draw from there, so this one seam makes them
//! repeatable. Threads that were never seeded keep the kernel's randomness.
//!
//! Invariant: nothing is replaced for a thread that did not call [`seed`].
//! Only on Linux; elsewhere [`seed`] says that it cannot help.

use std::cell::Cell;

thread_local! {
    /// State of the generator of this thread; `None`: ask the kernel. `const` and without a destructor: it can be
    /// read at any moment of a thread's life, and reading it draws nothing.
    static STATE: Cell<Option<u64>> = const { Cell::new(None) };
}

/// From now on this thread draws from the seed. Returns whether it really does: `false` where the system's source
/// cannot be replaced, or where something else has replaced it.
#[must_use]
pub fn seed(seed: u64) -> bool {
    STATE.set(Some(seed));
    let first = draw();
    STATE.set(Some(seed));
    let again = draw();
    STATE.set(Some(seed));
    first.is_some() && first == again
}

/// Gives this thread the kernel's randomness back.
pub fn unseed() {
    STATE.set(None);
}

/// What a library that asks the system for randomness gets.
#[cfg(target_os = "linux")]
fn draw() -> Option<[u8; 16]> {
    let mut bytes = [0u8; 16];
    #[expect(unsafe_code, reason = "asks the C library, as everybody else does")]
    // SAFETY: the pointer and the length are those of a live buffer.
    let got = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
    (got == 16).then_some(bytes)
}

#[cfg(not(target_os = "linux"))]
fn draw() -> Option<[u8; 16]> {
    None
}

/// SplitMix64: any state is a good one, and every call moves it on.
#[cfg(target_os = "linux")]
fn next() -> Option<u64> {
    let state = STATE.get()?.wrapping_add(0x9e37_79b9_7f4a_7c15);
    STATE.set(Some(state));
    let z = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Some(z ^ (z >> 31))
}

#[cfg(target_os = "linux")]
mod replaced {
    #![expect(unsafe_code, reason = "defines three symbols of the C library")]

    use std::ffi::{c_int, c_long, c_uint, c_void};
    use std::sync::atomic::{AtomicPtr, Ordering};

    /// The C library's `syscall`, all of whose arguments are words.
    type Syscall = unsafe extern "C" fn(c_long, c_long, c_long, c_long, c_long, c_long, c_long) -> c_long;

    /// Where the C library's own `syscall` is, once it was looked up.
    static REAL: AtomicPtr<c_void> = AtomicPtr::new(std::ptr::null_mut());

    fn real_syscall() -> Syscall {
        let mut found = REAL.load(Ordering::Relaxed);
        if found.is_null() {
            // SAFETY: a name that ends in zero; the result is checked below.
            found = unsafe { libc::dlsym(libc::RTLD_NEXT, c"syscall".as_ptr()) };
            REAL.store(found, Ordering::Relaxed);
        }
        if found.is_null() {
            // Nothing works without it, not even a message.
            std::process::abort();
        }
        // SAFETY: the symbol of this name in the C library is this function; on every Linux, words are passed to it as
        // to any other function.
        unsafe { std::mem::transmute::<*mut c_void, Syscall>(found) }
    }

    /// Fills the buffer from the seed; `false`: this thread has none.
    ///
    /// # Safety
    /// There must be `len` writable bytes.
    unsafe fn fill(buffer: *mut c_void, len: usize) -> bool {
        let mut done = 0;
        while done < len {
            let Some(word) = super::next() else { return false };
            let part = (len - done).min(8);
            // SAFETY: `done + part <= len`, and the caller gave `len` writable bytes.
            unsafe {
                std::ptr::copy_nonoverlapping(
                    word.to_le_bytes().as_ptr(),
                    buffer.cast::<u8>().add(done),
                    part,
                );
            }
            done += part;
        }
        // Nothing was asked for: the kernel says so as well.
        len > 0
    }

    /// Stands in for libc's function of this name, in every program that links this crate.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn getrandom(buffer: *mut c_void, len: usize, flags: c_uint) -> isize {
        // SAFETY: the caller's buffer, handed on as it came.
        unsafe {
            syscall(
                libc::SYS_getrandom,
                buffer as c_long,
                len as c_long,
                c_long::from(flags),
                0,
                0,
                0,
            ) as isize
        }
    }

    /// As above.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn getentropy(buffer: *mut c_void, len: usize) -> c_int {
        // SAFETY: the caller's buffer, handed on as it came.
        let got = unsafe { getrandom(buffer, len, 0) };
        if usize::try_from(got) == Ok(len) { 0 } else { -1 }
    }

    /// As above: some libraries ask for randomness by the call's number. Every other call goes where it should.
    #[unsafe(no_mangle)]
    unsafe extern "C" fn syscall(
        number: c_long,
        a: c_long,
        b: c_long,
        c: c_long,
        d: c_long,
        e: c_long,
        f: c_long,
    ) -> c_long {
        // SAFETY: for this call the kernel's contract is a buffer of that length.
        if number == libc::SYS_getrandom && unsafe { fill(a as *mut c_void, b as usize) } {
            return b;
        }
        // SAFETY: handed on as it came.
        unsafe { real_syscall()(number, a, b, c, d, e, f) }
    }
}

#[cfg(all(test, target_os = "linux"))]
mod tests {
    use std::collections::hash_map::RandomState;
    use std::hash::BuildHasher as _;

    use rand::Rng as _;

    /// What the libraries under a node draw, on a thread of its own.
    #[expect(
        clippy::disallowed_methods,
        reason = "threads, and what they draw, are what is tested"
    )]
    fn drawn(with: Option<u64>) -> (u64, [u8; 32]) {
        std::thread::spawn(move || {
            if let Some(seed) = with {
                assert!(super::seed(seed), "the system's randomness is not replaced");
            }
            #[expect(
                clippy::disallowed_methods,
                reason = "what is tested is that even this repeats"
            )]
            let random = rand::rng().random();
            (RandomState::new().hash_one(7), random)
        })
        .join()
        .expect("it does not panic")
    }

    #[test]
    fn a_seeded_thread_draws_the_same_again_and_others_do_not() {
        assert_eq!(drawn(Some(1)), drawn(Some(1)));
        assert_ne!(drawn(Some(1)), drawn(Some(2)));
        assert_ne!(drawn(None), drawn(None));
    }
}
