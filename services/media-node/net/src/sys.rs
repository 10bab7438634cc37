//! The system calls of this crate behind safe functions. All `unsafe` is here.
//! Packet path: no allocation.

use std::ffi::{c_int, c_void};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use crate::address::RawAddress;

/// Messages of one `sendmmsg` or `recvmmsg`. Measured: no gain beyond 32 to 64.
pub(crate) const MESSAGES_MAX: usize = 65;

/// Room for the two control messages that we ask for, or the one that we send.
#[derive(Clone, Copy)]
#[repr(C, align(8))]
struct Control([u8; 64]);

impl Control {
    const EMPTY: Self = Self([0; 64]);
}

fn check(result: c_int) -> io::Result<c_int> {
    if result < 0 { Err(io::Error::last_os_error()) } else { Ok(result) }
}

/// Sets an integer socket option.
pub(crate) fn set_option(
    socket: BorrowedFd<'_>,
    level: c_int,
    name: c_int,
    value: c_int,
) -> io::Result<()> {
    // SAFETY: the pointer and the length describe `value`, which lives through the call.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
            name,
            (&raw const value).cast::<c_void>(),
            size_of::<c_int>() as libc::socklen_t,
        )
    };
    check(result).map(drop)
}

/// One message to send: the bytes of one datagram, or of several of `segment` bytes
/// each (the last may be shorter) if `segment` is not 0.
pub(crate) struct Outgoing<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) address: &'a RawAddress,
    pub(crate) segment: u16,
}

/// `sendmmsg` of at most [`MESSAGES_MAX`] messages. Returns how many were taken; an
/// error is that of the first.
pub(crate) fn send_messages<'a>(
    socket: BorrowedFd<'_>,
    messages: impl Iterator<Item = Outgoing<'a>>,
) -> io::Result<usize> {
    // SAFETY: both are C structs of integers and pointers, for which zeros are valid.
    let mut headers: [libc::mmsghdr; MESSAGES_MAX] = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut vectors: [libc::iovec; MESSAGES_MAX] = unsafe { std::mem::zeroed() };
    let mut controls = [Control::EMPTY; MESSAGES_MAX];
    let slots = headers.iter_mut().zip(&mut vectors).zip(&mut controls);
    let mut count = 0;
    for (message, ((header, vector), control)) in messages.zip(slots) {
        vector.iov_base = message.bytes.as_ptr().cast_mut().cast();
        vector.iov_len = message.bytes.len();
        let header = &mut header.msg_hdr;
        header.msg_iov = vector;
        header.msg_iovlen = 1;
        header.msg_name = message.address.as_ptr().cast_mut().cast();
        header.msg_namelen = message.address.len();
        if message.segment != 0 {
            header.msg_control = control.0.as_mut_ptr().cast();
            header.msg_controllen = segment_control(control, message.segment) as _;
        }
        count += 1;
    }
    // SAFETY: the first `count` headers point to vectors, controls and addresses that
    // live through the call; the kernel only reads what the vectors and names point to.
    let sent = unsafe {
        libc::sendmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            count,
            libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL,
        )
    };
    check(sent).map(|sent| sent as usize)
}

/// Writes a `UDP_SEGMENT` control message and returns its length.
fn segment_control(control: &mut Control, segment: u16) -> usize {
    let header = libc::cmsghdr {
        // SAFETY: CMSG_LEN only computes.
        cmsg_len: unsafe { libc::CMSG_LEN(size_of::<u16>() as u32) } as _,
        cmsg_level: libc::SOL_UDP,
        cmsg_type: libc::UDP_SEGMENT,
    };
    // SAFETY: the buffer is aligned for a `cmsghdr` (8 bytes) and longer than one.
    unsafe { control.0.as_mut_ptr().cast::<libc::cmsghdr>().write(header) };
    let data = size_of::<libc::cmsghdr>();
    control.0[data..data + 2].copy_from_slice(&segment.to_ne_bytes());
    // SAFETY: CMSG_SPACE only computes.
    unsafe { libc::CMSG_SPACE(size_of::<u16>() as u32) as usize }
}

/// One received message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Incoming {
    /// Bytes in its buffer.
    pub(crate) len: usize,
    pub(crate) address: RawAddress,
    /// Length of each datagram but the last; 0 if there is only one.
    pub(crate) segment: usize,
    /// It did not fit its buffer.
    pub(crate) truncated: bool,
    /// Datagrams that the socket dropped since it was made, if it dropped any.
    pub(crate) dropped: Option<u32>,
}

impl Incoming {
    pub(crate) const EMPTY: Self =
        Self { len: 0, address: RawAddress::EMPTY, segment: 0, truncated: false, dropped: None };
}

