//! What a shard's thread asks of the kernel: its processor and its processor time.

use std::io;
use std::time::Duration;

use crate::sys;

/// The processors that the calling thread may run on, in rising order.
///
/// # Errors
/// What `sched_getaffinity` says.
pub fn available_cores() -> io::Result<Vec<usize>> {
    let set = sys::affinity()?;
    Ok((0..libc::CPU_SETSIZE as usize).filter(|core| sys::set_has(&set, *core)).collect())
}

/// Binds the calling thread to one processor.
///
/// # Errors
/// `InvalidInput` if there is no such processor or this process may not use it.
pub fn pin_to_core(core: usize) -> io::Result<()> {
    if core >= libc::CPU_SETSIZE as usize {
        return Err(io::Error::from(io::ErrorKind::InvalidInput));
    }
    sys::set_affinity(core)
}

/// Processor time that the calling thread has used, in user space and in the kernel.
#[must_use]
pub fn cpu_time() -> Duration {
    sys::thread_cpu_time()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pinned_thread_may_run_on_its_core_only() {
        std::thread::spawn(|| {
            let core = *available_cores().unwrap().last().unwrap();
            pin_to_core(core).unwrap();
            assert_eq!(available_cores().unwrap(), [core]);
        })
        .join()
        .unwrap();
    }

    #[test]
    fn a_core_that_does_not_exist_is_refused() {
        assert!(pin_to_core(usize::MAX).is_err());
        assert!(pin_to_core(libc::CPU_SETSIZE as usize - 1).is_err());
    }

    #[test]
    fn processor_time_rises_with_work() {
        let before = cpu_time();
        let mut sum = 0_u64;
        while cpu_time() < before + Duration::from_millis(2) {
            sum = std::hint::black_box(sum.wrapping_add(1));
        }
        assert!(sum > 0 && cpu_time() > before);
    }
}
