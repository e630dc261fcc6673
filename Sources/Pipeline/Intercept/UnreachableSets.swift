import CMnl
import Glibc
import Pipeline
import PipelineExport
import PipelineHost
import PipelineNetlink

/// Adds elements to the sets of unreachable destinations (`egress rules`), by nfnetlink: one transaction per family, so
/// that a missing set does not affect the other.
///
/// Threading: one thread, whose network namespace it is.
final class UnreachableSets {
    /// What one transaction takes.
    static let batch = 128
    /// An element takes 44 bytes of it.
    private static let bufferBytes = 16384
    private static let inet: UInt8 = 1  // NFPROTO_INET

    private let socket: NetlinkSocket

    private init(_ socket: NetlinkSocket) { self.socket = socket }

    /// - Returns: nil, with an errno: there is no netlink for us.
    static func open() -> (sets: UnreachableSets?, error: Int32) {
        let (socket, error) = NetlinkSocket.open(NETLINK_NETFILTER, bytes: bufferBytes)
        guard let socket else { return (nil, error) }
        return (UnreachableSets(socket), 0)
    }

    /// - Parameter proofs: at most ``batch``, of one family.
    /// - Returns: 0, or the errno by which the kernel took none of them: EPERM without CAP_NET_ADMIN, ENOENT without the set,
    ///   ENFILE if it is full.
    func add(_ proofs: ArraySlice<UnreachableProof>, isIPv4: Bool) -> Int32 {
        guard proofs.count <= UnreachableSets.batch, let length = write(proofs, isIPv4: isIPv4) else { return EINVAL }
        let failed = socket.send(length)
        return failed == 0 ? answer() : failed
    }

    /// The kernel has finished when the call above returns, and its answer is ready to read.
    private func answer() -> Int32 {
        var error: Int32 = 0
        var isAnswered = false
        while true {
            switch socket.receive() {
            case .nothing: return isAnswered ? error : EPROTO
            case .failed(let why): return error == 0 ? why : error
            case .messages(let bytes):
                Netlink.messages(bytes) { message in
                    guard Int32(message.pointee.nlmsg_type) == NLMSG_ERROR,
                        let said = Netlink.error(Netlink.payload(message))
                    else { return true }
                    isAnswered = true
                    if error == 0 { error = said }
                    return true
                }
            }
        }
    }

    // MARK: Messages

    /// The length of the transaction; nil if it does not fit.
    private func write(_ proofs: ArraySlice<UnreachableProof>, isIPv4: Bool) -> Int? {
        socket.beginRequest()
        var length = 0
        let envelope = { (type: Int32) in
            self.begin(at: length, UInt16(type), 0, family: 0, resource: UInt16(NFNL_SUBSYS_NFTABLES))
        }
        guard let opening = envelope(NFNL_MSG_BATCH_BEGIN) else { return nil }
        length += Int(opening.pointee.nlmsg_len)
        let type = UInt16(NFNL_SUBSYS_NFTABLES) << 8 | UInt16(NFT_MSG_NEWSETELEM.rawValue)
        guard
            let message = begin(
                at: length, type, NLM_F_CREATE | NLM_F_ACK, family: UnreachableSets.inet, resource: 0)
        else { return nil }
        mnl_attr_put_strz(message, UInt16(NFTA_SET_ELEM_LIST_TABLE.rawValue), "pipelined")
        mnl_attr_put_strz(
            message, UInt16(NFTA_SET_ELEM_LIST_SET.rawValue), EgressRules.unreachableSet(isIPv4: isIPv4))
        let list = mnl_attr_nest_start(message, UInt16(NFTA_SET_ELEM_LIST_ELEMENTS.rawValue))
        for proof in proofs { UnreachableSets.put(proof, message) }
        mnl_attr_nest_end(message, list)
        length += Int(message.pointee.nlmsg_len)
        guard let closing = envelope(NFNL_MSG_BATCH_END) else { return nil }
        return length + Int(closing.pointee.nlmsg_len)
    }

    private func begin(
        at offset: Int, _ type: UInt16, _ flags: Int32, family: UInt8, resource: UInt16
    ) -> UnsafeMutablePointer<nlmsghdr>? {
        socket.message(
            at: offset, type, flags,
            nfgenmsg(nfgen_family: family, version: UInt8(NFNETLINK_V0), res_id: resource.bigEndian))
    }

    /// `address . port timeout T`: each field of a key begins at a multiple of four.
    private static func put(_ proof: UnreachableProof, _ message: UnsafeMutablePointer<nlmsghdr>) {
        let element = mnl_attr_nest_start(message, UInt16(NFTA_LIST_ELEM.rawValue))
        let address = proof.destination.address
        var key = ((address.isIPv4 ? 12 : 0)..<16).map(address.byte)
        key += [UInt8(proof.destination.port >> 8), UInt8(proof.destination.port & 0xFF), 0, 0]
        let outer = mnl_attr_nest_start(message, UInt16(NFTA_SET_ELEM_KEY.rawValue))
        mnl_attr_put(message, UInt16(NFTA_DATA_VALUE.rawValue), key.count, key)
        mnl_attr_nest_end(message, outer)
        mnl_attr_put_u64(message, UInt16(NFTA_SET_ELEM_TIMEOUT.rawValue), proof.lasts.milliseconds.bigEndian)
        mnl_attr_nest_end(message, element)
    }
}
