//! Named places in the product where a simulation can do something, and named bugs it can put in.
//!
//! Invariant: without the features `failpoints` and `planted`, and in every build without debug assertions whatever its
//! features, [`fp!`](crate::fp) is nothing and [`planted!`](crate::planted) is `false`. A hook belongs to the thread that
//! set it: nodes on other threads never see it.
//! Not here: what happens at a place (the simulation decides).

/// Marks a place: `fp!("log.after_append")`. A simulation may end the node right there.
#[cfg(all(feature = "failpoints", debug_assertions))]
#[macro_export]
macro_rules! fp {
    ($name:literal) => {
        $crate::probe::hit($name)
    };
}

/// Marks a place: `fp!("log.after_append")`. A simulation may end the node right there.
#[cfg(not(all(feature = "failpoints", debug_assertions)))]
#[macro_export]
macro_rules! fp {
    ($name:literal) => {};
}

/// Whether this bug is in the program: `if planted!("stale-read") { .. }`. Only ever true to measure the tests.
#[cfg(all(feature = "planted", debug_assertions))]
#[macro_export]
macro_rules! planted {
    ($name:literal) => {
        $crate::probe::is_planted($name)
    };
}

/// Whether this bug is in the program: `if planted!("stale-read") { .. }`. Only ever true to measure the tests.
#[cfg(not(all(feature = "planted", debug_assertions)))]
#[macro_export]
macro_rules! planted {
    ($name:literal) => {
        false
    };
}

#[cfg(feature = "failpoints")]
mod failpoints {
    use std::cell::RefCell;
    use std::rc::Rc;

    type Hook = Rc<dyn Fn(&'static str)>;

    thread_local! {
        static HOOK: RefCell<Option<Hook>> = const { RefCell::new(None) };
    }

    /// From now on, `hook` is told each place this thread comes by; `None`: nobody is.
    pub fn watch(hook: Option<Rc<dyn Fn(&'static str)>>) {
        HOOK.set(hook);
    }

    /// This thread has come by a place.
    pub fn hit(name: &'static str) {
        // Taken out of the cell first: what the hook does may come by another place.
        let hook = HOOK.with_borrow(Clone::clone);
        if let Some(hook) = hook {
            hook(name);
        }
    }
}

#[cfg(feature = "failpoints")]
pub use failpoints::{hit, watch};

#[cfg(feature = "planted")]
mod bugs {
    use std::cell::RefCell;
    use std::sync::OnceLock;

    /// The bug in every thread of this process and of those it starts: not a `CLINCH_` variable, which are settings of one
    /// node and are kept from others.
    const VARIABLE: &str = "PLANTED_BUG";
    static EVERYWHERE: OnceLock<Option<String>> = OnceLock::new();

    thread_local! {
        static BUG: RefCell<Option<String>> = const { RefCell::new(None) };
    }

    /// Puts one bug into everything this thread runs; `None` takes it out.
    pub fn plant(name: Option<&str>) {
        BUG.set(name.map(str::to_owned));
    }

    /// Whether this bug is in: planted in this thread, or named by the process's environment.
    pub fn is_planted(name: &str) -> bool {
        BUG.with_borrow(|bug| bug.as_deref() == Some(name))
            || EVERYWHERE.get_or_init(|| std::env::var(VARIABLE).ok()).as_deref() == Some(name)
    }
}

#[cfg(feature = "planted")]
pub use bugs::{is_planted, plant};
