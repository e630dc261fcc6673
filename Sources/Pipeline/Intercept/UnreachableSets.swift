import CMnl
import Glibc
import Pipeline
import PipelineExport
import PipelineHost

/// Puts elements into the sets of destinations that do not answer (`egress rules`), by nfnetlink: one transaction for each
/// family, so that a set that is missing keeps nothing from the other one.
///
/// Threading: one thread, whose network namespace it is. Ownership: closes its socket.
final class UnreachableSets {
    /// What one transaction takes.
    static let batch = 128
    /// An element takes 44 bytes of it.
    private static let bufferBytes = 16384
    private static let inet: UInt8 = 1  // NFPROTO_INET

    private let socket: OpaquePointer
    private let buffer = UnsafeMutableRawBufferPointer.allocate(byteCount: bufferBytes, alignment: 8)
    private var sequence: UInt32 = 0

    private init(_ socket: OpaquePointer) { self.socket = socket }

    deinit {
        mnl_socket_close(socket)
        buffer.deallocate()
    }

    /// - Returns: nil, with an errno: there is no netlink for us.
    static func open() -> (sets: UnreachableSets?, error: Int32) {
        let (socket, error) = Netlink.open(NETLINK_NETFILTER)
        guard let socket else { return (nil, error) }
        return (UnreachableSets(socket), 0)
    }

    /// - Parameter proofs: at most ``batch``, of one family.
    /// - Returns: 0, or the errno by which the kernel took none of them: EPERM without CAP_NET_ADMIN, ENOENT without the set,
    ///   ENFILE if it is full.
    func add(_ proofs: ArraySlice<UnreachableProof>, isIPv4: Bool) -> Int32 {
        guard proofs.count <= UnreachableSets.batch, let length = write(proofs, isIPv4: isIPv4) else { return EINVAL }
        guard mnl_socket_sendto(socket, buffer.baseAddress, length) >= 0 else { return errno }
        return answer()
    }

    /// The kernel has done it when the call above returns, and what it says of it waits.
    private func answer() -> Int32 {
        var error: Int32 = 0
        var isAnswered = false
        while true {
            let count = mnl_socket_recvfrom(socket, buffer.baseAddress, buffer.count)
            if count < 0, errno == EINTR { continue }
            guard count > 0 else {
                let why = count < 0 ? errno : ENODATA
                if why != EAGAIN { return error == 0 ? why : error }
                return isAnswered ? error : EPROTO
            }
            ConntrackReader.read(UnsafeRawBufferPointer(rebasing: buffer[..<count])) { message, _ in
                guard case .error(let said) = message else { return }
                isAnswered = true
                if error == 0 { error = said }
            }
        }
    }

    // MARK: Messages

    /// The length of the transaction; nil if it does not fit.
    private func write(_ proofs: ArraySlice<UnreachableProof>, isIPv4: Bool) -> Int? {
        sequence &+= 1
        var length = 0
        let envelope = { (type: Int32) in
            self.begin(at: length, type: UInt16(type), flags: 0, family: 0, resource: UInt16(NFNL_SUBSYS_NFTABLES))
        }
        guard let opening = envelope(NFNL_MSG_BATCH_BEGIN) else { return nil }
        length += Int(opening.pointee.nlmsg_len)
        let type = UInt16(NFNL_SUBSYS_NFTABLES) << 8 | UInt16(NFT_MSG_NEWSETELEM.rawValue)
        let flags = UInt16(NLM_F_CREATE | NLM_F_ACK)
        guard let message = begin(at: length, type: type, flags: flags, family: UnreachableSets.inet, resource: 0)
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
        at offset: Int, type: UInt16, flags: UInt16, family: UInt8, resource: UInt16
    ) -> UnsafeMutablePointer<nlmsghdr>? {
        guard let base = buffer.baseAddress, offset + 64 <= buffer.count,
            let message = mnl_nlmsg_put_header(base + offset),
            let extra = mnl_nlmsg_put_extra_header(message, MemoryLayout<nfgenmsg>.size)
        else { return nil }
        message.pointee.nlmsg_type = type
        message.pointee.nlmsg_flags = UInt16(NLM_F_REQUEST) | flags
        message.pointee.nlmsg_seq = sequence
        extra.storeBytes(
            of: nfgenmsg(nfgen_family: family, version: UInt8(NFNETLINK_V0), res_id: resource.bigEndian),
            as: nfgenmsg.self)
        return message
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
