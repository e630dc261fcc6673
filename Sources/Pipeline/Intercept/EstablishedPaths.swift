import CLinux
import CMnl
import Glibc
import Pipeline
import PipelineHost
import PipelineNetlink

/// Asks the kernel which destinations answered open TCP connections of this network namespace (sock_diag), since open
/// connections have no record yet.
///
/// Threading: one thread, whose network namespace it is.
final class EstablishedPaths {
    /// The most messages of an answer, of about a hundred connections each; the rest stays unknown.
    private static let longestAnswer = 64
    /// The kernel produces the answer while it is read: no other work waits for it.
    private static let patience = TimeSpan.milliseconds(500)
    /// TCP_ESTABLISHED, TCP_FIN_WAIT1, TCP_FIN_WAIT2, TCP_CLOSE_WAIT: both have heard of each other.
    private static let states: UInt32 = 1 << 1 | 1 << 4 | 1 << 5 | 1 << 8
    /// In `struct tcp_info`, milliseconds: since data came, and since an acknowledgement did.
    private static let lastDataAt = 52
    private static let lastAckAt = 56

    private let socket: NetlinkSocket

    private init(_ socket: NetlinkSocket) { self.socket = socket }

    /// Nil: sock_diag is not available.
    static func open() -> EstablishedPaths? {
        guard let socket = NetlinkSocket.open(NETLINK_SOCK_DIAG).socket else { return nil }
        return EstablishedPaths(socket)
    }

    struct Answer {
        /// How long ago each destination last answered.
        var heard: [Endpoint: TimeSpan] = [:]
        /// False: there may be more.
        var isWhole = false
        /// The errno if the kernel does not support such queries; else 0.
        var error: Int32 = 0
    }

    /// - Parameter destinations: of one family, not too many: every open connection is compared with each.
    func ask(_ destinations: [Endpoint], isIPv4: Bool) -> Answer {
        var answer = Answer()
        guard !destinations.isEmpty, let length = write(destinations, isIPv4: isIPv4) else { return answer }
        answer.error = socket.send(length)
        guard answer.error == 0 else { return answer }
        let began = Instant(nanoseconds: cl_now())
        for _ in 0..<EstablishedPaths.longestAnswer {
            // Not whole: ENOBUFS, and whatever else.
            guard case .messages(let bytes) = socket.receive() else { return answer }
            if read(bytes, isIPv4, &answer) { return answer }
            if Instant(nanoseconds: cl_now()).since(began) > EstablishedPaths.patience { return answer }
        }
        return answer
    }

    // MARK: The question

    /// Its length; nil if it does not fit.
    private func write(_ destinations: [Endpoint], isIPv4: Bool) -> Int? {
        socket.beginRequest()
        var request = inet_diag_req_v2()
        request.sdiag_family = UInt8(isIPv4 ? AF_INET : AF_INET6)
        request.sdiag_protocol = UInt8(IPPROTO_TCP)
        request.idiag_ext = 1 << UInt8(INET_DIAG_INFO - 1)
        request.idiag_states = EstablishedPaths.states
        guard socket.hasRoom(destinations.count * 32 + 256),
            let message = socket.message(UInt16(SOCK_DIAG_BY_FAMILY), NLM_F_ROOT | NLM_F_MATCH, request)
        else { return nil }
        let program = EstablishedPaths.filter(destinations, isIPv4: isIPv4)
        mnl_attr_put(message, UInt16(INET_DIAG_REQ_BYTECODE), program.count, program)
        return Int(message.pointee.nlmsg_len)
    }

    /// Bytecode that accepts a connection to any of them: one condition per destination, followed by a jump to the end,
    /// which a mismatch skips. A jump exactly to the end accepts; four bytes beyond rejects.
    private static func filter(_ destinations: [Endpoint], isIPv4: Bool) -> [UInt8] {
        let conditionBytes = 4 + 8 + (isIPv4 ? 4 : 16)
        let jumpBytes = 4
        let total = destinations.count * (conditionBytes + jumpBytes)
        var program: [UInt8] = []
        program.reserveCapacity(total)
        let operation = { (code: Int, yes: Int, no: Int) -> [UInt8] in
            [UInt8(code), UInt8(yes)] + withUnsafeBytes(of: UInt16(no)) { Array($0) }
        }
        for (index, destination) in destinations.enumerated() {
            let isLast = index == destinations.count - 1
            let leap = conditionBytes + jumpBytes + (isLast ? 4 : 0)
            program += operation(INET_DIAG_BC_D_COND, conditionBytes, leap)
            program += [UInt8(isIPv4 ? AF_INET : AF_INET6), isIPv4 ? 32 : 128, 0, 0]
            program += withUnsafeBytes(of: Int32(destination.port)) { Array($0) }
            program += ((isIPv4 ? 12 : 0)..<16).map(destination.address.byte)
            program += operation(INET_DIAG_BC_JMP, jumpBytes, total - program.count)
        }
        return program
    }

    // MARK: The answer

    /// - Returns: true at its end.
    private func read(_ bytes: UnsafeRawBufferPointer, _ isIPv4: Bool, _ answer: inout Answer) -> Bool {
        var isOver = false
        Netlink.messages(bytes) { message in
            // Messages of an abandoned earlier answer are skipped.
            guard message.pointee.nlmsg_seq == socket.sequence else { return true }
            switch Int32(message.pointee.nlmsg_type) {
            case Int32(NLMSG_DONE): (answer.isWhole, isOver) = (true, true)
            case Int32(NLMSG_ERROR):
                isOver = true
                answer.error = Netlink.error(Netlink.payload(message)) ?? EPROTO
            default: EstablishedPaths.see(message, isIPv4, &answer)
            }
            return !isOver
        }
        return isOver
    }

    /// `struct inet_diag_msg`: four bytes, then ports and addresses of both ends, in network order; attributes behind it.
    private static func see(_ message: UnsafePointer<nlmsghdr>, _ isIPv4: Bool, _ answer: inout Answer) {
        let (header, body) = (MemoryLayout<inet_diag_msg>.size, Netlink.payload(message))
        guard body.count >= header else { return }
        let port = UInt16(bigEndian: body.loadUnaligned(fromByteOffset: 6, as: UInt16.self))
        let word = { (place: Int) in UInt32(bigEndian: body.loadUnaligned(fromByteOffset: place, as: UInt32.self)) }
        let half = { (place: Int) in UInt64(bigEndian: body.loadUnaligned(fromByteOffset: place, as: UInt64.self)) }
        let place = Endpoint(isIPv4 ? IPAddress(v4: word(24)) : IPAddress(high: half(24), low: half(32)), port)
        Netlink.attributes(message, header: header) { type, value in
            guard type == INET_DIAG_INFO, value.count >= lastAckAt + 4 else { return }
            let since = { (place: Int) in value.loadUnaligned(fromByteOffset: place, as: UInt32.self) }
            let heard = TimeSpan.milliseconds(min(since(lastDataAt), since(lastAckAt)))
            answer.heard[place] = min(answer.heard[place] ?? heard, heard)
        }
    }
}
