import CLinux
import PipelineThreads

/// The descriptors that outlive a node, by name.
///
/// Ownership: closes them with itself, or when the node wants it.
final class KeptSockets {
    private struct Kept {
        let descriptor: Int32
        let name: String
        /// The keeper was started with it: it stays.
        let isGiven: Bool
    }
    private var kept: [Kept]

    init(_ given: [GivenDescriptor]) {
        kept = given.map { Kept(descriptor: $0.descriptor, name: $0.name, isGiven: true) }
    }

    deinit { for one in kept { _ = cl_close(one.descriptor) } }

    var descriptors: [Int32] { kept.map(\.descriptor) }
    /// As `LISTEN_FDNAMES` has them.
    var names: String { kept.map(\.name).joined(separator: ":") }
    var count: Int { kept.count }

    /// Takes a descriptor over; one of a socket that is kept already is closed.
    func add(_ descriptor: Int32, _ name: String) {
        let isKnown = kept.contains { cl_is_same_socket($0.descriptor, descriptor) != 0 }
        guard !isKnown, kept.count < ListenVariables.most else {
            _ = cl_close(descriptor)
            return
        }
        kept.append(Kept(descriptor: descriptor, name: name, isGiven: false))
    }

    func remove(_ name: String) { drop { $0.name == name && !$0.isGiven } }

    /// Forgets sockets that somebody has ended: nobody listens there any more.
    func removeEnded() { drop { KeptSockets.hasEnded($0.descriptor) } }

    private func drop(_ isGone: (Kept) -> Bool) {
        kept.removeAll { one in
            guard isGone(one) else { return false }
            _ = cl_close(one.descriptor)
            return true
        }
    }

    private static func hasEnded(_ descriptor: Int32) -> Bool {
        var item = cl_poll_item(descriptor)
        return cl_poll(&item, 1, 0) > 0 && Int32(item.got) & Int32(CL_HANGUP) != 0
    }
}
