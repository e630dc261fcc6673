import CMnl
import Glibc

/// A non-blocking netlink(7) socket with its message buffer.
///
/// Threading: one thread at a time, whose network namespace it was when it was opened. Ownership: closes its descriptor.
package final class NetlinkSocket {
    package enum Received {
        /// Until the next call.
        case messages(UnsafeRawBufferPointer)
        case nothing
        /// An errno: ENOBUFS if the socket overflowed, ENOSPC if a message was cut.
        case failed(Int32)
    }

    private let handle: OpaquePointer
    private let room: UnsafeMutableRawBufferPointer
    /// Of the request that was begun last.
    package private(set) var sequence: UInt32 = 0

    private init(_ handle: OpaquePointer, _ bytes: Int) {
        self.handle = handle
        room = .allocate(byteCount: bytes, alignment: 8)
    }

    deinit {
        mnl_socket_close(handle)
        room.deallocate()
    }

    /// - Parameters:
    ///   - groups: a mask, as `bind` takes it.
    ///   - bytes: the longest message.
    /// - Returns: nil, with an errno: there is none for us, or not in these groups.
    package static func open(
        _ family: Int32, groups: UInt32 = 0, bytes: Int = 1 << 16
    ) -> (socket: NetlinkSocket?, error: Int32) {
        guard let handle = mnl_socket_open2(family, Int32(SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)) else {
            return (nil, errno)
        }
        guard mnl_socket_bind(handle, groups, 0) == 0 else {
            let error = errno
            mnl_socket_close(handle)
            return (nil, error)
        }
        return (NetlinkSocket(handle, bytes), 0)
    }

    package var descriptor: Int32 { mnl_socket_get_fd(handle) }

    /// Joins this group as well; false: the kernel refuses.
    package func join(_ group: UInt32) -> Bool {
        var group = group
        return mnl_socket_setsockopt(handle, NETLINK_ADD_MEMBERSHIP, &group, socklen_t(MemoryLayout<UInt32>.size)) == 0
    }

    /// What has come.
    package func receive() -> Received {
        while true {
            let count = mnl_socket_recvfrom(handle, room.baseAddress, room.count)
            if count > 0 { return .messages(UnsafeRawBufferPointer(rebasing: room[..<count])) }
            guard count < 0 else { return .failed(ENODATA) }
            if errno == EINTR { continue }
            return errno == EAGAIN ? .nothing : .failed(errno)
        }
    }

    // MARK: Requests

    /// The next request's messages have this number.
    package func beginRequest() { sequence &+= 1 }

    /// Begins a message of the request, with the family's own header behind its own.
    /// - Parameter offset: what the request has before it.
    /// - Returns: nil if there is no room for the headers; callers check the room for attributes.
    package func message<Header>(
        at offset: Int = 0, _ type: UInt16, _ flags: Int32, _ header: Header
    ) -> UnsafeMutablePointer<nlmsghdr>? {
        guard let base = room.baseAddress, offset + 16 + MemoryLayout<Header>.size + 4 <= room.count,
            let message = mnl_nlmsg_put_header(base + offset),
            let place = mnl_nlmsg_put_extra_header(message, MemoryLayout<Header>.size)
        else { return nil }
        message.pointee.nlmsg_type = type
        message.pointee.nlmsg_flags = UInt16(truncatingIfNeeded: NLM_F_REQUEST | flags)
        message.pointee.nlmsg_seq = sequence
        place.storeBytes(of: header, as: Header.self)
        return message
    }

    /// Sends the request.
    /// - Parameter length: of all its messages.
    /// - Returns: 0, or an errno.
    package func send(_ length: Int) -> Int32 {
        guard length <= room.count else { return EMSGSIZE }
        let sent = mnl_socket_sendto(handle, room.baseAddress, length)
        return sent < 0 ? errno : sent == length ? 0 : EMSGSIZE
    }

    package func hasRoom(_ length: Int) -> Bool { length <= room.count }
}
