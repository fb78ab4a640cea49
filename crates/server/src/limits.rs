//! How many files the kernel lets the process open, which limits how many clients it can have.

/// Open files that are not clients: listeners, the log, what event loops need.
const OTHER_FILES: u64 = 64;

/// Raises the limit of the process to what that many clients need. If that is more than it may
/// have, the error is how many clients are possible.
pub fn allow_clients(clients: u32) -> Result<(), u32> {
    let needed = u64::from(clients) + OTHER_FILES;
    let Some(limit) = limit() else { return Ok(()) };
    let enough = libc::rlimit { rlim_cur: needed, rlim_max: limit.rlim_max.max(needed) };
    let all = libc::rlimit { rlim_cur: limit.rlim_max, ..limit };
    if limit.rlim_cur >= needed || set_limit(&enough) {
        return Ok(());
    }
    let possible = if set_limit(&all) { all.rlim_cur } else { limit.rlim_cur };
    Err(possible.saturating_sub(OTHER_FILES) as u32)
}

fn limit() -> Option<libc::rlimit> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the pointer is to a live value of the type the call fills in.
    let done = unsafe { libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) };
    (done == 0).then_some(limit)
}

fn set_limit(limit: &libc::rlimit) -> bool {
    // SAFETY: the pointer is to a live value of the type the call reads.
    unsafe { libc::setrlimit(libc::RLIMIT_NOFILE, limit) == 0 }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_allowed_is_possible() {
        assert_eq!(allow_clients(1), Ok(()));
        let possible = match allow_clients(u32::MAX) {
            Ok(()) => u32::MAX,
            Err(possible) => possible,
        };
        assert_eq!(allow_clients(possible), Ok(()));
        assert!(limit().is_none_or(|limit| limit.rlim_cur >= u64::from(possible)));
    }
}
