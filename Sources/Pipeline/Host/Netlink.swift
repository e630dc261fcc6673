import CMnl
import Glibc

/// What all that speak netlink(7) here have in common: sockets that nobody waits for, and a walk over messages that believes no
/// length in them.
package enum Netlink {
    /// - Parameter groups: a mask, as `bind` takes it.
    /// - Returns: nil, with an errno: there is none for us, or not in these groups. Whoever has it closes it.
    package static func open(_ family: Int32, groups: UInt32 = 0) -> (socket: OpaquePointer?, error: Int32) {
        guard let socket = mnl_socket_open2(family, Int32(SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)) else {
            return (nil, errno)
        }
        guard mnl_socket_bind(socket, groups, 0) == 0 else {
            let error = errno
            mnl_socket_close(socket)
            return (nil, error)
        }
        return (socket, 0)
    }

    /// Each message that is whole, until `body` says that it needs no more; behind one that is not, nothing is read.
    package static func messages(_ bytes: UnsafeRawBufferPointer, _ body: (UnsafePointer<nlmsghdr>) -> Bool) {
        guard let base = bytes.baseAddress else { return }
        var left = Int32(clamping: bytes.count)
        var message: UnsafePointer<nlmsghdr> = base.assumingMemoryBound(to: nlmsghdr.self)
        // libmnl compares lengths as signed numbers: one of 2 GiB and more would pass.
        while mnl_nlmsg_ok(message, left), Int64(message.pointee.nlmsg_len) <= Int64(left) {
            guard body(message), let next = mnl_nlmsg_next(message, &left) else { return }
            message = UnsafePointer(next)
        }
    }

    /// What stands behind a header of `header` bytes: type and value of each attribute that is whole.
    package static func attributes(
        _ message: UnsafePointer<nlmsghdr>, header: Int, _ body: (Int, UnsafeRawBufferPointer) -> Void
    ) {
        guard mnl_nlmsg_get_payload_len(message) >= header, let first = mnl_nlmsg_get_payload_offset(message, header),
            let tail = mnl_nlmsg_get_payload_tail(message)
        else { return }
        var attribute = first.assumingMemoryBound(to: nlattr.self)
        while mnl_attr_ok(attribute, Int32(clamping: tail - UnsafeMutableRawPointer(attribute))) {
            let value = UnsafeRawBufferPointer(
                start: mnl_attr_get_payload(attribute), count: Int(mnl_attr_get_payload_len(attribute)))
            body(Int(mnl_attr_get_type(attribute)), value)
            guard let next = mnl_attr_next(attribute) else { return }
            attribute = next
        }
    }
}