/// `recvmmsg` into buffers of `buffer_len` bytes each, laid out one after the other.
/// Returns how many messages came; at most [`MESSAGES_MAX`] and one for each buffer
/// and each entry of `incoming`.
pub(crate) fn receive_messages(
    socket: BorrowedFd<'_>,
    buffers: &mut [u8],
    buffer_len: usize,
    incoming: &mut [Incoming],
) -> io::Result<usize> {
    // SAFETY: both are C structs of integers and pointers, for which zeros are valid.
    let mut headers: [libc::mmsghdr; MESSAGES_MAX] = unsafe { std::mem::zeroed() };
    // SAFETY: as above.
    let mut vectors: [libc::iovec; MESSAGES_MAX] = unsafe { std::mem::zeroed() };
    let mut controls = [Control::EMPTY; MESSAGES_MAX];
    let buffers = buffers.chunks_exact_mut(buffer_len);
    let slots = headers.iter_mut().zip(&mut vectors).zip(&mut controls);
    let mut count = 0;
    for ((buffer, entry), ((header, vector), control)) in
        buffers.zip(incoming.iter_mut()).zip(slots)
    {
        entry.address = RawAddress::EMPTY;
        vector.iov_base = buffer.as_mut_ptr().cast();
        vector.iov_len = buffer.len();
        let header = &mut header.msg_hdr;
        header.msg_iov = vector;
        header.msg_iovlen = 1;
        header.msg_name = entry.address.as_mut_ptr().cast();
        header.msg_namelen = entry.address.len();
        header.msg_control = control.0.as_mut_ptr().cast();
        header.msg_controllen = control.0.len() as _;
        count += 1;
    }
    // SAFETY: the first `count` headers point to distinct buffers, names and controls
    // of the stated lengths that are exclusively ours and live through the call.
    let received = unsafe {
        libc::recvmmsg(
            socket.as_raw_fd(),
            headers.as_mut_ptr(),
            count,
            libc::MSG_DONTWAIT,
            std::ptr::null_mut(),
        )
    };
    let received = check(received)? as usize;
    for (header, entry) in headers.iter().zip(incoming.iter_mut()).take(received) {
        entry.len = (header.msg_len as usize).min(buffer_len);
        entry.truncated = header.msg_hdr.msg_flags & (libc::MSG_TRUNC | libc::MSG_CTRUNC) != 0;
        (entry.segment, entry.dropped) = read_controls(&header.msg_hdr);
    }
    Ok(received)
}

/// Segment length (0 if none) and drop count of a received header.
fn read_controls(header: &libc::msghdr) -> (usize, Option<u32>) {
    let mut segment = 0;
    let mut dropped = None;
    // SAFETY: the kernel filled `msg_control` up to `msg_controllen`, both still
    // describing the live control buffer of this header.
    let mut next = unsafe { libc::CMSG_FIRSTHDR(header) };
    while !next.is_null() {
        // SAFETY: CMSG_FIRSTHDR and CMSG_NXTHDR give null or a whole, aligned header.
        let control = unsafe { &*next };
        // SAFETY: the data of a message lies behind its header within the buffer.
        let data = unsafe { libc::CMSG_DATA(next) };
        match (control.cmsg_level, control.cmsg_type) {
            (libc::SOL_UDP, libc::UDP_GRO) => {
                // SAFETY: the kernel puts an int there (udp_cmsg_recv); it may be unaligned.
                let value = unsafe { data.cast::<c_int>().read_unaligned() };
                segment = usize::try_from(value).unwrap_or(0);
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                // SAFETY: the kernel puts a u32 there (sock_recv_drops); it may be unaligned.
                dropped = Some(unsafe { data.cast::<u32>().read_unaligned() });
            }
            _ => {}
        }
        // SAFETY: `next` belongs to this header's live control buffer.
        next = unsafe { libc::CMSG_NXTHDR(header, next) };
    }
    (segment, dropped)
}

/// `epoll_create1`.
pub(crate) fn epoll_create() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::epoll_create1(libc::EPOLL_CLOEXEC) })?;
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// `epoll_ctl`.
pub(crate) fn epoll_control(
    epoll: BorrowedFd<'_>,
    operation: c_int,
    target: BorrowedFd<'_>,
    events: u32,
    token: u64,
) -> io::Result<()> {
    let mut event = libc::epoll_event { events, u64: token };
    // SAFETY: the pointer is to a live event, which the kernel only reads.
    let result = unsafe {
        libc::epoll_ctl(epoll.as_raw_fd(), operation, target.as_raw_fd(), &raw mut event)
    };
    check(result).map(drop)
}

/// A `__kernel_timespec`: 64 bits on every architecture.
#[repr(C)]
struct KernelTimespec {
    seconds: i64,
    nanoseconds: i64,
}

