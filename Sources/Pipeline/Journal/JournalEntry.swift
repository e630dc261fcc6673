/// What the journal keeps of one act (R25).
package struct JournalEntry: Sendable, Equatable {
    package enum Outcome: String, Sendable, CaseIterable {
        /// A change is in force.
        case applied
        /// A change waits until somebody confirms it.
        case held
        /// A change or an act was refused: nothing of it was done.
        case rejected
        /// A change that was in force is not any more.
        case rolledBack = "rolled_back"
        /// Something that an operator did to the node, other than a change.
        case admin
        case started, stopped
        /// Of the journal itself: a file begins; entries were lost; a torn line was cut.
        case opened, gap, cut
    }

    /// Who was at the other end of a socket, or sent a signal.
    package struct Peer: Sendable, Equatable {
        package let user: UInt32
        package let process: Int32
        /// The process's name, as it was found; nil: it had ended.
        package let command: String?
        package init(user: UInt32, process: Int32, command: String?) {
            self.user = user
            self.process = process
            self.command = command
        }
    }

    package let outcome: Outcome
    /// Where it came from: `config`, `file`, `push`, `etcd`, `admin`, `signal`, `node`.
    package let source: String
    /// Who, by their own word: a document's `actor`, or the way that was taken, as `SIGHUP`.
    package var actor: String?
    /// Who, by the kernel's word.
    package var peer: Peer?
    /// What the sender calls it.
    package var request: String?
    package var revision: UInt64?
    package let what: String
    package var why: String?

    package init(_ outcome: Outcome, source: String, what: String) {
        (self.outcome, self.source, self.what) = (outcome, source, what)
    }

    // MARK: Bounds

    /// Bytes of each text, before it is escaped: a line stays below ``JournalLine/limit`` whatever somebody sends.
    private enum Limit {
        static let source = 32
        static let name = 128
        static let command = 64
        static let what = 512
        static let why = 1024
    }

    /// With its texts cut, so that what waits is bounded as well.
    package var bounded: JournalEntry {
        var entry = JournalEntry(
            outcome, source: JournalEntry.cut(source, Limit.source), what: JournalEntry.cut(what, Limit.what))
        entry.actor = actor.map { JournalEntry.cut($0, Limit.name) }
        entry.request = request.map { JournalEntry.cut($0, Limit.name) }
        entry.why = why.map { JournalEntry.cut($0, Limit.why) }
        entry.revision = revision
        entry.peer = peer.map {
            Peer(
                user: $0.user, process: $0.process, command: $0.command.map { JournalEntry.cut($0, Limit.command) })
        }
        return entry
    }

    /// A text that was cut ends in `…`.
    private static func cut(_ text: String, _ limit: Int) -> String {
        guard text.utf8.count > limit else { return text }
        var end = text.utf8.index(text.startIndex, offsetBy: limit)
        while end > text.startIndex, (0x80..<0xC0).contains(text.utf8[end]) { end = text.utf8.index(before: end) }
        return String(text[..<end]) + "…"
    }

    /// Bytes that it takes while it waits, about.
    var weight: Int {
        let texts = [source, what, actor, request, why, peer?.command].compactMap { $0?.utf8.count }
        return texts.reduce(128, +)
    }
}
