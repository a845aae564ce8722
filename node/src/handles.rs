//! File handles of the process: every connection takes one, and shells often allow 1,024 where the system allows more.

/// Handles beside those of the gateway's connections: files of the store, sockets of the nodes, the runtime's own.
const OTHERS: u64 = 512;

/// Raises what the process may open as far as its system lets it, and says so when that is too little for `connections`.
///
/// The limit belongs to the process: a program that has set its own and needs less gets no less.
pub(crate) fn make_room_for(connections: u64) {
    let needed = needed_for(connections);
    let allowed = match raise(needed) {
        Ok(allowed) => allowed,
        Err(error) => {
            tracing::warn!(%error, "the limit of open files cannot be read");
            return;
        }
    };
    if allowed < needed {
        tracing::warn!(
            "this process may open {allowed} files, and http.max-connections, http.max-sockets and {OTHERS} for the rest are \
             {needed}: raise the hard limit (`ulimit -Hn`, `LimitNOFILE=`), or lower the settings"
        );
    }
}

/// Handles that a node with so many connections may need.
pub(crate) fn needed_for(connections: u64) -> u64 {
    connections.saturating_add(OTHERS)
}

/// How many handles the process may open now, and how many it may allow itself.
///
/// # Errors
/// What the system says.
pub(crate) fn limits() -> std::io::Result<(u64, u64)> {
    let limit = limit()?;
    Ok((limit.rlim_cur, limit.rlim_max))
}

#[expect(unsafe_code, reason = "limits have no safe interface in the standard library")]
fn limit() -> std::io::Result<libc::rlimit> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the kernel writes one `rlimit` to the place it is given, which is ours and of that type.
    match unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) } {
        0 => Ok(limit),
        _ => Err(std::io::Error::last_os_error()),
    }
}

/// How many it may open now.
#[expect(unsafe_code, reason = "limits have no safe interface in the standard library")]
fn raise(needed: u64) -> std::io::Result<u64> {
    let mut limit = limit()?;
    if limit.rlim_cur >= needed || limit.rlim_cur >= limit.rlim_max {
        return Ok(limit.rlim_cur);
    }
    let before = limit.rlim_cur;
    limit.rlim_cur = needed.min(limit.rlim_max);
    // SAFETY: the kernel reads one `rlimit`. It lowers nothing, so no handle of another part of the program is cut off.
    match unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) } {
        0 => Ok(limit.rlim_cur),
        _ => Ok(before),
    }
}
