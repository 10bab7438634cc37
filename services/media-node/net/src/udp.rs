//! A UDP socket of a shard, with the options that the packet path wants.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};

use socket2::{Domain, Protocol, Socket, Type};

use crate::address::{Family, canonical};
use crate::sys;

/// Wishes for a socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UdpOptions {
    /// Kernel buffer for what was not read yet, in bytes. The kernel gives no more
    /// than `net.core.rmem_max`, unless the process has CAP_NET_ADMIN: see
    /// [`UdpSocket::recv_buffer_bytes`].
    pub recv_buffer_bytes: usize,
    /// Kernel buffer for what was not sent yet, in bytes; as above with `wmem_max`.
    pub send_buffer_bytes: usize,
    /// Let the kernel join datagrams of one sender on receipt (`UDP_GRO`), if it can.
    pub receive_offload: bool,
}

impl Default for UdpOptions {
    /// 8 MiB each: 50 ms at 1.3 Gbit/s.
    fn default() -> Self {
        Self { recv_buffer_bytes: 8 << 20, send_buffer_bytes: 8 << 20, receive_offload: true }
    }
}

/// A bound, non-blocking, unconnected UDP socket. On an IPv6 address it takes IPv4
/// too, if the address is unspecified; IPv4 peers always have plain IPv4 addresses.
#[derive(Debug)]
pub struct UdpSocket {
    socket: Socket,
    local: SocketAddr,
    family: Family,
    receive_offload: bool,
    segmentation_offload: bool,
}

impl UdpSocket {
    /// Binds to an address; port 0 lets the kernel choose. On a machine with several
    /// addresses a socket on the unspecified one answers from the address that the
    /// route has, which may not be the one that a peer wrote to: bind to the address
    /// that is announced.
    ///
    /// # Errors
    /// If the address is taken or not ours. A kernel that lacks an offload is no error.
    pub fn bind(address: SocketAddr, options: &UdpOptions) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        socket.set_nonblocking(true)?;
        let family = Family::of(&address);
        if family == Family::V6 {
            socket.set_only_v6(!address.ip().is_unspecified())?;
        }
        set_buffers(&socket, options);
        set_path_options(&socket, family);
        let receive_offload = options.receive_offload
            && sys::set_option(socket.as_fd(), libc::SOL_UDP, libc::UDP_GRO, 1).is_ok();
        // A segment size of 0 means none; a kernel that knows the option takes it.
        let segmentation_offload =
            sys::set_option(socket.as_fd(), libc::SOL_UDP, libc::UDP_SEGMENT, 0).is_ok();
        let _ = sys::set_option(socket.as_fd(), libc::SOL_SOCKET, libc::SO_RXQ_OVFL, 1);
        socket.bind(&address.into())?;
        let local = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::InvalidInput)?;
        Ok(Self { socket, local, family, receive_offload, segmentation_offload })
    }

    /// Where it is bound.
    #[must_use]
    pub fn local_addr(&self) -> SocketAddr {
        canonical(self.local)
    }

    /// The kernel joins datagrams of one sender on receipt (`UDP_GRO`).
    #[must_use]
    pub fn has_receive_offload(&self) -> bool {
        self.receive_offload
    }

    /// The kernel cuts one send into many datagrams (`UDP_SEGMENT`).
    #[must_use]
    pub fn has_segmentation_offload(&self) -> bool {
        self.segmentation_offload
    }

    /// Size of the kernel's receive buffer, in bytes. The kernel books twice what it
    /// was asked for; this is what it books.
    ///
    /// # Errors
    /// What `getsockopt` says.
    pub fn recv_buffer_bytes(&self) -> io::Result<usize> {
        self.socket.recv_buffer_size()
    }

    /// Size of the kernel's send buffer, in bytes, as above.
    ///
    /// # Errors
    /// What `getsockopt` says.
    pub fn send_buffer_bytes(&self) -> io::Result<usize> {
        self.socket.send_buffer_size()
    }

    pub(crate) fn family(&self) -> Family {
        self.family
    }
}

impl AsFd for UdpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Less than wished is not an error: the reader sees what it got. With the right to do
/// so (CAP_NET_ADMIN) the system's limit is passed over.
fn set_buffers(socket: &Socket, options: &UdpOptions) {
    let wishes = [
        (libc::SO_RCVBUFFORCE, libc::SO_RCVBUF, options.recv_buffer_bytes),
        (libc::SO_SNDBUFFORCE, libc::SO_SNDBUF, options.send_buffer_bytes),
    ];
    for (force, plain, bytes) in wishes {
        let bytes = libc::c_int::try_from(bytes).unwrap_or(libc::c_int::MAX / 2);
        let set = |name| sys::set_option(socket.as_fd(), libc::SOL_SOCKET, name, bytes);
        let _ = set(force).or_else(|_| set(plain));
    }
}

/// Don't fragment and never look up the path's MTU: we send 1,200 bytes anyway, and an
/// unconnected send is 5 to 14 % cheaper so. Not all kernels and families have it.
fn set_path_options(socket: &Socket, family: Family) {
    let fd = socket.as_fd();
    let _ = sys::set_option(fd, libc::IPPROTO_IP, libc::IP_MTU_DISCOVER, libc::IP_PMTUDISC_PROBE);
    if family == Family::V6 {
        let _ = sys::set_option(
            fd,
            libc::IPPROTO_IPV6,
            libc::IPV6_MTU_DISCOVER,
            libc::IPV6_PMTUDISC_PROBE,
        );
    }
}
