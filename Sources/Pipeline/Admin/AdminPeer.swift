import CLinux
import Pipeline
import PipelineJournal
import PipelineNode
import PipelineRuntime

/// Who is at the other end of a client's connection, by the kernel's word (SO_PEERCRED): as it was when that connected.
///
/// Who may connect is the socket file's mode: its owner and root, and a group if the config names one. All of them may
/// read; what changes the node is for its own user and root.
struct AdminPeer {
    /// Nil: the kernel does not say.
    let user: UInt32?
    private let process: Int32

    init(user: UInt32?, process: Int32 = 0) { (self.user, self.process) = (user, process) }

    init(_ descriptor: Descriptor) {
        var (user, process): (UInt32, Int32) = (0, 0)
        let failed = cl_unix_peer(descriptor.number, &user, &process)
        (self.user, self.process) = (failed == 0 ? user : nil, process)
    }

    var mayChange: Bool { user == 0 || user == cl_user_id() }

    /// For the journal; asked while the client waits for its answer, and so is still there as a rule.
    var named: JournalEntry.Peer? { user.map { JournalEntry.Peer(user: $0, process: process) } }

    /// Why it may not, and who may.
    func refusal(of change: String) -> (problem: String, remedy: String) {
        let own = cl_user_id()
        let who = own == 0 ? "root" : "root and uid \(own), which the node runs as"
        return (
            "uid \(user.map { "\($0)" } ?? "unknown") may read here, but not \(change): that is for \(who)",
            own == 0 ? "run it as root" : "run it as one of them"
        )
    }
}
