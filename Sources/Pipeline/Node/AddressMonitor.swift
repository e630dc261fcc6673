import CMnl
import Glibc
import Pipeline
import PipelineHost
import PipelineNetlink
import PipelineRuntime

/// Reports changes of addresses and of interfaces from the kernel (rtnetlink(7), RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR,
/// RTMGRP_LINK). An IPv6 address is reported again when duplicate address detection is over.
///
/// It reports which addresses changed, whether an interface did, and no more: only the kernel knows whether one can be bound, which depends on
/// more than the list of addresses (`ip_nonlocal_bind`, local routes, an address on two links).
///
/// Threading: the control thread.
final class AddressMonitor {
    private let socket: NetlinkSocket
    var descriptor: Descriptor { Descriptor(socket.descriptor) }

    /// Nil without netlink (forbidden in some containers): then only polling finds addresses.
    init?() {
        let groups = UInt32(RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR | RTMGRP_LINK)
        guard let socket = NetlinkSocket.open(NETLINK_ROUTE, groups: groups).socket else { return nil }
        self.socket = socket
    }

    struct News: Equatable {
        var addresses: Set<IPAddress> = []
        /// An interface came, went or changed.
        var hasLinks = false
        /// The socket overflowed (ENOBUFS): any address and any interface may have changed.
        var isAnything = false

        static let nothing = News()

        mutating func add(_ more: News) {
            addresses.formUnion(more.addresses)
            hasLinks = hasLinks || more.hasLinks
            isAnything = isAnything || more.isAnything
        }
    }

    /// All that has come since the last call.
    func take() -> News {
        var news = News.nothing
        while true {
            switch socket.receive() {
            case .messages(let bytes):
                AddressMonitor.read(bytes, into: &news.addresses)
                if AddressMonitor.hasLink(bytes) { news.hasLinks = true }
            case .nothing: return news
            // The next call reads the rest.
            case .failed:
                news.isAnything = true
                return news
            }
        }
    }

    /// Whether a batch of messages says something of an interface.
    static func hasLink(_ bytes: UnsafeRawBufferPointer) -> Bool {
        var found = false
        Netlink.messages(bytes) { message in
            let type = message.pointee.nlmsg_type
            found = found || type == UInt16(RTM_NEWLINK) || type == UInt16(RTM_DELLINK)
            return !found
        }
        return found
    }

    /// The addresses in a batch of messages. Incomplete messages are skipped.
    static func read(_ bytes: UnsafeRawBufferPointer, into news: inout Set<IPAddress>) {
        Netlink.messages(bytes) { message in
            if message.pointee.nlmsg_type == UInt16(RTM_NEWADDR) || message.pointee.nlmsg_type == UInt16(RTM_DELADDR) {
                readAddress(message, &news)
            }
            return true
        }
    }

    /// IFA_LOCAL is the address itself (IPv6 has it on point-to-point links alone); on a point-to-point link IFA_ADDRESS is the other end's.
    private static func readAddress(_ message: UnsafePointer<nlmsghdr>, _ news: inout Set<IPAddress>) {
        let header = MemoryLayout<ifaddrmsg>.size
        let payload = Netlink.payload(message)
        // Its first byte is the family.
        guard payload.count >= header, let size = length(ofFamily: payload[0]) else { return }
        Netlink.attributes(message, header: header) { type, value in
            guard type == IFA_LOCAL || type == IFA_ADDRESS, value.count == size else { return }
            news.insert(address(value))
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
