import CMnl
import Glibc
import Pipeline
import PipelineRuntime

/// Hears from the kernel (rtnetlink(7), RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR) when addresses come and go. An IPv6 address
/// is told of again when duplicate address detection is over.
///
/// It says which addresses something happened to, and no more: whether one can be bound is the kernel's to answer, and
/// depends on more than the list of addresses (`ip_nonlocal_bind`, local routes, an address on two links).
///
/// Threading: the control thread. Ownership: closes its socket.
final class AddressMonitor {
    private let socket: OpaquePointer
    let descriptor: Descriptor
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: 32768, alignment: 8)

    /// Nil if there is no netlink for us (a container that forbids it): then retries alone find addresses.
    init?() {
        guard let socket = mnl_socket_open2(NETLINK_ROUTE, Int32(SOCK_NONBLOCK.rawValue | SOCK_CLOEXEC.rawValue)) else {
            return nil
        }
        guard mnl_socket_bind(socket, UInt32(RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR), 0) == 0 else {
            mnl_socket_close(socket)
            return nil
        }
        self.socket = socket
        descriptor = Descriptor(mnl_socket_get_fd(socket))
    }

    deinit {
        mnl_socket_close(socket)
        buffer.deallocate()
    }

    enum News: Equatable {
        case nothing
        case addresses(Set<IPAddress>)
        /// The kernel had more to say than the socket could hold (ENOBUFS): any address may be concerned.
        case anything

        mutating func add(_ more: News) {
            switch (self, more) {
            case (_, .nothing): break
            case (.addresses(let known), .addresses(let new)): self = .addresses(known.union(new))
            case (.anything, _): break
            default: self = more
            }
        }
    }

    /// All that has come since the last call.
    func take() -> News {
        var news = Set<IPAddress>()
        while true {
            let count = mnl_socket_recvfrom(socket, buffer.baseAddress, buffer.count)
            if count < 0 {
                switch errno {
                case EINTR: continue
                case EAGAIN: return news.isEmpty ? .nothing : .addresses(news)
                default:
                    // ENOBUFS, or a message that was cut: what is left is drained by whoever asks next.
                    return .anything
                }
            }
            guard count > 0 else { return news.isEmpty ? .nothing : .addresses(news) }
            AddressMonitor.read(UnsafeRawBufferPointer(rebasing: buffer[..<count]), into: &news)
        }
    }

    /// The addresses that a batch of messages is about. Anything that isn't whole is passed over.
    static func read(_ bytes: UnsafeRawBufferPointer, into news: inout Set<IPAddress>) {
        guard let base = bytes.baseAddress else { return }
        var left = Int32(clamping: bytes.count)
        var message: UnsafePointer<nlmsghdr> = base.assumingMemoryBound(to: nlmsghdr.self)
        // libmnl compares lengths as signed numbers: one of 2 GiB and more would pass.
        while mnl_nlmsg_ok(message, left), Int64(message.pointee.nlmsg_len) <= Int64(left) {
            if message.pointee.nlmsg_type == UInt16(RTM_NEWADDR) || message.pointee.nlmsg_type == UInt16(RTM_DELADDR) {
                readAddress(message, &news)
            }
            guard let next = mnl_nlmsg_next(message, &left) else { return }
            message = UnsafePointer(next)
        }
    }

    /// IFA_LOCAL is the address itself (IPv6 has it on point-to-point links alone); on a point-to-point link IFA_ADDRESS is the other end's.
    private static func readAddress(_ message: UnsafePointer<nlmsghdr>, _ news: inout Set<IPAddress>) {
        let header = MemoryLayout<ifaddrmsg>.size
        guard mnl_nlmsg_get_payload_len(message) >= header, let payload = mnl_nlmsg_get_payload(message),
            let size = length(ofFamily: payload.assumingMemoryBound(to: ifaddrmsg.self).pointee.ifa_family),
            let first = mnl_nlmsg_get_payload_offset(message, header), let tail = mnl_nlmsg_get_payload_tail(message)
        else { return }
        var attribute = first.assumingMemoryBound(to: nlattr.self)
        while mnl_attr_ok(attribute, Int32(clamping: tail - UnsafeMutableRawPointer(attribute))) {
            let type = Int(mnl_attr_get_type(attribute))
            if type == IFA_LOCAL || type == IFA_ADDRESS,
                Int(mnl_attr_get_payload_len(attribute)) == size, let bytes = mnl_attr_get_payload(attribute)
            {
                news.insert(address(UnsafeRawBufferPointer(start: bytes, count: size)))
            }
            guard let next = mnl_attr_next(attribute) else { return }
            attribute = next
        }
    }

    private static func length(ofFamily family: UInt8) -> Int? {
        switch Int32(family) {
        case AF_INET: 4
        case AF_INET6: 16
        default: nil
        }
    }

    /// - Parameter bytes: four or sixteen, in network order.
    private static func address(_ bytes: UnsafeRawBufferPointer) -> IPAddress {
        let word = { (range: Range<Int>) in bytes[range].reduce(UInt64(0)) { $0 << 8 | UInt64($1) } }
        if bytes.count == 4 { return IPAddress(v4: UInt32(truncatingIfNeeded: word(0..<4))) }
        return IPAddress(high: word(0..<8), low: word(8..<16))
    }
}