/// `epoll_pwait2`, which counts in nanoseconds (Linux 5.11; called by number, because C
/// libraries have it only since 2021). `None` waits for ever.
pub(crate) fn epoll_wait(
    epoll: BorrowedFd<'_>,
    events: &mut [libc::epoll_event],
    timeout: Option<Duration>,
) -> io::Result<usize> {
    let spec = timeout.map(|timeout| KernelTimespec {
        seconds: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
        nanoseconds: timeout.subsec_nanos().into(),
    });
    let spec_ptr: *const KernelTimespec =
        spec.as_ref().map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: the events are a live, exclusive slice of the stated length; the timeout
    // is null or a live timespec; a null signal mask leaves the mask as it is.
    let ready = unsafe {
        libc::syscall(
            libc::SYS_epoll_pwait2,
            epoll.as_raw_fd(),
            events.as_mut_ptr(),
            c_int::try_from(events.len()).unwrap_or(c_int::MAX),
            spec_ptr,
            std::ptr::null::<libc::sigset_t>(),
            0_usize,
        )
    };
    match check(ready as c_int) {
        Err(error) if error.raw_os_error() == Some(libc::ENOSYS) => {
            epoll_wait_milliseconds(epoll, events, timeout)
        }
        result => result.map(|ready| ready as usize),
    }
}

/// `epoll_wait` for kernels before 5.11: rounds up to milliseconds.
fn epoll_wait_milliseconds(
    epoll: BorrowedFd<'_>,
    events: &mut [libc::epoll_event],
    timeout: Option<Duration>,
) -> io::Result<usize> {
    let milliseconds = timeout.map_or(-1, |timeout| {
        c_int::try_from(timeout.as_nanos().div_ceil(1_000_000)).unwrap_or(c_int::MAX)
    });
    // SAFETY: the events are a live, exclusive slice of the stated length.
    let ready = unsafe {
        libc::epoll_wait(
            epoll.as_raw_fd(),
            events.as_mut_ptr(),
            c_int::try_from(events.len()).unwrap_or(c_int::MAX),
            milliseconds,
        )
    };
    check(ready).map(|ready| ready as usize)
}

/// A non-blocking `eventfd` that counts from 0.
pub(crate) fn event_create() -> io::Result<OwnedFd> {
    // SAFETY: takes no pointers.
    let fd = check(unsafe { libc::eventfd(0, libc::EFD_CLOEXEC | libc::EFD_NONBLOCK) })?;
    // SAFETY: the kernel just gave us this descriptor and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Adds one to an `eventfd`.
pub(crate) fn event_signal(event: BorrowedFd<'_>) {
    let one = 1_u64;
    // SAFETY: the pointer and the length describe `one`. A failure is only possible
    // when the counter is full, and then the waiter will wake anyway.
    let _ = unsafe { libc::write(event.as_raw_fd(), (&raw const one).cast(), size_of::<u64>()) };
}

/// Sets an `eventfd` back to 0.
pub(crate) fn event_clear(event: BorrowedFd<'_>) {
    let mut count = 0_u64;
    // SAFETY: the pointer and the length describe `count`. A failure means it was 0.
    let _ = unsafe { libc::read(event.as_raw_fd(), (&raw mut count).cast(), size_of::<u64>()) };
}

/// The processors that the calling thread may run on.
pub(crate) fn affinity() -> io::Result<libc::cpu_set_t> {
    // SAFETY: a set of bits, for which zeros are valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: the pointer and the length describe `set`; 0 is the calling thread.
    check(unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) })?;
    Ok(set)
}

/// Whether a set has a processor. `core` is below `CPU_SETSIZE`.
pub(crate) fn set_has(set: &libc::cpu_set_t, core: usize) -> bool {
    // SAFETY: reads a bit of a live set; the function checks the index.
    unsafe { libc::CPU_ISSET(core, set) }
}

/// Binds the calling thread to one processor. `core` is below `CPU_SETSIZE`.
pub(crate) fn set_affinity(core: usize) -> io::Result<()> {
    // SAFETY: a set of bits, for which zeros are valid.
    let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
    // SAFETY: sets a bit of a live set; the function checks the index.
    unsafe { libc::CPU_SET(core, &mut set) };
    // SAFETY: the pointer and the length describe `set`; 0 is the calling thread.
    let result =
        unsafe { libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set) };
    check(result).map(drop)
}

/// Reads the processor time of the calling thread.
pub(crate) fn thread_cpu_time() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a live timespec. The clock exists on every Linux, so a
    // failure is impossible; it would leave the time at 0.
    let _ = unsafe { libc::clock_gettime(libc::CLOCK_THREAD_CPUTIME_ID, &raw mut time) };
    Duration::new(time.tv_sec.unsigned_abs(), time.tv_nsec.unsigned_abs() as u32)
}
