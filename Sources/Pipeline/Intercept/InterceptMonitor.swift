import CMnl
import Glibc
import Pipeline
import PipelineHost
import PipelineNetlink
import PipelineRuntime

/// Reports kernel events about interception: the table `inet pipelined` (nfnetlink), routes, routing rules and bridge
/// ports (rtnetlink(7)).
///
/// It only signals that a check is due. Messages about other programs' tables and routes, which may come a thousand
/// times a second, are skipped.
///
/// Threading: the thread that made it.
final class InterceptMonitor {
    private struct Socket {
        let netlink: NetlinkSocket
        let isNetfilter: Bool
    }

    private let sockets: [Socket]
    private let table: UInt32

    /// Fewer sockets if the kernel refuses some (nftables' needs CAP_NET_ADMIN): periodic checks cover the rest.
    /// - Parameter table: the routing table that is ours.
    init(table: UInt32) {
        self.table = table
        let groups = [
            (NETLINK_NETFILTER, [UInt32(NFNLGRP_NFTABLES.rawValue)]),
            (
                NETLINK_ROUTE,
                [RTNLGRP_LINK, RTNLGRP_IPV4_RULE, RTNLGRP_IPV6_RULE, RTNLGRP_IPV4_ROUTE, RTNLGRP_IPV6_ROUTE].map(
                    \.rawValue)
            ),
        ]
        sockets = groups.compactMap { family, groups in
            InterceptMonitor.open(family, groups).map { Socket(netlink: $0, isNetfilter: family == NETLINK_NETFILTER) }
        }
    }

    private static func open(_ family: Int32, _ groups: [UInt32]) -> NetlinkSocket? {
        guard let socket = NetlinkSocket.open(family).socket, groups.allSatisfy(socket.join) else { return nil }
        return socket
    }

    var descriptors: [Descriptor] { sockets.map { Descriptor($0.netlink.descriptor) } }

    /// Reads all pending messages. - Returns: whether a check is due.
    func take() -> Bool {
        var isNews = false
        for socket in sockets where read(socket) { isNews = true }
        return isNews
    }

    private func read(_ socket: Socket) -> Bool {
        var isNews = false
        // Bounded, even if messages come faster than they are read.
        for _ in 0..<4096 {
            switch socket.netlink.receive() {
            case .nothing: return isNews
            // Anything may have happened.
            case .failed: return true
            case .messages(let bytes):
                if InterceptMonitor.isNews(bytes, isNetfilter: socket.isNetfilter, table) { isNews = true }
            }
        }
        return true
    }

    /// Whether any of these messages is about our table, routes or rules. Incomplete messages are skipped.
    static func isNews(_ bytes: UnsafeRawBufferPointer, isNetfilter: Bool, _ table: UInt32) -> Bool {
        var isNews = false
        Netlink.messages(bytes) { message in
            isNews = isNetfilter ? isOfTable(message) : isOfRouting(message, table)
            return !isNews
        }
        return isNews
    }

    /// The first attribute of tables, chains, rules, sets and flow tables is their table's name. Elements of sets come and go
    /// with traffic, and change no rule.
    private static func isOfTable(_ message: UnsafePointer<nlmsghdr>) -> Bool {
        let type = message.pointee.nlmsg_type
        guard type >> 8 == UInt16(NFNL_SUBSYS_NFTABLES) else { return false }
        let kind = UInt32(type & 0xFF)
        guard kind != NFT_MSG_NEWGEN.rawValue, kind != NFT_MSG_NEWSETELEM.rawValue, kind != NFT_MSG_DELSETELEM.rawValue
        else { return false }
        var isOurs = false
        Netlink.attributes(message, header: MemoryLayout<nfgenmsg>.size) { type, value in
            guard type == Int(NFTA_TABLE_NAME.rawValue) else { return }
            isOurs = value.prefix { $0 != 0 }.elementsEqual("pipelined".utf8)
        }
        return isOurs
    }

    private static func isOfRouting(_ message: UnsafePointer<nlmsghdr>, _ table: UInt32) -> Bool {
        switch Int(message.pointee.nlmsg_type) {
        // Routing rules change rarely, and any earlier one may affect ours.
        case RTM_NEWRULE, RTM_DELRULE: return true
        case RTM_NEWROUTE, RTM_DELROUTE:
            return holds(message, header: MemoryLayout<rtmsg>.size, Int(RTA_TABLE.rawValue)) { $0 == table }
        // A port of a bridge or a similar device.
        case RTM_NEWLINK: return holds(message, header: MemoryLayout<ifinfomsg>.size, Int(IFLA_MASTER)) { $0 != 0 }
        default: return false
        }
    }

    /// Whether it has this attribute, with a number that passes.
    private static func holds(
        _ message: UnsafePointer<nlmsghdr>, header: Int, _ wanted: Int, _ isSo: (UInt32) -> Bool
    ) -> Bool {
        var found = false
        Netlink.attributes(message, header: header) { type, value in
            if type == wanted, value.count == 4, isSo(value.loadUnaligned(as: UInt32.self)) { found = true }
        }
        return found
    }
}
